"""Experiments: each runs the whole of a question and returns a `Result`."""

from ._claim import Claim as Claim
from ._clock import clock as clock
from ._result import Result as Result
from ._result import Row as Row
from ._result import facts_of as facts_of
from ._result import load_result as load_result
from .attribution import compare_attribution as compare_attribution
from .discover import discover_task as discover_task
from .discover import head_lens as head_lens
from .lens import LensReport as LensReport
from .lens import lens_text as lens_text
from .patch import patch_task as patch_task
from .patching import PRESETS as PRESETS
from .patching import Sizes as Sizes
from .patching import sizes_of as sizes_of
from .patching import study_patching as study_patching
from .tasks import TaskRow as TaskRow
from .tasks import survey_tasks as survey_tasks
