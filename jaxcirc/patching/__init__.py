"""Exact activation patching (Zhang & Nanda 2023)."""

from ._detect import Detected as Detected
from ._detect import detect as detect
from ._detect import jaccard as jaccard
from ._effects import Effects as Effects
from ._known import known as known
from ._known import known_both_ways as known_both_ways
from ._known import last_logits as last_logits
from ._patch import Cell as Cell
from ._sweep import patch as patch
from ._sweep import sweep as sweep
