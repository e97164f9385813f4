"""Names of nodes and edges as EAP-IG writes them (github.com/hannamw/EAP-IG): `input`, `a9.h6`,
`m3`, `logits`; the input slots of a head `a9.h6<q>`, `<k>`, `<v>`; an edge `a9.h6->a10.h0<q>`. May
import `taps`.
"""

import re

from ...taps import Node, Wiring

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
