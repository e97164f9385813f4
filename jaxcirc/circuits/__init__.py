"""Circuits: found, verified, and judged by ablation."""

from ._classes import HeadClasses as HeadClasses
from ._classes import head_classes as head_classes
from ._discover import NodeCircuit as NodeCircuit
from ._discover import discover as discover
from ._evaluate import Curve as Curve
from ._evaluate import ablated_values as ablated_values
from ._evaluate import all_nodes as all_nodes
from ._evaluate import bounds as bounds
from ._evaluate import evaluate as evaluate
from ._verify import Verified as Verified
from ._verify import spearman as spearman
from ._verify import verify as verify
