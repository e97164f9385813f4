"""Prompts with what they are about: the values of their attributes, and how to change one."""

from ._agreement import labelled_agreement as labelled_agreement
from ._ioi import labelled_ioi as labelled_ioi
from ._labelled import Draft as Draft
from ._labelled import Labelled as Labelled
from ._labelled import Maker as Maker
from ._pronouns import labelled_pronouns as labelled_pronouns
from ._ravel import Ravel as Ravel
from ._ravel import read_ravel as read_ravel
from ._tasks import LABELLED as LABELLED
