"""The whole study of Zhang & Nanda 2023 on a model: corruptions, metrics, windows, measured."""

from ._presets import PRESETS as PRESETS
from ._presets import Sizes as Sizes
from ._presets import sizes_of as sizes_of
from ._study import study_patching as study_patching
