"""Sparse feature circuits (Marks et al. 2024): nodes, edges, and what they are worth."""

from ._basis import Basis as Basis
from ._circuit import FeatureCircuit as FeatureCircuit
from ._edges import FeatureEdges as FeatureEdges
from ._edges import edges as edges
from ._evaluate import Faithfulness as Faithfulness
from ._evaluate import circuit_values as circuit_values
from ._evaluate import faithfulness as faithfulness
from ._layout import FeatureNode as FeatureNode
from ._layout import Layout as Layout
from ._objective import Behaviour as Behaviour
from ._objective import Objective as Objective
from ._paths import patch_edges as patch_edges
from ._prune import edge_values as edge_values
from ._scores import FeatureScores as FeatureScores
from ._scores import nodes as nodes
from ._select import errors_of as errors_of
from ._select import random_like as random_like
from ._select import select as select
from ._select import select_edges as select_edges
