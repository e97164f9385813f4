"""First-order and direct attribution."""

from .direct import Direct as Direct
from .direct import HeadScores as HeadScores
from .direct import attention as attention
from .direct import copying as copying
from .direct import direct as direct
from .direct import head_scores as head_scores
from .gradient import Scores as Scores
from .gradient import nodes as nodes
