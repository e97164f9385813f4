"""Exact activation patching (Zhang & Nanda 2023)."""

from ._ablation import Ablation as Ablation
from ._ablation import constant as constant
from ._ablation import means as means
from ._ablation import resampled as resampled
from ._cells import complement as complement
from ._detect import Detected as Detected
from ._detect import detect as detect
from ._detect import jaccard as jaccard
from ._effects import Effects as Effects
from ._known import known as known
from ._known import known_both_ways as known_both_ways
from ._known import last_logits as last_logits
from ._noise import noised as noised
from ._optimal import optimal as optimal
from ._patch import Cell as Cell
from ._path import path as path
from ._path import path_linear as path_linear
from ._subspace import Aligned as Aligned
from ._subspace import Illusion as Illusion
from ._subspace import Interchange as Interchange
from ._subspace import das as das
from ._subspace import illusion as illusion
from ._subspace import subspace as subspace
from ._sweep import patch as patch
from ._sweep import sweep as sweep
from ._values import DegeneratePatch as DegeneratePatch
