"""Circuits: found, verified, and judged by ablation."""

from .discover import NodeCircuit as NodeCircuit
from .discover import discover as discover
from .evaluate import Curve as Curve
from .evaluate import Means as Means
from .evaluate import ablated_values as ablated_values
from .evaluate import all_nodes as all_nodes
from .evaluate import evaluate as evaluate
from .evaluate import means as means
