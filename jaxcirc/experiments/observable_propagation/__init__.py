"""The study of Dunefsky & Cohan 2023, "Observable Propagation", on a model."""

from ._presets import PRESETS as PRESETS
from ._presets import Sizes as Sizes
from ._presets import Subject as Subject
from ._presets import subject_of as subject_of
from ._study import study_observables as study_observables
