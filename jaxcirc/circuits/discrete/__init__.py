"""Discrete-SAE circuits: heads whose codes occur on one class of texts only."""

from ._activations import Pool as Pool
from ._activations import component_outputs as component_outputs
from ._codes import distinct as distinct
from ._codes import pair_counts as pair_counts
from ._codes import unique_counts as unique_counts
from ._discover import DiscreteScores as DiscreteScores
from ._discover import discrete as discrete
from ._discover import score_outputs as score_outputs
from ._edges import edge_scores as edge_scores
from ._edges import end_scores as end_scores
from ._faithful import HeadCurve as HeadCurve
from ._faithful import head_curve as head_curve
from ._rank import layer_ordered as layer_ordered
from ._rank import rank_by_pairs as rank_by_pairs
from ._sae import DiscreteSAE as DiscreteSAE
from ._sae import Settings as Settings
from ._sae import codes_of as codes_of
from ._sae import fit as fit
