r"""Which features stand for which predicates: F1, its lift over a constant, and unions of features.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.3: feature j is active on $F = \{p :
f_j(p) \ne 0\}$, a predicate holds on A, precision is $|A \cap F| / |F|$, recall $|A \cap F| / |A|$.
A feature that is always active has $F1 = 2 s / (1 + s)$ for a predicate of share s, 0.67 for one
half: scores of rare and of common predicates are compared by their lift over that. Imports nothing
of the package.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

Active = Bool[np.ndarray, "example feature"]
Predicates = Mapping[str, Bool[np.ndarray, "example"]]
"""Where each holds, by name, such as "IO=Mary"."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """How well single features tell predicates.

    - `names`: of the predicates. `f1`, `precision`, `recall`: [predicate feature]. `constant`: the
      F1 of a feature that is always active.
    """

    names: tuple[str, ...]
    f1: Float[np.ndarray, "predicate feature"]
    precision: Float[np.ndarray, "predicate feature"]
    recall: Float[np.ndarray, "predicate feature"]
    constant: Float[np.ndarray, "predicate"]

    @property
    def lift(self) -> Float[np.ndarray, "predicate feature"]:
        """From 0, no better than always active, to 1, perfect; below 0 worse."""
        rest = np.maximum(1 - self.constant, 1e-12)[:, None]
        return (self.f1 - self.constant[:, None]) / rest

    def best(self) -> tuple[Int[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
        """The predicate of every feature, and its F1 there."""
        return self.f1.argmax(axis=0), self.f1.max(axis=0)

    def ranks(self, names: tuple[str, ...]) -> Int[np.ndarray, "value feature"]:
        """Features by falling F1 for each of some predicates, as `labelled_edit` takes them."""
        rows = [self.f1[self.names.index(name)] for name in names]
        return np.argsort(-np.stack(rows), axis=1, kind="stable")


def score(active: Active, predicates: Predicates) -> Scored:
    """F1 of every feature for every predicate. A feature that is never active has 0, and so has
    every feature for a predicate that never holds.

    >>> score(np.asarray(d.encode(x)) != 0, predicates).f1.max(axis=1)
    """
    held = np.stack(list(predicates.values())).astype(np.float32)
    both = held @ np.asarray(active, np.float32)
    fired, true = active.sum(axis=0), held.sum(axis=1)
    precision = both / np.maximum(fired, 1)
    recall = both / np.maximum(true, 1)[:, None]
    f1 = 2 * both / np.maximum(fired + true[:, None], 1)
    share = true / held.shape[1]
    return Scored(tuple(predicates), f1, precision, recall, 2 * share / (1 + share))


def predicates_of(
    labels: Mapping[str, Int[np.ndarray, "example"]], sizes: Mapping[str, int]
) -> dict[str, Bool[np.ndarray, "example"]]:
    """A predicate for every value of every attribute: "IO=3".

    >>> list(predicates_of({"number": number}, {"number": 2}))
    ['number=0', 'number=1']
    """
    return {
        f"{name}={value}": np.asarray(labels[name]) == value
        for name, size in sizes.items()
        for value in range(size)
    }


def with_conjunctions(
    predicates: Predicates, one: str, other: str
) -> dict[str, Bool[np.ndarray, "example"]]:
    """The predicates, with every value of `one` in conjunction with every one of `other`.

    >>> with_conjunctions(predicates, "IO", "Pos")["IO=3 and Pos=0"]
    """
    first, second = (
        {n: p for n, p in predicates.items() if n.startswith(f"{a}=")} for a in (one, other)
    )
    both = {f"{a} and {b}": p & q for a, p in first.items() for b, q in second.items()}
    return {**predicates, **both}


@dataclasses.dataclass(frozen=True)
class Union:
    """Features that together tell a predicate best: how many, which, and the F1 of their union."""

    features: tuple[int, ...]
    f1: float


def union(
    active: Active, holds: Bool[np.ndarray, "example"], order: Int[np.ndarray, "feature"], most: int
) -> Union:
    """The best of the unions of the first 1, 2, ... features of an order; F1 is not monotone in
    their number.

    >>> union(active, predicates["Pos=0"], score(active, predicates).ranks(("Pos=0",))[0], 10).f1
    """
    some = order[:most]
    unions = np.logical_or.accumulate(active[:, some], axis=1)
    both, fired = (unions & holds[:, None]).sum(axis=0), unions.sum(axis=0)
    f1 = 2 * both / np.maximum(fired + holds.sum(), 1)
    n = int(f1.argmax()) + 1
    return Union(tuple(map(int, some[:n])), float(f1[n - 1]))


@dataclasses.dataclass(frozen=True)
class Cover:
    """How many features share one predicate.

    - `features`: nearly pure ones, as many as it takes to be active on `share` of its examples.
      `overlap`: the mean Jaccard index of pairs of them, 0 for disjoint ones.
    """

    features: tuple[int, ...]
    share: float
    overlap: float


def cover(
    active: Active, holds: Bool[np.ndarray, "example"], purity: float = 0.9, enough: float = 0.9
) -> Cover:
    """Features of a precision of at least `purity`, taken greedily by how many examples of the
    predicate they add until `enough` are covered: ten or more for two values is over-splitting.

    >>> len(cover(active, labels["Pos"] == 0).features)
    """
    fired = np.maximum(active.sum(axis=0), 1)
    pure = np.flatnonzero((active[holds].sum(axis=0) / fired >= purity) & active[holds].any(axis=0))
    table, chosen = active[np.ix_(holds, pure)], []
    left = np.ones(int(holds.sum()), bool)
    while left.size and left.mean() > 1 - enough:
        gain = table[left].sum(axis=0)
        if not len(gain) or gain.max() == 0:
            break
        chosen.append(int(gain.argmax()))
        left &= ~table[:, chosen[-1]]
    sets = table[:, chosen]
    names = tuple(int(pure[i]) for i in chosen)
    return Cover(names, float(1 - left.mean()) if left.size else 0.0, overlap_of(sets))


def overlap_of(active: Active) -> float:
    """The mean Jaccard index of all pairs of features; 0 where there is no pair."""
    n = active.shape[1]
    if n < 2:
        return 0.0
    table = jaccards(active, active)
    return float(table[~np.eye(n, dtype=bool)].mean())


def jaccards(
    one: Active, other: Bool[np.ndarray, "example other"]
) -> Float[np.ndarray, "feature other"]:
    """How far features of two dictionaries are active on the same examples."""
    a, b = (np.asarray(x, np.float32) for x in (one, other))
    both = a.T @ b
    either = a.sum(axis=0)[:, None] + b.sum(axis=0)[None] - both
    return both / np.maximum(either, 1)
