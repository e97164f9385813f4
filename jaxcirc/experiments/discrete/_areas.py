"""AUCs over components of several models, with intervals over components. Imports `tasks`.

Components of each model are resampled among those in the circuit and those outside of it, and the
AUC is the mean over models; two methods are compared under the same draws.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from ...tasks import Interval

DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Ranked:
    """How a method ranks the parts of one model.

    - `wins`: Float[trial inside outside]: 1 where the part in the circuit scores above the one
      outside, 0.5 where they tie.
    """

    wins: Float[np.ndarray, "trial inside outside"]

    @classmethod
    def of(
        cls, scores: Float[np.ndarray, "*trial part"], truth: Bool[np.ndarray, "part"]
    ) -> "Ranked | None":
        """The ranking by scores; None where all parts are inside, or none."""
        rows = np.atleast_2d(np.asarray(scores, np.float64))
        if truth.all() or not truth.any():
            return None
        inside, outside = rows[:, truth, None], rows[:, None, ~truth]
        return cls((inside > outside) + 0.5 * (inside == outside))

    @property
    def n(self) -> int:
        """How many parts are ranked."""
        return sum(self.wins.shape[1:])

    @property
    def by_trial(self) -> Float[np.ndarray, "trial"]:
        """The AUC of every trial."""
        return self.wins.mean(axis=(1, 2))


def draws(ranked: Sequence[Ranked], seed: int = 0) -> Float[np.ndarray, "draw"]:
    """The mean AUC over models under resampled parts; the first draw is what was found.

    Two methods on the same models meet the same draws.
    """
    rng, drawn = np.random.default_rng(seed), np.zeros(DRAWS)
    for one in ranked:
        mean = one.wins.mean(axis=0)
        rows, columns = (rng.integers(size, size=(DRAWS, size)) for size in mean.shape)
        rows[0], columns[0] = 0, 0
        found = [mean[r][:, c].mean() for r, c in zip(rows, columns, strict=True)]
        drawn += np.asarray([mean.mean(), *found[1:]])
    return drawn / len(ranked)


def from_draws(drawn: Float[np.ndarray, "draw"], ranked: Sequence[Ranked]) -> Interval:
    """The first draw with the interval that all of them span."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    n = sum(one.n for one in ranked)
    return Interval(float(drawn[0]), float(low), float(high), n, len(ranked))


def area(ranked: Sequence[Ranked], other: Sequence[Ranked] = ()) -> Interval:
    """The mean AUC over models, or by how much it exceeds another method's on the same models.

    >>> area([Ranked.of(scores, truth)])
    """
    drawn = draws(ranked)
    return from_draws(drawn - draws(other) if other else drawn, ranked)


def spread(values: Sequence[Sequence[Ranked]]) -> Float[np.ndarray, "draw"]:
    """The range of the mean AUC over values of a setting, by draw."""
    return np.ptp(np.stack([draws(ranked) for ranked in values]), axis=0)


def deviation(ranked: Sequence[Ranked]) -> float:
    """The standard deviation over trials of the mean AUC over models."""
    return float(np.mean([one.by_trial for one in ranked], axis=0).std())


def area_cells(ranked: Sequence[Ranked]) -> dict[str, float | int]:
    """The AUC with its interval, and its deviation over seeds, as cells of a row."""
    found = area(ranked)
    own = {"AUC": found.value, "AUC low": found.low, "AUC high": found.high}
    return own | {"sd over seeds": deviation(ranked), "parts": found.n, "models": found.clusters}
