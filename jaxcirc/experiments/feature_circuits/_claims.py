"""What curves say: where one half is reached, features against neurons, what errors are worth.

Marks et al. 2024 (arXiv 2403.19647), section 3.3. May import `circuits`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ...circuits.features import Faithfulness
from ...tasks import Interval, interval_of
from .._claim import Claim

LEVEL = 0.5
"""Of faithfulness, at which node counts are compared."""

Numbers = Sequence[int] | Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Curve:
    """Faithfulness of circuits of growing size in one basis, under one rule for errors."""

    kind: str
    errors: str
    found: Faithfulness
    templates: Int[np.ndarray, "example"]


def crossing(sizes: Numbers, f: Numbers, level: float = LEVEL) -> float:
    """Where a curve from (0, 0) first reaches a level, linear between its points; NaN if nowhere.

    >>> crossing([10, 20], [0.25, 0.75])
    15.0
    """
    x, y = np.append(0.0, sizes), np.append(0.0, f)
    above = np.flatnonzero(y >= level)
    if not len(above):
        return float("nan")
    i = int(above[0])
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def half_of(found: Faithfulness, templates, sizes) -> Interval:
    """The node count at one half, lexemes resampled."""

    def count(values, empty, full) -> float:
        return crossing(sizes, (values - empty) / (full - empty))

    return interval_of(count, [found.values.T, found.empty, found.full], [templates] * 3)


def share_of(value, empty, full) -> float:
    """Faithfulness, from means of the metric."""
    return float((value - empty) / (full - empty))


def claims_of(curves: Sequence[Curve], task: str) -> list[Claim]:
    """Features against neurons, and what errors are worth."""
    by = {(curve.kind, curve.errors): curve for curve in curves}
    claims = [
        _fewer(by["features", "default"], by[kind, "default"], task, words, paper)
        for kind, words, paper in (
            ("neurons", "neurons (outputs)", "21 times on Pythia-70M, 96 on Gemma-2-2B"),
            ("hidden", "neurons (MLP hidden)", ""),
        )
        if (kind, "default") in by
    ]
    every, none = by["features", "default"], by["features", "removed"]
    some = by["features", "attn+mlp removed"]
    return [*claims, _collapse(every, none, task), _less(some, none, task)]


def _fewer(few: Curve, many: Curve, task: str, words: str, paper: str) -> Claim:
    """The ratio of node counts; a basis that never gets there counts with all its nodes."""

    def ratio(v, e, m, w, f, n) -> float:
        own = crossing(few.found.sizes, (v - e) / (m - e))
        other = crossing(many.found.sizes, (w - f) / (n - f))
        other = many.found.sizes[-1] if np.isnan(other) else other
        return other / (few.found.sizes[-1] if np.isnan(own) else own)

    parts = [x for c in (few, many) for x in (c.found.values.T, c.found.empty, c.found.full)]
    return Claim(
        f"{task}: features need far fewer nodes than {words} for half of the behaviour",
        "ratio of node counts at a faithfulness of 0.5",
        interval_of(ratio, parts, [few.templates] * 6),
        baseline=1.0,
        floor=1.0,
        paper=paper,
    )


def _last(curve: Curve) -> list[np.ndarray]:
    return [curve.found.values[-1], curve.found.empty, curve.found.full]


def _between(more: Curve, less: Curve) -> Interval:
    """By how much the largest circuits' faithfulness differs."""
    parts = [*_last(more), *_last(less)]
    return interval_of(lambda *x: share_of(*x[:3]) - share_of(*x[3:]), parts, [more.templates] * 6)


def _collapse(every: Curve, none: Curve, task: str) -> Claim:
    return Claim(
        f"{task}: removing all errors collapses faithfulness",
        "faithfulness of all nodes with an effect, with errors less without",
        _between(every, none),
        floor=0.5,
        paper="about .7 on Pythia-70M, 1 on Gemma-2-2B",
    )


def _less(some: Curve, none: Curve, task: str) -> Claim:
    return Claim(
        f"{task}: errors of attention and MLPs matter less than those of the stream",
        "faithfulness without attention's and MLPs' errors, less that without any",
        _between(some, none),
        floor=0.1,
        paper="about .55 on Pythia-70M, .8 on Gemma-2-2B",
    )
