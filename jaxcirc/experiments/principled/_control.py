r"""Test 2: whether a few features change what the model says, as the whole activation would.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.2. Edit accuracy is how often the edited
model chooses what it chooses with the counterfactual's activation patched in; the weight removed is
the share of the reconstruction taken away. In the document's plane, $x = (w - w_\mathrm{sup}) / (1
- w_\mathrm{sup})$ and $y = (\mathrm{acc} - \mathrm{acc}_\mathrm{none}) / (\mathrm{acc}_\mathrm{sup}
- \mathrm{acc}_\mathrm{none})$. May import `dictionaries`, `tasks`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...dictionaries import (
    AbstractDictionary,
    Edit,
    Supervised,
    behaviour_edit,
    greedy_edit,
    labelled_edit,
    removed_weight,
)
from ...tasks import interval
from .._result import Row
from ._bench import Bench, Target, Values
from ._subjects import Subject, coded

Ranks = Sequence[Mapping[str, Int[np.ndarray, "value feature"]]]
"""For every component, by attribute: features by falling F1 for each value."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What edits did, prompt by prompt.

    - `hits`: where the edited model chooses what the patched one does. `weight`: removed.
      `left`: the squared distance that stays, as a share of the whole way.
    """

    hits: Bool[np.ndarray, "example"]
    weight: Float[np.ndarray, "example"]
    left: float


@dataclasses.dataclass(frozen=True)
class Cell:
    """The outcomes of one way of editing, one for every seed."""

    attribute: str
    kind: str
    level: str
    edit: str
    k: int
    outcomes: tuple[Outcome, ...]

    @property
    def hits(self) -> Float[np.ndarray, "example"]:
        """The mean over seeds of every prompt."""
        return np.mean([o.hits for o in self.outcomes], axis=0)

    @property
    def accuracy(self) -> float:
        return float(self.hits.mean())

    @property
    def weight(self) -> float:
        return float(np.mean([o.weight for o in self.outcomes]))

    def row(self, bench: Bench, supervised: "Cell") -> Row:
        """With its place in the document's plane."""
        target = bench.target(self.attribute)
        found = interval(self.hits, bench.clusters)
        each = [o.hits.mean() for o in self.outcomes]
        return {
            "section": "control",
            "cross-section": bench.section.name,
            "attribute": self.attribute,
            "dictionary": self.kind,
            "level": self.level,
            "edit": self.edit,
            "k": self.k,
            "accuracy": found.value,
            "accuracy low": found.low,
            "accuracy high": found.high,
            "over seeds": float(np.std(each, ddof=1)) if len(each) > 1 else None,
            "weight": self.weight,
            "distance left": float(np.mean([o.left for o in self.outcomes])),
            "x": _share(self.weight - supervised.weight, 1 - supervised.weight),
            "y": _share(self.accuracy - target.none, supervised.accuracy - target.none),
            "no intervention": target.none,
        }


def _share(part: float, whole: float) -> float | None:
    """None where the whole is next to nothing."""
    return part / whole if abs(whole) > 0.02 else None


Editor = Callable[[AbstractDictionary, int, Target], Edit]
"""What is done with the dictionary of the i-th component."""


def judged(bench: Bench, subject: Subject, target: Target, editor: Editor) -> Outcome:
    """Edit every component with its own dictionary, all at once, and see what the model says."""
    edited, weights, left, way = [], [], 0.0, 0.0
    for i, (dictionary, x) in enumerate(zip(subject.dictionaries, bench.values, strict=True)):
        edit = editor(dictionary, i, target)
        (source,) = coded(dictionary, x)
        weights.append(removed_weight(dictionary.directions, source, edit))
        edited.append(x + jnp.asarray(edit.delta, x.dtype))
        gap = target.values[i] - x
        left += float(jnp.square(gap - edit.delta).sum())
        way += float(jnp.square(gap).sum())
    hits = bench.agreement(target, edited)
    return Outcome(hits, np.mean(weights, axis=0), left / max(way, 1e-12))


def nearest(bench: Bench, k: int) -> Editor:
    """Up to k moves by distance, whatever features mean."""

    def edit(dictionary: AbstractDictionary, i: int, target: Target) -> Edit:
        x, y = bench.values[i], target.values[i]
        f, g = coded(dictionary, x, y)
        return greedy_edit(dictionary.directions, f, g, y - x, k)

    return edit


def by_labels(bench: Bench, k: int, ranks: Ranks) -> Editor:
    """k features out and k in, by how well they tell the values."""

    def edit(dictionary: AbstractDictionary, i: int, target: Target) -> Edit:
        f, g = coded(dictionary, bench.values[i], target.values[i])
        own = ranks[i][target.attribute]
        return labelled_edit(dictionary.directions, f, g, own, target.old, target.new, k)

    return edit


def by_behaviour(bench: Bench, k: int) -> Editor:
    """Up to k moves by the slope of what the model says, other components as they are."""

    def edit(dictionary: AbstractDictionary, i: int, target: Target) -> Edit:
        x, y = bench.values[i], target.values[i]
        f, g = coded(dictionary, x, y)
        return behaviour_edit(dictionary.directions, f, g, x, slope_of(bench, target, i), k)

    return edit


def slope_of(bench: Bench, target: Target, i: int) -> Callable[[Array], Array]:
    """The gradient of the surprise at the patched model's choice, in the i-th component."""
    groups, truth = jnp.asarray(bench.source.groups), jnp.asarray(target.truth)

    def loss(x: Array) -> Array:
        values = [x if j == i else own for j, own in enumerate(bench.values)]
        logits = bench.ends.logits(bench.narrow, bench.components, values)
        return surprise(logits, groups, truth).sum()

    return jax.grad(loss)


def surprise(
    logits: Float[Array, "example candidate"],
    groups: Int[Array, "candidate"],
    truth: Int[Array, "example"],
) -> Float[Array, "example"]:
    """Minus the log of the share that the right group has among the candidates."""
    right = jnp.where(groups == truth[:, None], logits, -jnp.inf)
    return jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(right, axis=1)


def supervised_outcome(bench: Bench, codes: Sequence[Supervised], target: Target) -> Outcome:
    """The edit by labels alone, and the weight of the code taken away."""
    name, labels = target.attribute, bench.source.labels
    edited = [
        own.edited(x, name, target.old, target.new)
        for own, x in zip(codes, bench.values, strict=True)
    ]
    at = list(codes[0].codes).index(name)
    weights = [np.asarray(own.weights(labels))[:, at] for own in codes]
    return Outcome(
        bench.agreement(target, edited), np.mean(weights, axis=0), _left(bench, target, edited)
    )


def replaced_outcome(bench: Bench, target: Target, edited: Values) -> Outcome:
    """Any other edit, whose weight has no meaning."""
    nothing = np.full(len(bench.source), np.nan)
    return Outcome(bench.agreement(target, edited), nothing, _left(bench, target, edited))


def _left(bench: Bench, target: Target, edited: Values) -> float:
    parts = zip(bench.values, target.values, edited, strict=True)
    sums = [(float(jnp.square(y - e).sum()), float(jnp.square(y - x).sum())) for x, y, e in parts]
    left, way = (sum(side) for side in zip(*sums, strict=True))
    return left / max(way, 1e-12)
