"""Reference circuits by name and version: what was found by hand, to score a method against.

Wang et al. 2022 (arXiv 2211.00593), indirect objects; Hanna et al. 2023 (arXiv 2305.00586), greater
than; Heimersheim & Janiak 2023, docstrings. As edges they are those of Conmy et al. 2023 (arXiv
2304.14997), whose repository fixes what the papers leave open. The same circuit differs between
repositories, so a number is worth nothing without the name of its reference. May import `taps`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Bool

from ..taps import Node, Wiring
from ._graph import Graph
from .formats import parse_name

_GPT2 = Wiring(12, 12, 12)
_ATTN_4L = Wiring(4, 8, 8, mlp=False)
_INPUT = Node("embed", 0)
_ACDC = "edges of ArthurConmy/Automatic-Circuit-Discovery @bc99ace (MIT), without the edges inside"
_SAE = "heads of charlieoneill11/sae-circuits @10fd2e7 (MIT)"

Classes = Mapping[str, tuple[Node, ...]]


@dataclasses.dataclass(frozen=True)
class Truth:
    """A reference circuit.

    - `source`: paper and repository, and what differs from others of the same task.
    - `edges`: None where only heads are known. `heads`: by class.
    """

    name: str
    model: str
    source: str
    wiring: Wiring
    edges: Graph | None
    heads: Classes

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The components, in the order of a run: the heads, and MLPs where edges are known."""
        if self.edges is not None:
            return tuple(self.edges.nodes)
        return tuple(sorted(_all(self.heads)))

    @property
    def head_mask(self) -> Bool[np.ndarray, "layer head"]:
        """Which heads belong to the circuit."""
        mask = np.zeros((self.wiring.n_layers, self.wiring.n_heads), bool)
        for node in _all(self.heads):
            mask[node.layer, node.index] = True
        return mask


def truth(name: str) -> Truth:
    """A reference circuit.

    - "ioi/acdc": GPT-2 small, 963 edges, 26 heads. Every MLP is joined to all of it.
    - "greater_than/acdc": GPT-2 small, 235 edges, nine heads and all MLPs.
    - "docstring/acdc": attn-only-4l, 24 edges, six heads.
    - "ioi/discrete_sae", "greater_than/discrete_sae", "docstring/discrete_sae": the heads that
      O'Neill & Bui 2024 (arXiv 2405.12522) score against, which are not quite the same.

    Returns `Truth`. Raises `ValueError` for another name.

    >>> truth("ioi/acdc").edges.n_edges
    963
    """
    if name not in TRUTHS:
        raise ValueError(f"unknown reference circuit {name!r}: use one of {', '.join(TRUTHS)}")
    return TRUTHS[name](name)


_MOVERS = ("name mover", "backup name mover", "negative")

_IOI = {
    "previous token": "2.2 4.11",
    "duplicate token": "0.1 0.10 3.0",
    "induction": "5.5 5.8 5.9 6.9",
    "s2 inhibition": "7.3 7.9 8.6 8.10",
    "name mover": "9.6 9.9 10.0",
    "backup name mover": "9.0 9.7 10.1 10.2 10.6 10.10 11.2 11.9",
    "negative": "10.7 11.10",
}

_IOI_READS = {
    "previous token": (("input",), ("input",)),
    "duplicate token": (("input",), ("input",)),
    "induction": ((), ("previous token",)),
    "s2 inhibition": (("input",), ("induction", "duplicate token")),
    **dict.fromkeys(_MOVERS, (("s2 inhibition",), ("input",))),
}
"""By class: what its queries read, and what its keys and values read, besides MLPs."""

_GREATER_THAN = {"01": "0.1", "0305": "0.3 0.5", "AMID": "5.5 6.1 6.9 7.10 8.11 9.1"}

_DOCSTRING = {"argument mover": "3.0 3.6", "other": "0.5 1.2 1.4 2.0"}

_DOCSTRING_READS = {
    "a0.h5<v>": "input",
    "a1.h2<q>": "input a0.h5",
    "a1.h2<k>": "input a0.h5",
    "a1.h4<v>": "input a0.h5",
    "a2.h0<q>": "input a0.h5",
    "a2.h0<k>": "input a0.h5",
    "a2.h0<v>": "a1.h4",
    "a3.h0<q>": "a1.h4",
    "a3.h0<k>": "a1.h2 a2.h0",
    "a3.h0<v>": "input a0.h5",
    "a3.h6<q>": "a1.h4",
    "a3.h6<k>": "a1.h2 a2.h0",
    "a3.h6<v>": "input a0.h5",
    "logits": "a3.h0 a3.h6",
}
"""By reader: what it reads."""


def _ioi(name: str) -> Truth:
    heads = _classes(_IOI)
    writers, mlps, rules = {"input": (_INPUT,), **heads}, _mlps(range(12)), []
    for group, (query, key_value) in _IOI_READS.items():
        rules += [(writers[other], _slots(heads[group], "q")) for other in query]
        rules += [(writers[other], _slots(heads[group], "kv")) for other in key_value]
    movers = [head for group in _MOVERS for head in heads[group]]
    rules += [
        ([_INPUT, *movers, *mlps], [_logits(_GPT2)]),
        ([_INPUT, *_all(heads), *mlps], _inside(mlps)),
        (mlps, _slots(_all(heads))),
    ]
    source = f"Wang et al. 2022 (arXiv 2211.00593): {_ACDC} a head; 9.0 is a backup name mover"
    return Truth(name, "gpt2-small", source, _GPT2, _joined(_GPT2, rules), heads)


def _greater_than(name: str) -> Truth:
    heads = _classes(_GREATER_THAN)
    first, second, middle = heads["01"], heads["0305"], heads["AMID"]
    early, late, mlps = _mlps(range(4)), _mlps(range(8, 12)), _mlps(range(12))
    rules = [
        ([_INPUT], [*_slots([*first, *second]), *_inside(early)]),
        (first, [*_inside(early), *_slots(middle)]),
        (second, _slots(middle)),
        (early, [*_inside(early), *_slots(middle)]),
        (middle, _inside(late)),
        (late, _inside(late)),
        ([*middle, *late], [_logits(_GPT2)]),
        (mlps[:9], _inside(mlps[:9])),
        (mlps, _slots(middle, "q")),
    ]
    source = f"Hanna et al. 2023 (arXiv 2305.00586): {_ACDC} a head; its names of the groups"
    return Truth(name, "gpt2-small", source, _GPT2, _joined(_GPT2, rules), heads)


def _docstring(name: str) -> Truth:
    edges = [
        (parse_name(writer, _ATTN_4L), parse_name(reader, _ATTN_4L))
        for reader, writers in _DOCSTRING_READS.items()
        for writer in writers.split()
    ]
    source = f"Heimersheim & Janiak 2023: {_ACDC} a head; head 1.2 where others have 1.0"
    graph = Graph.of(_ATTN_4L, edges)
    return Truth(name, "attn-only-4l", source, _ATTN_4L, graph, _classes(_DOCSTRING))


def _ioi_heads(name: str) -> Truth:
    backup = _IOI["backup name mover"].replace("9.0 ", "") + " 11.3"
    source = f"Wang et al. 2022 (arXiv 2211.00593): {_SAE}; 11.3 in place of 9.0"
    heads = _classes(_IOI | {"backup name mover": backup})
    return Truth(name, "gpt2-small", source, _GPT2, None, heads)


def _greater_than_heads(name: str) -> Truth:
    source = f"Hanna et al. 2023 (arXiv 2305.00586): {_SAE}; the same nine heads as ACDC's"
    return Truth(name, "gpt2-small", source, _GPT2, None, _classes(_GREATER_THAN))


def _docstring_heads(name: str) -> Truth:
    source = f"Heimersheim & Janiak 2023: {_SAE}; 1.0 in place of 1.2"
    heads = _classes(_DOCSTRING | {"other": "0.5 1.0 1.4 2.0"})
    return Truth(name, "attn-only-4l", source, _ATTN_4L, None, heads)


TRUTHS: dict[str, Callable[[str], Truth]] = {
    "ioi/acdc": _ioi,
    "greater_than/acdc": _greater_than,
    "docstring/acdc": _docstring,
    "ioi/discrete_sae": _ioi_heads,
    "greater_than/discrete_sae": _greater_than_heads,
    "docstring/discrete_sae": _docstring_heads,
}
"""What makes each reference circuit."""


def _classes(table: Mapping[str, str]) -> dict[str, tuple[Node, ...]]:
    def head(text: str) -> Node:
        layer, index = text.split(".")
        return Node("z", int(layer), int(index))

    return {name: tuple(map(head, heads.split())) for name, heads in table.items()}


def _all(heads: Classes) -> list[Node]:
    return [head for group in heads.values() for head in group]


def _mlps(layers: Iterable[int]) -> list[Node]:
    return [Node("mlp_out", layer) for layer in layers]


def _slots(heads: Iterable[Node], slots: str = "qkv") -> list[Node]:
    """The readers of heads."""
    return [Node(f"{slot}_in", head.layer, head.index) for head in heads for slot in slots]


def _inside(mlps: Iterable[Node]) -> list[Node]:
    """The readers of MLPs."""
    return [Node("mlp_in", mlp.layer) for mlp in mlps]


def _logits(wiring: Wiring) -> Node:
    return Node("final_resid", wiring.n_layers)


def _joined(wiring: Wiring, rules: Iterable[tuple[Iterable[Node], Iterable[Node]]]) -> Graph:
    """Every edge from one of the writers of a rule to one of its readers, wherever there is one."""
    kept = np.zeros(wiring.n_edges, bool)
    for writers, readers in rules:
        source = np.isin(wiring.source, _numbers(wiring.sources, writers))
        kept |= source & np.isin(wiring.reader, _numbers(wiring.readers, readers))
    return Graph(wiring, kept)


def _numbers(nodes: Iterable[Node], some: Iterable[Node]) -> list[int]:
    wanted = set(some)
    return [number for number, node in enumerate(nodes) if node in wanted]
