"""First-order and direct attribution."""

from ._direct import Direct as Direct
from ._direct import HeadScores as HeadScores
from ._direct import attention as attention
from ._direct import copying as copying
from ._direct import direct as direct
from ._direct import head_scores as head_scores
from .atpstar import Star as Star
from .atpstar import atp_star as atp_star
from .edge import VanishingGradient as VanishingGradient
from .edge import edges as edges
from .edge_qk import edges_qk as edges_qk
from .flow import flow as flow
from .gradient import Scores as Scores
from .gradient import nodes as nodes
from .integrated import integrated as integrated
from .integrated import quadrature as quadrature
