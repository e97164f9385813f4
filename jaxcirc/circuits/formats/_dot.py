"""Circuits for other programs to draw: Graphviz DOT. May import `taps`."""

import os
from pathlib import Path

from ...taps import Node
from .._graph import Graph, component
from ._file import write
from ._graph_json import check_kept, ungrouped
from ._names import _HEAD, name_of


def write_dot(graph: Graph, path: str | os.PathLike) -> Path:
    """Write the kept edges as a directed graph for Graphviz, whole or not at all.

    An arrow is labelled with the slot that it enters, is as thick as its importance is large, blue
    where it helps and red where it hinders; layers lie above each other.

    Returns the path; draw it with `dot -Tsvg circuit.dot`.

    >>> write_dot(graph, "circuit.dot")
    """
    check_kept(graph)
    full = ungrouped(graph)
    weights = weights_of(full)
    largest = max(map(abs, weights), default=0) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT;", "  node [shape=box, fontname=sans];"]
    for rank in _ranks(full):
        lines.append("  {rank=same; " + " ".join(f'"{name_of(node)}";' for node in rank) + "}")
    for (source, reader), weight in zip(full.edges, weights, strict=True):
        lines.append(_arrow(source, reader, weight / largest))
    return write(path, "\n".join([*lines, "}", ""]))


def weights_of(graph: Graph) -> list[float]:
    """The importance of the kept edges, 1 where there is none."""
    if graph.importance is None:
        return [1.0] * graph.n_edges
    return graph.importance[graph.kept].tolist()


def ends_of(graph: Graph) -> list[Node]:
    """The components at the ends of kept edges, the input first and the logits last."""
    touched = {component(node) for edge in graph.edges for node in edge}
    every = (*graph.wiring.sources, Node("final_resid", graph.wiring.n_layers))
    return [node for node in every if node in touched]


def _ranks(graph: Graph) -> list[list[Node]]:
    """The components of a circuit by height: input, heads and MLP of each layer, logits."""
    ranks: dict[tuple, list[Node]] = {}
    for node in ends_of(graph):
        begins = node.site in ("embed", "pos_embed")
        height = (-1,) if begins else (node.layer, node.site == "mlp_out")
        ranks.setdefault(height, []).append(node)
    return list(ranks.values())


def _arrow(source: Node, reader: Node, weight: float) -> str:
    colour = "#3b6fb6" if weight >= 0 else "#c0392b"
    slot = _HEAD.get(reader.site, "").strip("<>")
    return (
        f'  "{name_of(source)}" -> "{name_of(component(reader))}"'
        f' [label="{slot}", color="{colour}", penwidth={0.5 + 3.5 * abs(weight):.3f}];'
    )
