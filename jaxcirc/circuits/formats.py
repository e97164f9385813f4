"""Circuits as files: the graph JSON of EAP-IG and MIB, Graphviz DOT, attribution-graph JSON.

Names are those of EAP-IG (github.com/hannamw/EAP-IG): `input`, `a9.h6`, `m3`, `logits`; the input
slots of a head `a9.h6<q>`, `<k>`, `<v>`; an edge `a9.h6->a10.h0<q>`. That format knows query heads
only, so an edge into a shared key/value head is written once for each of its query heads, in equal
shares, and their sum is the edge again. May import `taps`.
"""

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from ..taps import KINDS, Node, Wiring
from ._graph import Graph, component

Helpful = Literal["negative", "positive"]
"""Which sign the score of a helpful edge has in a file."""

_KEYS = ("cfg", "nodes", "edges")
_SIZES = ("n_layers", "n_heads", "parallel_attn_mlp")
_COUNT = "0|[1-9][0-9]*"
_NAME = re.compile(
    rf"input|pos|logits|m(?P<mlp>{_COUNT})"
    rf"|a(?P<layer>{_COUNT})\.h(?P<head>{_COUNT})(?:<(?P<slot>[qkv])>)?"
)
_WHOLE = {
    "embed": "input",
    "pos_embed": "pos",
    "mlp_out": "m{0}",
    "mlp_in": "m{0}",
    "final_resid": "logits",
}
_HEAD = {"z": "", "q_in": "<q>", "k_in": "<k>", "v_in": "<v>"}


def name_of(node: Node, group: int = 1) -> str:
    """The name of a source or a reader: `input`, `a9.h6`, `a9.h6<q>`, `m3`, `logits`.

    - `group`: query heads to a key/value head, which is named after the first of them.

    A split-off position embedding is `pos`, and `input` then the tokens alone. Raises `ValueError`
    for a node that neither writes nor reads.

    >>> name_of(Node("k_in", 2, 1), group=3)
    'a2.h3<k>'
    """
    if node.site in _WHOLE:
        return _WHOLE[node.site].format(node.layer)
    if node.site not in _HEAD or node.index is None:
        raise ValueError(
            f"{node!r} is no end of an edge: the sites are {', '.join((*_HEAD, *_WHOLE))}, with an"
            ' index for a head, as in Node("z", 9, 6)'
        )
    head = node.index * (group if node.site in ("k_in", "v_in") else 1)
    return f"a{node.layer}.h{head}{_HEAD[node.site]}"


def parse_name(name: str, wiring: Wiring, reads: bool = False) -> Node:
    """The node of a name: the inverse of `name_of`.

    - `wiring`: of the model. Names of heads are those of query heads; `<k>` and `<v>` of any head
      of a group give the group's reader.
    - `reads`: whether `m3` is meant as a reader ("mlp_in") or a source ("mlp_out").

    Raises `ValueError` for a name that the model does not have.

    >>> parse_name("a9.h6<q>", Wiring(12, 12, 12))
    Node(site='q_in', layer=9, index=6)
    """
    found = _NAME.fullmatch(name)
    node = None if found is None else _node(found, wiring, reads)
    if node is None:
        raise ValueError(f"no node {name!r} in {_model(wiring)}")
    return node


def _node(found: re.Match, wiring: Wiring, reads: bool) -> Node | None:
    if found[0] == "input":
        return Node("embed", 0)
    if found[0] == "pos":
        return Node("pos_embed", 0) if wiring.split else None
    if found[0] == "logits":
        return Node("final_resid", wiring.n_layers)
    if found["mlp"] is not None:
        known = wiring.mlp and int(found["mlp"]) < wiring.n_layers
        return Node("mlp_in" if reads else "mlp_out", int(found["mlp"])) if known else None
    layer, head, slot = int(found["layer"]), int(found["head"]), found["slot"]
    if layer >= wiring.n_layers or head >= wiring.n_heads:
        return None
    shared = wiring.n_heads // wiring.n_kv_heads if slot in ("k", "v") else 1
    return Node("z" if slot is None else f"{slot}_in", layer, head // shared)


def edge_name(source: Node, reader: Node, group: int = 1) -> str:
    """The name of an edge; `group` as in `name_of`.

    >>> edge_name(Node("z", 9, 6), Node("q_in", 10, 0))
    'a9.h6->a10.h0<q>'
    """
    return f"{name_of(source)}->{name_of(reader, group)}"


def parse_edge(name: str, wiring: Wiring) -> tuple[Node, Node]:
    """The (source, reader) of an edge's name: the inverse of `edge_name`.

    Raises `ValueError` for a name that is no edge of the model.

    >>> parse_edge("m3->logits", Wiring(12, 12, 12))
    """
    source, arrow, reader = name.partition("->")
    if not arrow:
        raise ValueError(f"{name!r} names no edge: 'a9.h6->a10.h0<q>', 'm3->logits'")
    edge = parse_name(source, wiring), parse_name(reader, wiring, reads=True)
    wiring.find(*edge)
    return edge


def _model(wiring: Wiring) -> str:
    """The model in words, and the names that it has."""
    last = f"a{wiring.n_layers - 1}.h{wiring.n_heads - 1}"
    mlps = f", m0 to m{wiring.n_layers - 1}" if wiring.mlp else ""
    return (
        f"a model of {wiring.n_layers} layers with {wiring.n_heads} heads each: its names are"
        f" input, a0.h0 to {last} (a0.h0<q>, <k>, <v> as readers){mlps}, logits"
    )


def ungrouped(graph: Graph) -> Graph:
    """The same circuit with keys and values of every query head apart.

    Each of the g query heads of a group gets 1/g of the group's importance.

    >>> ungrouped(graph).wiring.n_kv_heads == graph.wiring.n_heads
    """
    full = dataclasses.replace(graph.wiring, n_kv_heads=graph.wiring.n_heads)
    into, importance = _into(graph.wiring, full), graph.importance
    if importance is not None:
        importance = importance[into] / np.bincount(into)[into]
    return Graph(full, graph.kept[into], importance)


def grouped(graph: Graph, n_kv_heads: int) -> Graph:
    """The inverse of `ungrouped`: importance is summed over the query heads of a group, and an edge
    kept for any of them is kept.

    Raises `ValueError` if the query heads cannot be divided so.

    >>> grouped(ungrouped(graph), graph.wiring.n_kv_heads)
    """
    if n_kv_heads < 1 or graph.wiring.n_heads % n_kv_heads:
        raise ValueError(
            f"n_kv_heads={n_kv_heads} does not divide {graph.wiring.n_heads} heads: leave it out"
            " unless the model shares keys and values"
        )
    wiring = dataclasses.replace(graph.wiring, n_kv_heads=n_kv_heads)
    into, importance = _into(wiring, graph.wiring), graph.importance
    if importance is not None:
        importance = np.bincount(into, importance, wiring.n_edges)
    return Graph(wiring, np.bincount(into, graph.kept, wiring.n_edges) > 0, importance)


def _into(wiring: Wiring, full: Wiring) -> Int[np.ndarray, "full"]:
    """The edge of `wiring` that each edge of `full` belongs to."""
    shape = (len(KINDS), wiring.n_layers + 1, wiring.n_heads, wiring.n_sources)
    shared = np.isin(full.kind, [KINDS.index("k"), KINDS.index("v")])
    index = np.where(shared, full.index // (full.n_heads // wiring.n_kv_heads), full.index)
    own = np.ravel_multi_index((wiring.kind, wiring.layer, wiring.index, wiring.source), shape)
    order = np.argsort(own)
    wanted = np.ravel_multi_index((full.kind, full.layer, index, full.source), shape)
    return order[np.searchsorted(own[order], wanted)]


def _edge_names(wiring: Wiring) -> list[str]:
    sources = [name_of(node) for node in wiring.sources]
    readers = [name_of(node) for node in wiring.readers]
    return [
        f"{sources[i]}->{readers[j]}" for i, j in zip(wiring.source, wiring.reader, strict=True)
    ]


def _node_names(wiring: Wiring) -> list[str]:
    return [*map(name_of, wiring.sources), "logits"]


def read_graph(
    path: str | os.PathLike, *, helpful: Helpful, n_kv_heads: int | None = None
) -> Graph:
    """Read the graph JSON of EAP-IG and MIB.

    - `helpful`: the sign that helpful edges have in the file, which the format does not say; older
      files of EAP-IG have "negative", those of `write_graph` "positive".
    - `n_kv_heads`: of a model with shared keys and values (default: what the file says, or one to a
      query head). An edge into a group is the sum over its query heads.

    Returns `Graph`: the wiring, `kept` Bool[edge], and `importance` Float[edge], positive where the
    edge helps, NaN where the file has no score. Raises `ValueError` for a file that is cut off, has
    unknown or missing edges, or says itself that `helpful` is wrong.

    >>> read_graph("ioi-eap-ig.json", helpful="negative").wiring.n_edges
    32491
    """
    if helpful not in get_args(Helpful):
        raise ValueError(f'helpful={helpful!r}: use "negative" or "positive"')
    document = _document(Path(path))
    cfg, nodes, edges = (document[key] for key in _KEYS)
    said = cfg.get("helpful", helpful)
    if said != helpful:
        raise ValueError(f"{path} says helpful edges are {said}: read_graph(..., helpful={said!r})")
    wiring = _wiring(cfg, nodes, path)
    names = _edge_names(wiring)
    _check(nodes, _node_names(wiring), 0, "node", path)
    _check(edges, names, cfg.get("unscored", 0), "edge", path)
    scores, kept = _columns(names, edges, path)
    graph = Graph(wiring, kept, scores if helpful == "positive" else -scores)
    groups = cfg.get("n_kv_heads", wiring.n_heads) if n_kv_heads is None else n_kv_heads
    return grouped(graph, groups)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is not whole JSON ({error}): write or download it again"
        ) from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), dict) for key in _KEYS
    ):
        raise ValueError(
            f'{path} is no graph: it needs {{"cfg": {{}}, "nodes": {{}}, "edges": {{}}}}'
        )
    return document


def _wiring(cfg: Mapping[str, Any], nodes: Mapping[str, Any], path) -> Wiring:
    layers, heads, parallel = (cfg.get(key) for key in _SIZES)
    counts = (layers, heads, cfg.get("n_kv_heads", 1))
    whole = all(isinstance(n, int) and n > 0 for n in counts)
    if not whole or parallel not in (True, False) or not isinstance(cfg.get("unscored", 0), int):
        raise ValueError(
            f'{path}: its cfg needs {{"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false,'
            ' "d_model": 768}'
        )
    assert isinstance(layers, int) and isinstance(heads, int)
    return Wiring(layers, heads, heads, "m0" in nodes, bool(parallel))


def _check(found: Mapping[str, Any], names: Sequence[str], fewer: int, what: str, path) -> None:
    """Raises for names that are unknown, then for too few."""
    unknown = sorted(set(found) - set(names))
    if unknown:
        example = names[len(names) // 2]
        raise ValueError(
            f"{path}: unknown {what} {unknown[0]!r} ({len(unknown)} such); a name here is like"
            f" {example!r}: compare cfg with the model that the file was made from"
        )
    if len(found) != len(names) - fewer:
        raise ValueError(
            f"{path} has {len(found)} {what}s where its cfg asks for {len(names) - fewer}: write"
            " all of them, or write_graph(...), which notes those without a score"
        )


def _columns(names: Sequence[str], edges: Mapping[str, Any], path) -> tuple[np.ndarray, np.ndarray]:
    """Scores, NaN where there are none, and which edges are kept."""
    scores, kept = np.full(len(names), np.nan), np.zeros(len(names), bool)
    for i, name in enumerate(names):
        if name not in edges:
            continue
        try:
            scores[i], kept[i] = float(edges[name]["score"]), bool(edges[name]["in_graph"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f'{path}: edge {name!r} needs {{"score": 0.1, "in_graph": true}}'
            ) from None
    return scores, kept


def write_graph(graph: Graph, path: str | os.PathLike, *, d_model: int) -> Path:
    """Write the graph JSON of EAP-IG and MIB, whole or not at all.

    Scores are written with positive for helpful, and `cfg` says so ("helpful"); edges whose score
    is NaN are left out, and `cfg` says how many ("unscored"). A graph without importance gets 1 for
    a kept edge and 0 for any other.

    - `d_model`: the model's width, which the format's own reader asks for. (That reader expects
      MLPs: an attention-only model's file can be read by `read_graph` alone.)

    Returns the path. Raises `ValueError` for a split input, infinite scores, or a kept edge whose
    score is NaN.

    >>> write_graph(graph, "circuit.json", d_model=model.config.d_model)
    """
    _check_scores(graph)
    full = ungrouped(graph)
    wiring, scores = full.wiring, full.kept if full.importance is None else full.importance
    touched = {component(node) for edge in full.edges for node in edge}
    names = [*wiring.sources, Node("final_resid", wiring.n_layers)]
    cfg = {
        "n_layers": wiring.n_layers,
        "n_heads": wiring.n_heads,
        "parallel_attn_mlp": wiring.parallel,
        "d_model": d_model,
        "n_kv_heads": graph.wiring.n_kv_heads,
        "helpful": "positive",
        "unscored": int(np.isnan(scores).sum()),
    }
    edges = {
        name: {"score": float(score), "in_graph": bool(kept)}
        for name, score, kept in zip(_edge_names(wiring), scores, full.kept, strict=True)
        if not np.isnan(score)
    }
    nodes = {name_of(node): {"in_graph": node in touched} for node in names}
    return _write_json(path, {"cfg": cfg, "nodes": nodes, "edges": edges})


def _check_scores(graph: Graph) -> None:
    if graph.wiring.split:
        raise ValueError("the format has one input: score the edges of Wiring.of(model), unsplit")
    if graph.importance is None:
        return
    if np.isinf(graph.importance).any():
        raise ValueError(
            "JSON has no infinite scores: write ranks, Graph(wiring, kept, rankdata(importance))"
        )
    _check_kept(graph)


def _check_kept(graph: Graph) -> None:
    if graph.importance is None:
        return
    unscored = np.flatnonzero(graph.kept & ~np.isfinite(graph.importance))
    if len(unscored):
        raise ValueError(
            f"{len(unscored)} kept edges have no finite score, the first"
            f" {edge_name(*graph.wiring.edge(int(unscored[0])))!r}: keep"
            " kept & np.isfinite(importance)"
        )


def write_dot(graph: Graph, path: str | os.PathLike) -> Path:
    """Write the kept edges as a directed graph for Graphviz, whole or not at all.

    An arrow is labelled with the slot that it enters, is as thick as its importance is large, blue
    where it helps and red where it hinders; layers lie above each other.

    Returns the path; draw it with `dot -Tsvg circuit.dot`.

    >>> write_dot(graph, "circuit.dot")
    """
    _check_kept(graph)
    full = ungrouped(graph)
    weights = _weights(full)
    largest = max(map(abs, weights), default=0) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT;", "  node [shape=box, fontname=sans];"]
    for rank in _ranks(full):
        lines.append("  {rank=same; " + " ".join(f'"{name_of(node)}";' for node in rank) + "}")
    for (source, reader), weight in zip(full.edges, weights, strict=True):
        lines.append(_arrow(source, reader, weight / largest))
    return _write(path, "\n".join([*lines, "}", ""]))


def _weights(graph: Graph) -> list[float]:
    """The importance of the kept edges, 1 where there is none."""
    if graph.importance is None:
        return [1.0] * graph.n_edges
    return graph.importance[graph.kept].tolist()


def _ends(graph: Graph) -> list[Node]:
    """The components at the ends of kept edges, the input first and the logits last."""
    touched = {component(node) for edge in graph.edges for node in edge}
    every = (*graph.wiring.sources, Node("final_resid", graph.wiring.n_layers))
    return [node for node in every if node in touched]


def _ranks(graph: Graph) -> list[list[Node]]:
    """The components of a circuit by height: input, heads and MLP of each layer, logits."""
    ranks: dict[tuple, list[Node]] = {}
    for node in _ends(graph):
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
    _check_kept(graph)
    full = ungrouped(graph)
    at = _places(_ends(full), len(tokens), positions or {})
    links: dict[tuple[str, str], float] = {}
    for (source, reader), weight in zip(full.edges, _weights(full), strict=True):
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
    return _write_json(path, document)


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


def _write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> Path:
    return _write(path, json.dumps(document, allow_nan=False))


def _write(path: str | os.PathLike, text: str) -> Path:
    """Under a temporary name first, so that a reader sees all of it or nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path
