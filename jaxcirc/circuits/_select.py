"""From scores to a circuit: the best edges, connected ones, and nothing that leads nowhere.

Hanna, Pezzelle & Belinkov 2024 (arXiv 2403.17806), section 3.2; Mueller et al. 2025 (MIB, arXiv
2504.13151), section 3. Selection reads `importance` only: positive helps. May import `_graph`.
"""

import heapq
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from ..taps import KINDS, Wiring
from ._graph import Graph

How = Literal["top", "greedy"]


def select(
    wiring: Wiring,
    importance: Float[np.ndarray, "edge"],
    n: int | None = None,
    *,
    threshold: float | None = None,
    how: How = "top",
    signed: bool = True,
    prune: bool = True,
) -> Graph:
    """The circuit of the best edges.

    - `n`: how many edges, or `threshold`: the least importance kept. Edges without a score (NaN)
      are never kept.
    - `how`: "top", or "greedy": grow from the logits, so that every edge leads to them.
    - `signed`: rank by importance, so that what hurts comes last; else by its size.
    - `prune`: afterwards drop what leads nowhere or comes from nowhere (see `pruned`).

    Returns `Graph`, with fewer than `n` edges where pruning found some. Raises `ValueError` unless
    exactly one of `n` and `threshold` is given, or for scores of another wiring.

    >>> select(scores.wiring, scores.importance, 200).n_edges
    """
    importance = np.asarray(importance, np.float64)
    if importance.shape != (wiring.n_edges,):
        raise ValueError(f"scores of shape {importance.shape} for {wiring.n_edges} edges")
    if (n is None) == (threshold is None):
        raise ValueError("give n=200, or threshold=0.01, and not both")
    if how not in ("top", "greedy"):
        raise ValueError(f'how={how!r}: use how="top" or how="greedy"')
    value = importance if signed else np.abs(importance)
    value = np.where(np.isnan(value), -np.inf, value)
    least = -np.inf if threshold is None else threshold
    enough = int((value >= max(least, np.finfo(float).min)).sum())
    count = enough if n is None else min(n, enough)
    chosen = _greedy(wiring, value, count, least) if how == "greedy" else _top(value, count)
    kept = np.zeros(wiring.n_edges, bool)
    kept[chosen] = True
    graph = Graph(wiring, kept, importance)
    return pruned(graph) if prune else graph


def _top(value: Float[np.ndarray, "edge"], n: int) -> Int[np.ndarray, "n"]:
    return np.argsort(-value, kind="stable")[:n]


def _greedy(wiring: Wiring, value: Float[np.ndarray, "edge"], n: int, least: float) -> list[int]:
    """Take the best edge into what is reached so far; the logits are reached at first."""
    into = _into(wiring)
    heap: list[tuple[float, int]] = []
    reached: set[int] = set()

    def reach(edges) -> None:
        for edge in edges:
            if value[edge] >= least and np.isfinite(value[edge]):
                heapq.heappush(heap, (-float(value[edge]), int(edge)))

    reach(np.flatnonzero(wiring.kind == KINDS.index("logits")))
    chosen: list[int] = []
    while heap and len(chosen) < n:
        chosen.append(heapq.heappop(heap)[1])
        source = int(wiring.source[chosen[-1]])
        if source not in reached:
            reached.add(source)
            reach(into[source])
    return chosen


def _members(wiring: Wiring) -> Bool[np.ndarray, "edge source"]:
    """Which components the reader of each edge belongs to: a key/value head feeds its group."""
    group = wiring.n_heads // wiring.n_kv_heads
    members: np.ndarray = np.zeros((wiring.n_edges, wiring.n_sources), bool)
    base = wiring.first + wiring.layer * wiring.width
    for kind, per in (("q", 1), ("k", group), ("v", group)):
        rows = np.flatnonzero(wiring.kind == KINDS.index(kind))
        for member in range(per):
            members[rows, base[rows] + wiring.index[rows] * per + member] = True
    rows = np.flatnonzero(wiring.kind == KINDS.index("mlp"))
    members[rows, base[rows] + wiring.n_heads] = True
    return members


def _into(wiring: Wiring) -> list[Int[np.ndarray, "edge"]]:
    """The edges into every component."""
    members = _members(wiring)
    return [np.flatnonzero(members[:, source]) for source in range(wiring.n_sources)]


def pruned(graph: Graph) -> Graph:
    """The graph without edges that lead nowhere or come from nowhere, to a fixed point.

    A component must be reached from the input and reach the logits. One pass is not enough: what an
    edge leaves behind may itself lead nowhere.

    >>> pruned(graph).n_edges <= graph.n_edges
    True
    """
    wiring, kept = graph.wiring, graph.kept.copy()
    members = _members(wiring)
    to_logits = wiring.kind == KINDS.index("logits")
    while True:
        has_out = np.zeros(wiring.n_sources, bool)
        has_out[wiring.source[kept]] = True
        has_in = np.any(members[kept], axis=0)
        has_in[: wiring.first] = True
        alive = kept & has_in[wiring.source] & (to_logits | members[:, has_out].any(axis=1))
        if (alive == kept).all():
            return Graph(wiring, kept, graph.importance)
        kept = alive
