r"""Test 1: what a reconstruction keeps of the computation, and what it takes away.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.1. Sufficiency replaces activations by
reconstructions; necessity takes reconstructions out and keeps the mean and the error, beside mean
ablation:

$$\mathrm{necessity} = 1 - \frac{|LD_\mathrm{mean} - LD_\mathrm{out}|}{|LD_\mathrm{mean} -
LD_\mathrm{clean}|}.$$

It is refused where mean ablation costs less than a floor, since it then divides by next to nothing;
and since means hide what happens prompt by prompt, the mean absolute change is told too. May import
`tasks`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from ...tasks import Interval, interval, interval_of
from .._result import Row
from ._bench import FLOOR, Bench, Others, Values


@dataclasses.dataclass(frozen=True)
class Approximation:
    """Logit differences of every prompt: clean, mean-ablated, reconstructed, and without the
    reconstruction."""

    clean: Float[np.ndarray, "example"]
    mean: Float[np.ndarray, "example"]
    kept: Float[np.ndarray, "example"]
    out: Float[np.ndarray, "example"]
    clusters: np.ndarray

    @property
    def denominator(self) -> float:
        """Logits that mean ablation costs."""
        return float(self.clean.mean() - self.mean.mean())

    @property
    def refused(self) -> bool:
        """Whether shares of that say nothing."""
        return abs(self.denominator) < FLOOR

    def _of(self, statistic, *parts) -> Interval:
        return interval_of(statistic, parts, [self.clusters] * len(parts))

    @property
    def sufficiency(self) -> Interval:
        """Mean logit difference under reconstruction, over the clean one."""
        return self._of(lambda kept, clean: kept / clean, self.kept, self.clean)

    @property
    def normalised(self) -> Interval:
        """The share of what mean ablation costs that reconstructions keep."""

        def share(kept, mean, clean) -> float:
            return (kept - mean) / (clean - mean)

        return self._of(share, self.kept, self.mean, self.clean)

    @property
    def necessity(self) -> Interval:
        """1 where taking reconstructions out does what mean ablation does, 0 where it does
        nothing."""

        def share(out, mean, clean) -> float:
            return 1 - abs(mean - out) / abs(mean - clean)

        return self._of(share, self.out, self.mean, self.clean)

    @property
    def change(self) -> Interval:
        """By how much reconstruction changes a prompt's logit difference, up or down."""
        return interval(np.abs(self.kept - self.clean), self.clusters)

    def shares(self) -> dict[str, Interval]:
        """Both tests; of what mean ablation costs only where that is enough."""
        refused = Interval(np.nan, np.nan, np.nan, len(self.clean), 0)
        return {
            "sufficiency": self.sufficiency,
            "necessity": refused if self.refused else self.necessity,
            "normalised sufficiency": refused if self.refused else self.normalised,
        }

    def row(self) -> Row:
        numbers = self.shares() | {"change each": self.change}
        return {**cells(numbers), "mean ablation costs": self.denominator}


def cells(numbers: dict[str, Interval]) -> dict[str, float]:
    """Numbers beside the ends of their intervals, as rows hold them."""
    found = {}
    for name, number in numbers.items():
        found |= {name: number.value, f"{name} low": number.low, f"{name} high": number.high}
    return found


def approximate(bench: Bench, rebuilt: Values, means: Others | None = None) -> Approximation:
    """Test reconstructions of a cross-section's activations.

    - `rebuilt`: of every component. `means`: what mean ablation sets them to (default: the means
      of the bench's own prompts).

    >>> approximate(bench, [codes.rebuilt(labels)]).sufficiency
    """
    held = bench.means(means)
    out = [m + x - r for m, x, r in zip(held, bench.values, rebuilt, strict=True)]
    mean, kept, gone = (bench.difference(bench.logits(x)) for x in (held, rebuilt, out))
    return Approximation(bench.difference(bench.clean), mean, kept, gone, bench.clusters)
