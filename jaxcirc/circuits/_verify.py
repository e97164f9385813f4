"""Fast scores, verified: the top exactly, a sample for correlation, and a bound on what is missed.

Kramar et al. 2024 (arXiv 2403.00745), section 4: a cheap estimate is a filter, and what it filters
out is bounded by patching random subsets of the rest. May import `patching`, `attribution`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import special

from .. import patching
from .._types import Direction
from ..taps import Node, Sites, head_axis
from ..tasks import Metric, Prompts, logit_difference

SHARE = 0.2  # of the unverified nodes in each random subset
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Verified:
    """What is known of fast scores after patching some nodes exactly.

    - `top`: the best nodes by size of score, now by falling size of `exact`, their mean raw effect.
    - `pearson`, `rank`: correlation of scores with exact effects over a random `sample` of nodes.
    - `missed`: the root of the summed squares of the effects of all nodes never patched, at most
      that with 95 % confidence, if effects of a fifth of them add up; no single one is larger.
    - `patched`: how many patches that took.
    """

    top: list[Node]
    exact: Float[np.ndarray, "top"]
    estimate: Float[np.ndarray, "top"]
    sample: list[Node]
    pearson: float
    rank: float
    missed: float
    patched: int


def verify(
    model,
    prompts: Prompts,
    scores: Sites,
    metric: Metric = logit_difference,
    direction: Direction = "noise",
    *,
    top: int = 20,
    sample: int = 40,
    subsets: int = 32,
    seed: int = 0,
) -> Verified:
    r"""Verify the scores of nodes by exact patching.

    $$\sum_{i \in \text{rest}} c_i^2 \le \frac{\widehat{\mathrm{Var}}(y)}{p (1 - p)} \cdot
      \frac{m - 1}{\chi^2_{0.05, m - 1}}$$

    with y the effects of m random subsets that hold each node of the rest with probability p.

    - `scores`: raw scores per site, Float[layer head] or [layer] (means over examples), such as
      `nodes(...).raw` averaged.
    - `top`: nodes verified one by one. `sample`: random nodes patched for the correlation.
      `subsets`: m.

    Returns `Verified`. Raises `ValueError` for fewer than two subsets.

    >>> scores = attribution.nodes(model, prompts).raw
    >>> verify(model, prompts, jax.tree.map(lambda x: x.mean(axis=0), scores)).missed
    """
    if subsets < 2:
        raise ValueError(f"subsets={subsets}: a spread needs at least two, verify(..., subsets=32)")
    rng, estimates = np.random.default_rng(seed), dict(_estimates(scores))
    nodes = sorted(estimates, key=lambda node: -abs(estimates[node]))
    best = nodes[:top]
    drawn = [nodes[i] for i in rng.choice(len(nodes), min(sample, len(nodes)), replace=False)]
    singles = list(dict.fromkeys([*best, *drawn]))
    groups = random_subsets([node for node in nodes if node not in set(singles)], subsets, rng)
    effects = patching.patch(model, prompts, [*singles, *groups], metric, direction)
    mean = np.asarray(effects.mean(), np.float64)
    exact = dict(zip(singles, mean, strict=False))
    order = sorted(best, key=lambda node: -abs(exact[node]))
    pair = np.asarray([[estimates[node], exact[node]] for node in drawn]).T
    return Verified(
        order,
        np.asarray([exact[node] for node in order]),
        np.asarray([estimates[node] for node in order]),
        drawn,
        float(np.corrcoef(pair)[0, 1]),
        spearman(*pair),
        bound(mean[len(singles) :]),
        len(singles) + len(groups),
    )


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two arrays of one shape, ties at their mean rank."""
    from scipy import stats  # imports for most of a second, which every command would pay

    ranks = [stats.rankdata(x.ravel()) for x in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _estimates(scores: Sites):
    for site, values in scores.items():
        values = np.asarray(values)
        expected = 1 + (head_axis(site) is not None)
        if values.ndim != expected:
            raise ValueError(
                f"scores of {site!r} have shape {values.shape}: average over examples first,"
                " jax.tree.map(lambda x: x.mean(axis=0), scores)"
            )
        for index, value in np.ndenumerate(values):
            yield Node(site, *map(int, index)), float(value)


def random_subsets(rest: Sequence[Node], n: int, rng: np.random.Generator) -> list[list[Node]]:
    """Random subsets of some nodes, each holding a fifth of them; empty ones are left out."""
    groups = [[node for node in rest if rng.random() < SHARE] for _ in range(n)]
    return [group for group in groups if group]


def bound(effects: Sequence[float] | np.ndarray) -> float:
    """The upper confidence bound on the root of the summed squares of the rest."""
    m = len(effects)
    if m < 2:
        return 0.0
    quantile = special.chdtri(m - 1, LEVEL)  # 5 % of the distribution lies below
    variance = np.var(effects, ddof=1) * (m - 1) / quantile
    return float(np.sqrt(variance / (SHARE * (1 - SHARE))))
