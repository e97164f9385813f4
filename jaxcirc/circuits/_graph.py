"""`EdgeScores` and `Graph`: a number for every edge of a wiring, and a set of its edges.

May import `taps` and `tasks`.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from .._types import Direction
from ..taps import KINDS, Node, Wiring
from ..tasks import Interval, interval


@dataclasses.dataclass(frozen=True)
class EdgeScores:
    """What a method says of every edge, per prompt.

    - `raw`: Float[example edge], in the metric's units where the method has any: metric with the
      edge patched minus metric without. `sign`: of `importance`.
    - `templates`: Int[example], the clusters of intervals.
    - `method`: its name. `unsigned`: the method gives sizes only.
    """

    wiring: Wiring
    raw: Float[np.ndarray, "example edge"]
    templates: Int[np.ndarray, "example"]
    method: str
    metric: str = "logit_difference"
    direction: Direction = "noise"
    sign: float = -1.0
    unsigned: bool = False

    @property
    def importance(self) -> Float[np.ndarray, "edge"]:
        """The mean over prompts, positive where the edge helps."""
        return self.sign * self.raw.mean(axis=0)

    def interval(self, edge: int) -> Interval:
        """The mean raw score of an edge with its interval, clustered by template."""
        return interval(self.raw[:, edge], self.templates)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A set of edges of a wiring: `kept`, Bool[edge]; with the importance it was chosen by.

    >>> Graph.of(Wiring.of(model), [(Node("z", 9, 9), Node("final_resid", 12))]).n_edges
    1
    """

    wiring: Wiring
    kept: Bool[np.ndarray, "edge"]
    importance: Float[np.ndarray, "edge"] | None = None

    @classmethod
    def of(cls, wiring: Wiring, edges: Iterable[tuple[Node, Node]]) -> "Graph":
        """The graph of some edges, (source, reader) each. Raises `ValueError` for a pair that is no
        edge."""
        kept = np.zeros(wiring.n_edges, bool)
        kept[[wiring.find(*edge) for edge in edges]] = True
        return cls(wiring, kept)

    @property
    def n_edges(self) -> int:
        """How many edges are kept."""
        return int(self.kept.sum())

    @property
    def edges(self) -> list[tuple[Node, Node]]:
        """The kept edges as (source, reader), in the wiring's order."""
        return [self.wiring.edge(int(number)) for number in np.flatnonzero(self.kept)]

    @property
    def nodes(self) -> list[Node]:
        """The components at the ends of kept edges, in the order of a run; the input and the logits
        left out, and places too."""
        touched = {component(node) for edge in self.merged().edges for node in edge}
        return [node for node in self.wiring.sources[self.wiring.first :] if node in touched]

    def merged(self) -> "Graph":
        """The graph whose edges are split by place no more: kept where any place keeps them, with
        the sum of their importance.

        >>> Graph(Wiring.of(model, places=("S2",)), kept).merged().wiring.places
        ()
        """
        n = len(self.wiring.every_place)
        if not n:
            return self
        kept: np.ndarray = np.any(self.kept.reshape(-1, n), axis=1)
        importance = self.importance
        summed = None if importance is None else importance.reshape(-1, n).sum(axis=1)
        return Graph(dataclasses.replace(self.wiring, places=()), kept, summed)


def component(node: Node, group: int = 1) -> Node:
    """The component that a reader belongs to: "q_in" of a head is that head's "z"; a source is its
    own. A key/value head stands for the first of its `group` query heads."""
    if node.site in ("k_in", "v_in"):
        return Node("z", node.layer, None if node.index is None else node.index * group)
    return {"q_in": Node("z", node.layer, node.index), "mlp_in": Node("mlp_out", node.layer)}.get(
        node.site, node
    )


def reader_components(wiring: Wiring, member: int = 0) -> Int[np.ndarray, "edge"]:
    """The component that reads every edge, numbered as `wiring.sources` behind the input; for the
    logits the number of components.

    `member`: which query head of a key/value head's group.

    >>> reader_components(Wiring.of(model)).max()
    """
    kinds = np.asarray(KINDS)[wiring.kind]
    shared = wiring.n_heads // wiring.n_kv_heads
    head = np.where(np.isin(kinds, ("k", "v")), wiring.index * shared + member, wiring.index)
    head = np.where(kinds == "mlp", wiring.n_heads, head)
    return np.where(
        kinds == "logits", wiring.n_sources - wiring.first, wiring.layer * wiring.width + head
    )
