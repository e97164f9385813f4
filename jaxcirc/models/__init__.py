"""Models: one decoder class, its sources, and small random ones."""

from ._cache import cache_dir as cache_dir
from ._parity import FAMILY_GOAL as FAMILY_GOAL
from ._parity import ParityReport as ParityReport
from ._parity import families as families
from ._parity import parity as parity
from ._parity import parity_of_families as parity_of_families
from .lm import LM as LM
from .lm import Config as Config
from .lm import cast as cast
from .load import MODELS as MODELS
from .load import load_model as load_model
from .penzai import from_penzai as from_penzai
from .penzai import to_penzai as to_penzai
from .processing import process as process
from .processing import require_processing as require_processing
from .tokenizer import Tokenizer as Tokenizer
from .toy import toy as toy
