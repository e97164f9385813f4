"""Exact activation patching (Zhang & Nanda 2023)."""

from ._effects import Effects as Effects
from ._patch import Cell as Cell
from ._sweep import patch as patch
from ._sweep import sweep as sweep
