"""Test 3, what features mean: predicates given to them by F1, beside the F1 of a constant.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.3 and appendix A.12. Features are given
predicates on some prompts and measured on others. May import `dictionaries`.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from ...dictionaries import Supervised
from ...dictionaries.interpret import (
    Predicates,
    Scored,
    predicates_of,
    score,
    union,
    with_conjunctions,
)
from ...tasks.labelled import Labelled
from .._result import Row
from ._bench import Bench
from ._subjects import Subject, coded

UNION = 10
"""Features in a union, at most."""
GOOD = 0.5
"""The F1 from which on a feature counts as standing for its predicate."""


def predicates(labelled: Labelled, attributes: Sequence[str]) -> Predicates:
    """Every value of every attribute; of names and a position also names in conjunction with it,
    and names wherever they are."""
    labels = labelled.labels
    names = dict.fromkeys((*attributes, *labels))
    own = predicates_of(labels, {name: labelled.sizes[name] for name in names})
    if "Pos" not in labels:
        return own
    own = with_conjunctions(with_conjunctions(own, "IO", "Pos"), "S", "Pos")
    here = {v: (labels["IO"] == v) | (labels["S"] == v) for v in range(labelled.sizes["IO"])}
    return own | {f"anywhere={v}": held for v, held in here.items()}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What one dictionary's features mean, found on some prompts and measured on others."""

    active: Bool[np.ndarray, "example feature"]
    held: Bool[np.ndarray, "other feature"]
    own: Predicates
    others: Predicates

    @cached_property
    def found(self) -> Scored:
        return score(self.active, self.own)

    @cached_property
    def measured(self) -> Scored:
        return score(self.held, self.others)

    @cached_property
    def assigned(self) -> tuple[Int[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
        """The predicate of every feature, and its F1 on the prompts it was found on."""
        return self.found.best()

    def ranks(self, attribute: str) -> Int[np.ndarray, "value feature"]:
        """Features by falling F1 for every value of an attribute."""
        names = tuple(n for n in self.own if n.startswith(f"{attribute}=") and " and " not in n)
        return self.found.ranks(names)

    def told(self, attribute: str) -> dict[str, float]:
        """How well the best feature of every value tells it on other prompts, alone and in a union;
        means over values that occur there."""
        names = [n for n in self.own if n.startswith(f"{attribute}=") and " and " not in n]
        names = [n for n in names if self.others[n].any()]
        ranks, at = self.found.ranks(tuple(names)), [self.found.names.index(n) for n in names]
        first = self.measured.f1[at, ranks[:, 0]]
        lift = self.measured.lift[at, ranks[:, 0]]
        both = [self._united(name, order) for name, order in zip(names, ranks, strict=True)]
        good = float(np.mean(first >= GOOD))
        shown = {"F1": first.mean(), "lift": lift.mean(), "F1 of unions": np.mean(both)}
        return {name: float(x) for name, x in shown.items()} | {"values told": good}

    def _united(self, name: str, order: np.ndarray) -> float:
        """The F1 on other prompts of the union that was best on its own."""
        best = union(self.active, self.own[name], order, UNION)
        fired, holds = self.held[:, list(best.features)].any(axis=1), self.others[name]
        return float(2 * (fired & holds).sum() / max(1, fired.sum() + holds.sum()))

    def counts(self, attribute: str, least: float = GOOD) -> int:
        """How many values of an attribute some feature tells."""
        names = [n for n in self.own if n.startswith(f"{attribute}=") and " and " not in n]
        at = [self.found.names.index(n) for n in names]
        return int((self.found.f1[at].max(axis=1) >= least).sum())


def meaning(subject: Subject, i: int, train: Bench, held: Bench) -> Meaning:
    """Of the dictionary of the i-th component."""
    active, other = (
        np.asarray(coded(subject.dictionaries[i], bench.values[i])[0]) != 0
        for bench in (train, held)
    )
    attributes = train.section.attributes
    return Meaning(
        active, other, predicates(train.source, attributes), predicates(held.source, attributes)
    )


def cosines(
    subject: Subject, codes: Sequence[Supervised], attribute: str
) -> Float[np.ndarray, "value"]:
    """For every code of an attribute, the largest cosine of a direction with it; a mean over
    components. Their mean is MMCS, which the document's follow-up finds to rank architectures
    another way round than control does."""
    found = []
    for dictionary, own in zip(subject.dictionaries, codes, strict=True):
        rows, code = np.asarray(dictionary.directions), np.asarray(own.codes[attribute])
        code = code[np.linalg.norm(code, axis=1) > 1e-9]
        lengths = np.outer(np.linalg.norm(code, axis=1), np.linalg.norm(rows, axis=1))
        found.append((code @ rows.T / np.maximum(lengths, 1e-12)).max(axis=1))
    return np.mean(found, axis=0)


def reading_row(bench: Bench, subject: Subject, found: Sequence[Meaning], attribute: str) -> Row:
    """How well features tell an attribute, means over components."""
    each = [m.told(attribute) for m in found]
    mean = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    l0 = [m.held.sum(axis=1).mean() for m in found]
    return {
        "section": "meaning",
        "cross-section": bench.section.name,
        "attribute": attribute,
        "dictionary": subject.kind,
        "seed": subject.seed,
        **mean,
        "L0": float(np.mean(l0)),
    }
