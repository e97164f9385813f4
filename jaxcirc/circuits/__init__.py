"""Circuits: found, verified, and judged by ablation."""

from ._discover import NodeCircuit as NodeCircuit
from ._discover import discover as discover
from ._evaluate import Curve as Curve
from ._evaluate import ablated_values as ablated_values
from ._evaluate import all_nodes as all_nodes
from ._evaluate import bounds as bounds
from ._evaluate import evaluate as evaluate
