r"""Are clusters behaviours? Three measures, each beside clusters of the same sizes, shuffled.

1. Held-out faithfulness: of the circuit found on half of a cluster, judged on the rest,
   $f = (m(C) - m(\varnothing)) / (m(M) - m(\varnothing))$ with m the log P of the next token.
2. Stability: the adjusted Rand index of clusterings from other seeds.
3. What less would explain: samples with one and the same next token, with the same two tokens
   before it, or whose answers copy a trigram of their context.

May import `tasks` and `_claim`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from ...tasks import Interval, interval, interval_of, recovered
from .._claim import Claim
from .._result import Row
from ._batch import How
from ._job import Halves
from ._parts import Arrays
from ._samples import TRIGRAM, Samples, commonest

SHARE = 0.8
"""Of a cluster's samples, what must be alike for that to explain it."""

FLOOR = 0.1
"""Nats between everything and nothing, below which a cluster's own faithfulness says nothing."""

TRIVIAL = ("token", "bigram", "copied")
"""What would explain a cluster without any circuit."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Log P on the samples that circuits were not found on.

    - `clusters`: of each sample. `values`: [sample set], as `cluster_circuits` orders sets. `full`:
      with nothing ablated.
    """

    clusters: Int[np.ndarray, "sample"]
    values: Float[np.ndarray, "sample set"]
    full: Float[np.ndarray, "sample"]

    @classmethod
    def of(cls, found: Arrays, chosen: Halves) -> "HeldOut":
        """Of what circuits were found, samples that only fill up left out."""
        real = chosen.weight[:, 1] > 0
        clusters = np.broadcast_to(chosen.clusters[:, None], real.shape)
        return cls(clusters[real], found["values"][real], found["full"][real])

    def take(self, kept: np.ndarray) -> "HeldOut":
        """Some of the samples."""
        return HeldOut(self.clusters[kept], self.values[kept], self.full[kept])

    def faithfulness(self, number: int) -> Interval | None:
        """Of one of the sets, a ratio of means, its interval by cluster; None where nothing kept
        is as good as everything."""
        values, empty = self.values[:, number], self.values[:, -1]
        try:
            return recovered(values, empty, self.full, self.clusters)
        except ValueError:
            return None

    def each(self, number: int) -> dict[int, float]:
        """The faithfulness of every cluster alone; NaN where the whole way is under 0.1 nats."""
        found = {}
        for cluster in np.unique(self.clusters).tolist():
            own = self.take(self.clusters == cluster)
            whole = float(own.full.mean() - own.values[:, -1].mean())
            part = float(own.values[:, number].mean() - own.values[:, -1].mean())
            found[cluster] = part / whole if abs(whole) > FLOOR else float("nan")
        return found

    def columns(self, number: int) -> Float[np.ndarray, "sample 3"]:
        """A set's values, and those with nothing and with everything kept."""
        return np.stack([self.values[:, number], self.values[:, -1], self.full], axis=1)


def difference(real: HeldOut, other: HeldOut, number: int) -> Interval:
    """By how much circuits of clusters are more faithful than those of shuffled ones of the same
    sizes, over the clusters that both have."""
    both = np.intersect1d(real.clusters, other.clusters)
    pair = [held.take(np.isin(held.clusters, both)) for held in (real, other)]

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        f, g = ((x[0] - x[1]) / (x[2] - x[1]) for x in (a, b))
        return float(f - g)

    columns = [held.columns(number) for held in pair]
    return interval_of(statistic, columns, [held.clusters for held in pair])


def explained(
    samples: Samples, labels: Int[np.ndarray, "sample"], n: int
) -> dict[str, Float[np.ndarray, "cluster"]]:
    """Of each of the first `n` clusters, the share of samples with its commonest answer ("token"),
    with its commonest two tokens before the answer ("bigram"), and with a copied trigram
    ("copied").

    >>> (explained(samples, labels, 1000)["token"] >= 0.8).mean()
    """
    before = [tuple(pair) for pair in samples.before.tolist()]
    answers, copies = samples.answers.tolist(), samples.copied >= TRIGRAM
    found = {name: np.zeros(n) for name in TRIVIAL}
    for cluster in range(n):
        own = np.flatnonzero(labels == cluster)
        found["token"][cluster] = commonest([answers[i] for i in own])[1]
        found["bigram"][cluster] = commonest([before[i] for i in own])[1]
        found["copied"][cluster] = copies[own].mean()
    return found


def trivial(shares: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which clusters one of these explains."""
    return np.any([shares[name] >= SHARE for name in TRIVIAL], axis=0)


@dataclasses.dataclass(frozen=True)
class Measures:
    """The three measures: of clusters, and of shuffled ones of the same sizes (None: not asked).

    - `real`, `other`: held-out values. `shares`, `other_shares`: what less would explain.
    - `rand`: the adjusted Rand index over seeds.
    """

    how: How
    real: HeldOut
    other: HeldOut | None
    shares: Mapping[str, Float[np.ndarray, "cluster"]]
    other_shares: Mapping[str, Float[np.ndarray, "cluster"]]
    rand: Interval | None

    @property
    def sets(self) -> list[tuple[str, int]]:
        """The sets that are judged, by name, and their numbers; without the empty one."""
        sizes = [(f"{n} nodes", i) for i, n in enumerate(self.how.sizes)]
        return [*sizes, ("error nodes alone", len(sizes))]

    def numbers(self) -> dict[str, Interval]:
        """Every measure with its interval, over clusters."""
        found: dict[str, Interval | None] = {}
        for name, i in self.sets:
            key = name.replace(" ", "_")
            found[f"faithfulness_{key}"] = self.real.faithfulness(i)
            if self.other is not None:
                found[f"shuffled_{key}"] = self.other.faithfulness(i)
                found[f"difference_{key}"] = self._difference(i)
        for name, of in self._explained().items():
            found[name] = of
        found["rand"] = self.rand
        return {name: of for name, of in found.items() if of is not None}

    def _difference(self, number: int) -> Interval | None:
        assert self.other is not None
        known = self.real.faithfulness(number), self.other.faithfulness(number)
        return None if None in known else difference(self.real, self.other, number)

    def _explained(self) -> dict[str, Interval]:
        found = {}
        for prefix, shares in (
            ("explained", self.shares),
            ("shuffled_explained", self.other_shares),
        ):
            flags = {name: shares[name] >= SHARE for name in TRIVIAL} | {"any": trivial(shares)}
            found |= {f"{prefix}_{name}": interval(on.astype(float)) for name, on in flags.items()}
        return found

    def rows(self) -> list[Row]:
        """The measures as a table: of clusters, of shuffled ones, and the difference."""
        numbers = self.numbers()
        rows = [
            _row(f"held-out faithfulness, {name}", numbers, name.replace(" ", "_"), FAITHFUL)
            for name, _ in self.sets
        ]
        rows += [
            _row(WORDS[name], numbers, name, ("explained_", "shuffled_explained_", ""))
            for name in (*TRIVIAL, "any")
        ]
        rows += [_row("adjusted Rand index over seeds", numbers, "rand", ("", "", ""))]
        return [row for row in rows if row["clusters"] is not None]

    def claims(self) -> list[Claim]:
        """What must hold if clusters are behaviours."""
        numbers, largest = self.numbers(), f"{self.how.sizes[-1]} nodes"
        asked = (
            (f"difference_{largest.replace(' ', '_')}", _faithful_claim(largest)),
            ("rand", partial(Claim, STABLE, "adjusted Rand index", floor=0.5)),
        )
        claims = [make(found=numbers[name]) for name, make in asked if name in numbers]
        other = interval(1.0 - trivial(self.shares))
        return [*claims, Claim(MORE, "share of clusters", other, baseline=0.5)]


FAITHFUL = ("faithfulness_", "shuffled_", "difference_")
STABLE = "other seeds give the same clusters"
MORE = "most clusters are more than one next token, one bigram or a copied trigram"
WORDS = {
    "token": "clusters with one next token",
    "bigram": "clusters with one preceding bigram",
    "copied": "clusters of copied trigrams",
    "any": "clusters that one of these explains",
}


def _faithful_claim(largest: str):
    text = "held-out circuits of clusters are more faithful than those of shuffled ones"
    return partial(Claim, f"{text}, {largest}", "difference of faithfulness", floor=0.05)


def _row(words: str, numbers: Mapping[str, Interval], key: str, prefixes: Sequence[str]) -> Row:
    row: dict[str, str | int | float | None] = {"section": "measure", "measure": words}
    for column, prefix in zip(("clusters", "shuffled", "difference"), prefixes, strict=True):
        found = numbers.get(prefix + key) if prefix or column == "clusters" else None
        ends = (None,) * 3 if found is None else (found.value, found.low, found.high)
        row |= dict(zip((column, f"{column} low", f"{column} high"), ends, strict=True))
    return row
