"""Models: one decoder class, its sources, and small random ones."""

from .lm import LM as LM
from .lm import Config as Config
from .lm import cast as cast
from .toy import toy as toy
