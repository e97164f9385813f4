"""Exact activation patching (Zhang & Nanda 2023)."""

from ._effects import SIGN as SIGN
from ._effects import Effects as Effects
from ._patch import Cell as Cell
from ._patch import ends as ends
from ._patch import with_reference as with_reference
from ._sweep import patch as patch
from ._sweep import sweep as sweep
