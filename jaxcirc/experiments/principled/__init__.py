"""Dictionaries judged by what they are for: the study of Makelov, Lange & Nanda 2024, measured."""

from ._approximation import Approximation as Approximation
from ._approximation import approximate as approximate
from ._bench import Bench as Bench
from ._bench import CrossSection as CrossSection
from ._bench import Runs as Runs
from ._bench import Target as Target
from ._data import Data as Data
from ._judge import Asked as Asked
from ._judge import Judged as Judged
from ._one import judge_dictionary as judge_dictionary
from ._presets import PRESETS as PRESETS
from ._presets import Sizes as Sizes
from ._presets import principled_sizes as principled_sizes
from ._ravel import disentangle as disentangle
from ._search import Found as Found
from ._search import candidates_of as candidates_of
from ._search import search as search
from ._search import sections_of as sections_of
from ._splitting import compare as compare
from ._study import study_principled as study_principled
from ._subjects import LEVELS as LEVELS
from ._subjects import Recipe as Recipe
from ._subjects import Subject as Subject
from ._subjects import chosen as chosen
from ._subjects import trained as trained
