"""Discrete-SAE circuits: a task's heads, and the study of O'Neill & Bui 2024."""

from ...circuits.discrete import Settings as Settings
from ._heads import discover_discrete as discover_discrete
from ._presets import PRESETS as PRESETS
from ._presets import DiscreteSizes as DiscreteSizes
from ._presets import Swept as Swept
from ._presets import discrete_sizes as discrete_sizes
from ._study import study_discrete as study_discrete
