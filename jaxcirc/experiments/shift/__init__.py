"""SHIFT (Marks et al. 2024): a classifier freed from a confound, beside what it is compared to."""

from ._bias_in_bios import bias_in_bios as bias_in_bios
from ._biographies import biographies as biographies
from ._contexts import rows_of_contexts as rows_of_contexts
from ._head import Fit as Fit
from ._head import Head as Head
from ._head import Margin as Margin
from ._head import Pool as Pool
from ._head import fit as fit
from ._judge import Decisions as Decisions
from ._judge import Judge as Judge
from ._judge import Verdict as Verdict
from ._judge import WordList as WordList
from ._judge import read_decisions as read_decisions
from ._judge import write_decisions as write_decisions
from ._page import JudgePage as JudgePage
from ._page import Shown as Shown
from ._place import placed as placed
from ._section import METHODS as METHODS
from ._section import Scoring as Scoring
from ._study import Shift as Shift
from ._study import Sizes as Sizes
from ._study import study_shift as study_shift
from ._texts import Counts as Counts
from ._texts import Split as Split
from ._texts import Splits as Splits
from ._texts import Task as Task
