"""The zoo: small models whose circuits are known exactly, to try circuit finders on."""

from ._case import Case as Case
from ._case import load as load
from ._case import names as names
from ._causal import CAUSAL as CAUSAL
from ._causal import Causal as Causal
from ._compiled import PROGRAMS as PROGRAMS
from ._compiled import Program as Program
from ._contrast import NEGATIVES as NEGATIVES
from ._contrast import Negatives as Negatives
from ._file import cards as cards
from ._interchange import agreement as agreement
