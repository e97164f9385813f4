"""From scores to a circuit's nodes and edges; and random sets to compare with.

Selection comes after the mean over prompts (the reference code selects edges' ends in every prompt
by itself, which shrinks them). May import `_basis`, `_scores`, `_edges`.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from ._edges import FeatureEdges
from ._layout import Layout
from ._scores import FeatureScores


def select(
    scores: FeatureScores,
    n: int | None = None,
    *,
    threshold: float | None = None,
    share: float | None = None,
    signed: bool = False,
) -> Int[np.ndarray, "node"]:
    """The columns of the best nodes, best first; nodes without effect are never among them.

    - `n`: how many; or `threshold`: the least size of the mean effect, in the metric's units; or
      `share`: the same as a share of the total effect.
    - `signed`: rank by importance, so that what hurts comes last; else by size.

    Raises `ValueError` unless exactly one of the three is given.

    >>> scores.nodes(select(scores, share=0.01))
    """
    _check_one(n, threshold, share)
    value = scores.importance if signed else np.abs(scores.mean)
    least = threshold if share is None else share * abs(scores.effect)
    return _best(value, n, least)


def select_edges(
    edges: FeatureEdges,
    n: int | None = None,
    *,
    threshold: float | None = None,
    share: float | None = None,
    signed: bool = False,
) -> Bool[np.ndarray, "edge"]:
    """Which edges are best, by the same rules as `select`.

    >>> select_edges(edges, threshold=0.01).sum()
    """
    _check_one(n, threshold, share)
    value = edges.sign * edges.mean if signed else np.abs(edges.mean)
    kept = np.zeros(len(value), bool)
    kept[_best(value, n, threshold if share is None else share * abs(edges.effect))] = True
    return kept


def _check_one(*given: float | None) -> None:
    if sum(x is not None for x in given) != 1:
        raise ValueError("give one of n=100, threshold=0.1 and share=0.01")


def _best(
    value: Float[np.ndarray, "x"], n: int | None, least: float | None
) -> Int[np.ndarray, "chosen"]:
    """The first `n`, or all of at least a size, largest first; zeros are never among them."""
    enough = np.flatnonzero((value != 0) & (value >= (-np.inf if least is None else least)))
    return enough[np.argsort(-value[enough], kind="stable")][:n]


def errors_of(layout: Layout) -> Int[np.ndarray, "node"]:
    """The columns of all error nodes.

    >>> circuit_values(model, prompts, basis, layout, [errors_of(layout)])
    """
    columns = []
    for i, width in enumerate(layout.widths):
        begin = np.arange(layout.n_pos or 1) * (width + 1)
        columns.append(layout.offsets[i] + begin + width)
    return np.concatenate(columns)


def random_like(
    scores: FeatureScores, columns: Int[np.ndarray, "node"], seed: int = 0
) -> Int[np.ndarray, "node"]:
    """As many features as some nodes have, drawn from all that are active; error nodes stay.

    >>> random_like(scores, select(scores, 100))
    """
    columns = np.asarray(columns, int)
    errors = scores.layout.errors(columns)
    pool = scores.active[~scores.layout.errors(scores.active)]
    n = min(int((~errors).sum()), len(pool))
    drawn = np.random.default_rng(seed).choice(pool, n, replace=False)
    return np.concatenate([columns[errors], drawn])
