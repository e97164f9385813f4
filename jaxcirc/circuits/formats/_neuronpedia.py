"""Attribution-graph JSON, which Neuronpedia draws. May import `taps`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...taps import Node
from .._graph import Graph, component
from ._dot import ends_of, weights_of
from ._file import write_json
from ._graph_json import check_kept, ungrouped
from ._names import name_of


def write_neuronpedia(
    graph: Graph,
    path: str | os.PathLike,
    tokens: Sequence[str],
    *,
    scan: str,
    slug: str = "circuit",
    positions: Mapping[Node, int] | None = None,
) -> Path:
    """Write the kept edges as attribution-graph JSON, which Neuronpedia's page displays.

    A node's id is `layer_kind_head_position`, such as `9_head_6_14`, so that no two coincide. The
    edges from one component into the queries, keys and values of another are one link, whose weight
    is the sum of their importance.

    - `tokens`: the prompt's tokens as text. `scan`: the model's name there. `slug`: the graph's.
    - `positions`: the token at which a component is drawn (default: the last).

    Returns the path. Raises `ValueError` for a position outside the prompt.

    >>> write_neuronpedia(graph, "circuit.json", [" Mary", " to"], scan="gpt2-small")
    """
    check_kept(graph)
    full = ungrouped(graph)
    at = _places(ends_of(full), len(tokens), positions or {})
    links: dict[tuple[str, str], float] = {}
    for (source, reader), weight in zip(full.edges, weights_of(full), strict=True):
        target = component(reader)
        ends = _node_id(source, at[source]), _node_id(target, at[target])
        links[ends] = links.get(ends, 0.0) + weight
    metadata = {
        "slug": slug,
        "scan": scan,
        "prompt_tokens": list(tokens),
        "prompt": "".join(tokens),
        "info": {"generator": {"name": "jaxcirc"}},
    }
    document = {
        "metadata": metadata,
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": "", "supernodes": []},
        "nodes": [_described(node, position) for node, position in at.items()],
        "links": [{"source": s, "target": t, "weight": weight} for (s, t), weight in links.items()],
    }
    return write_json(path, document)


def _places(nodes: Sequence[Node], length: int, positions: Mapping[Node, int]) -> dict[Node, int]:
    found = {node: positions.get(node, length - 1) for node in nodes}
    for node, position in found.items():
        if not 0 <= position < length:
            raise ValueError(
                f"{name_of(node)} at position {position} of {length} tokens: positions are 0 to"
                f" {length - 1}, counted from the first token"
            )
    return found


_TYPES = {
    "embed": ("embed", "embedding"),
    "pos_embed": ("pos", "embedding"),
    "z": ("head", "attention head"),
    "mlp_out": ("mlp", "mlp"),
    "final_resid": ("logits", "logit"),
}
"""By site: the kind in an id, and the type that the page is told."""


def _node_id(node: Node, position: int) -> str:
    return f"{_layer(node)}_{_TYPES[node.site][0]}_{node.index or 0}_{position}"


def _layer(node: Node) -> str:
    if _TYPES[node.site][1] == "embedding":
        return "E"
    return str(node.layer + (node.site == "final_resid"))  # the page puts logits above all layers


def _described(node: Node, position: int) -> dict[str, Any]:
    name = _node_id(node, position)
    return {
        "node_id": name,
        "feature": None,
        "layer": _layer(node),
        "ctx_idx": position,
        "feature_type": _TYPES[node.site][1],
        "jsNodeId": f"{name}-0",
        "clerp": name_of(node),
    }
