"""A circuit of edges as a layered graph: its parts and the lines between them.

May import `experiments` for `Result` and `taps` for `Wiring`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ..experiments import Result
from ..taps import KINDS, Node, Wiring

INPUT, KEYS_VALUES, HEAD, MLP, LOGITS = "input", "kv", "head", "mlp", "logits"
SLOTS = {"q": "query", "k": "key", "v": "value", "mlp": "", "logits": ""}
_FLOORS = (INPUT, KEYS_VALUES, HEAD, MLP, LOGITS)


@dataclasses.dataclass(frozen=True, order=True)
class Part:
    """What a picture shows as one box; sorts from the input to the logits."""

    layer: int
    floor: int
    index: int

    @property
    def row(self) -> tuple[int, int]:
        """Sorts with the height; parts of one row stand side by side."""
        return self.layer, self.floor

    @property
    def kind(self) -> str:
        """Either "input", "kv", "head", "mlp" or "logits"."""
        return _FLOORS[self.floor]

    @property
    def name(self) -> str:
        """Such as "9.9", "mlp 5", or "kv 3.1" for a key/value head of several query heads."""
        if self.kind == INPUT:
            return ("input", "tokens", "pos")[self.index]
        names = {MLP: f"mlp {self.layer}", LOGITS: "logits", KEYS_VALUES: "kv "}
        place = f"{self.layer}.{self.index}"
        return names.get(self.kind, "") + (place if self.kind in (KEYS_VALUES, HEAD) else "")


@dataclasses.dataclass(frozen=True)
class Layered:
    """The first edges of a circuit as parts and lines.

    - `edge`: the edges' numbers, best first; line i runs from `parts[source[i]]` into `slot[i]` of
      `parts[reader[i]]`, and helps by `importance[i]`.
    - `links`: (kv head, query head), where several query heads share keys and values.
    """

    wiring: Wiring
    parts: tuple[Part, ...]
    edge: Int[np.ndarray, "line"]
    source: Int[np.ndarray, "line"]
    reader: Int[np.ndarray, "line"]
    slot: tuple[str, ...]
    importance: Float[np.ndarray, "line"]
    links: tuple[tuple[int, int], ...]

    @property
    def strength(self) -> Float[np.ndarray, "line"]:
        """How thick a line is: the root of its importance's size, 1 for the largest."""
        size = np.sqrt(np.abs(self.importance))
        return size / (size.max(initial=0) or 1)


def wiring_of(result: Result) -> Wiring:
    """The wiring that the result's edges belong to, from its facts.

    Raises `ValueError` if it has another number of edges than the result.
    """
    facts = result.facts
    sizes = [int(facts[f"n_{name}"]) for name in ("layers", "heads", "kv_heads")]
    parallel, split = (bool(facts.get(name)) for name in ("parallel", "split"))
    wiring = Wiring(sizes[0], sizes[1], sizes[2], bool(facts.get("mlp", True)), parallel, split)
    if wiring.n_edges != len(result.arrays["importance"]):
        raise ValueError(
            f"the facts make {wiring.n_edges} edges, importance has"
            f" {len(result.arrays['importance'])}: store n_layers, n_heads, n_kv_heads, mlp,"
            " parallel and split of Wiring.of(model)"
        )
    return wiring


def layered(result: Result, edges: int) -> Layered:
    """The first `edges` edges of a `discover_edges` result, with input and logits.

    >>> layered(result, 60).parts
    """
    wiring = wiring_of(result)
    edge = np.asarray(result.arrays["order"])[:edges].astype(int)
    sources = [_of_source(wiring, wiring.sources[i]) for i in wiring.source[edge].tolist()]
    readers = [_of_reader(wiring, number) for number in edge.tolist()]
    ends = {_of_source(wiring, node) for node in wiring.sources[: wiring.first]}
    parts = sorted(ends | {_logits(wiring)} | {*sources, *readers})
    at = {part: i for i, part in enumerate(parts)}
    return Layered(
        wiring=wiring,
        parts=tuple(parts),
        edge=edge,
        source=np.asarray([at[part] for part in sources], int),
        reader=np.asarray([at[part] for part in readers], int),
        slot=tuple(SLOTS[KINDS[kind]] for kind in wiring.kind[edge].tolist()),
        importance=np.asarray(result.arrays["importance"])[edge],
        links=_links(wiring, at),
    )


def _of_source(wiring: Wiring, node: Node) -> Part:
    if node.site in ("embed", "pos_embed"):
        return Part(-1, 0, wiring.split + (node.site == "pos_embed"))
    return Part(node.layer, _FLOORS.index(HEAD if node.site == "z" else MLP), node.index or 0)


def _of_reader(wiring: Wiring, edge: int) -> Part:
    kind, layer = KINDS[wiring.kind[edge]], int(wiring.layer[edge])
    if kind == "logits":
        return _logits(wiring)
    shared = kind in ("k", "v") and wiring.n_kv_heads < wiring.n_heads
    place = MLP if kind == "mlp" else KEYS_VALUES if shared else HEAD
    return Part(layer, _FLOORS.index(place), int(wiring.index[edge]))


def _logits(wiring: Wiring) -> Part:
    return Part(wiring.n_layers, _FLOORS.index(LOGITS), 0)


def _links(wiring: Wiring, at: dict[Part, int]) -> tuple[tuple[int, int], ...]:
    """Each key/value head with the query heads that use it, where both are drawn."""
    group, keys = wiring.n_heads // wiring.n_kv_heads, _FLOORS.index(KEYS_VALUES)
    heads = [part for part in at if part.kind == HEAD]
    pairs = [(Part(head.layer, keys, head.index // group), head) for head in heads]
    return tuple((at[shared], at[head]) for shared, head in pairs if shared in at)
