"""Test 3: whether features mean something, and whether what they mean is what they do.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.3: predicates are given to features by F1,
beside the F1 of a constant; then features below a threshold of F1 are taken out (sufficiency of the
interpretable ones) or those above it (their necessity), and in counterfactuals they alone are
exchanged ("faithful") or all but they ("complete"). May import `dictionaries`.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...dictionaries import Supervised
from ...dictionaries.interpret import (
    Predicates,
    Scored,
    cover,
    jaccards,
    predicates_of,
    score,
    union,
    with_conjunctions,
)
from ...tasks import interval, interval_of
from ...tasks.labelled import Labelled
from .._result import Row
from ._approximation import cells
from ._bench import Bench, Values
from ._subjects import Subject, coded

UNION = 10
"""Features in a union, at most."""
GOOD = 0.5
"""The F1 from which on a feature counts as standing for its predicate."""
THRESHOLDS = (0.3, 0.6)


def predicates(labelled: Labelled, attributes: Sequence[str]) -> Predicates:
    """Every value of every attribute, also in conjunction with the position where there is one."""
    names = dict.fromkeys((*attributes, *labelled.labels))
    own = predicates_of(labelled.labels, {name: labelled.sizes[name] for name in names})
    if "Pos" not in labelled.labels:
        return own
    return with_conjunctions(with_conjunctions(own, "IO", "Pos"), "S", "Pos")


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


def without(
    bench: Bench, subject: Subject, gone: Sequence[Bool[np.ndarray, "feature"]]
) -> list[Float[Array, "example d"]]:
    """The activations with what some features add taken away."""
    found = []
    for dictionary, x, some in zip(subject.dictionaries, bench.values, gone, strict=True):
        (f,) = coded(dictionary, x)
        found.append(x - (f * jnp.asarray(some)) @ dictionary.directions)
    return found


def exchanged(
    bench: Bench,
    subject: Subject,
    others: Values,
    some: Sequence[Bool[np.ndarray, "feature"]],
) -> list[Float[Array, "example d"]]:
    """The activations with some features at their counterfactual coefficients."""
    found = []
    for dictionary, x, y, chosen in zip(
        subject.dictionaries, bench.values, others, some, strict=True
    ):
        f, g = coded(dictionary, x, y)
        found.append(x + ((g - f) * jnp.asarray(chosen)) @ dictionary.directions)
    return found


def causal_rows(bench: Bench, subject: Subject, meanings: Sequence[Meaning]) -> list[Row]:
    """What interpretable features do, threshold by threshold."""
    f1 = [m.assigned[1] for m in meanings]
    clean, mean = (bench.difference(x) for x in (bench.clean, bench.logits(bench.means())))
    rows: list[Row] = []
    for threshold in THRESHOLDS:
        above = [x >= threshold for x in f1]
        kept, out = (
            bench.difference(bench.logits(without(bench, subject, side)))
            for side in ([~x for x in above], above)
        )
        parts, labels = [kept, out, clean, mean], [bench.clusters] * 4
        rows.append(
            {
                "section": "causal",
                "cross-section": bench.section.name,
                "dictionary": subject.kind,
                "threshold": threshold,
                "features": float(np.mean([x.mean() for x in above])),
                "sufficiency": interval_of(lambda k, o, c, m: k / c, parts, labels).value,
                "necessity": interval_of(
                    lambda k, o, c, m: 1 - abs(m - o) / abs(m - c), parts, labels
                ).value,
            }
            | _swaps(bench, subject, above)
        )
    return rows


def _swaps(bench: Bench, subject: Subject, above) -> dict[str, float]:
    """How often the counterfactual answer comes when the interpretable features alone are
    exchanged, and how often the answer stays when all but they are."""
    attribute = bench.section.attributes[0]
    target = bench.target(attribute)
    before = bench.choice(bench.clean)
    some, rest = (
        bench.choice(bench.logits(exchanged(bench, subject, target.values, side)))
        for side in (above, [~x for x in above])
    )
    return {
        "faithful": float((some == target.truth).mean()),
        "complete": float((rest == before).mean()),
    }


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


def splitting_rows(
    bench: Bench, subjects: Sequence[Subject], again: Sequence[Subject], attribute: str
) -> list[Row]:
    """How many features share the values of a binary attribute, and whether other seeds and other
    draws of data find the same ones.

    - `again`: dictionaries of the same kind from another draw.
    """
    rows: list[Row] = []
    for kind in dict.fromkeys(s.kind for s in subjects):
        own = [_active(bench, s) for s in subjects if s.kind == kind]
        other = [_active(bench, s) for s in again if s.kind == kind]
        holds = [bench.source.labels[attribute] == v for v in (0, 1)]
        covers = [cover(a, h) for a in own for h in holds]
        pairs = {"seeds": own[1:], "draws": other}
        sets = [i for c in covers[:2] for i in c.features]
        rows.append(
            {
                "section": "splitting",
                "cross-section": bench.section.name,
                "attribute": attribute,
                "dictionary": kind,
                **cells({"features a value": interval([len(c.features) for c in covers])}),
                "covered": float(np.mean([c.share for c in covers])),
                "overlap": float(np.mean([c.overlap for c in covers])),
                **{f"match, {n}": _matched(own[0][:, sets], x) for n, x in pairs.items()},
                **{f"chance, {n}": _chance(own[0][:, sets], x) for n, x in pairs.items()},
            }
        )
    return rows


def _active(bench: Bench, subject: Subject) -> Bool[np.ndarray, "example feature"]:
    return np.asarray(coded(subject.dictionaries[0], bench.values[0])[0]) != 0


def _matched(own, others) -> float | None:
    """How alike the best match in another dictionary is, by the Jaccard index."""
    if not others or not own.shape[1]:
        return None
    return float(np.mean([jaccards(own, other).max(axis=1).mean() for other in others]))


def _chance(own, others) -> float | None:
    """The same with examples mixed up."""
    if not others or not own.shape[1]:
        return None
    order = np.random.default_rng(0).permutation(len(own))
    return _matched(own, [other[order] for other in others])


def reading_row(bench: Bench, subject: Subject, found: Sequence[Meaning], attribute: str) -> Row:
    """How well features tell an attribute, means over components."""
    each = [m.told(attribute) for m in found]
    mean = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    l0 = [interval(m.held.sum(axis=1)).value for m in found]
    return {
        "section": "meaning",
        "cross-section": bench.section.name,
        "attribute": attribute,
        "dictionary": subject.kind,
        "seed": subject.seed,
        **mean,
        "L0": float(np.mean(l0)),
    }
