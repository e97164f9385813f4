"""One seed of one task: the heads, which features move them, and what ablating those does.

Two steps, each kept by itself: `found` needs no judge; `judged` does. May import `circuits`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..._types import TokenizerLike
from ...circuits.features import Basis, FeatureNode, nodes, random_like, select
from ._concepts import concept_head, concept_vectors, cosines
from ._head import Head, Margin, Pool, fit, said
from ._neurons import Centred, neurons_of
from ._rows import Rows, longest_first, prompts_of, rows_of
from ._runs import below, drops_of, pooled, start_layer
from ._texts import Counts, Split, Splits, Task

UNJUDGED = ("original", "CBP", "word deletion", "word deletion + retrain", "oracle")
JUDGED = (
    *("random features", "SHIFT", "SHIFT + retrain", "SHIFT, lowest places left out"),
    *("SHIFT, lowest places alone", "neuron skyline", "feature skyline"),
)
METHODS = (*UNJUDGED[:1], JUDGED[0], UNJUDGED[1], *JUDGED[1:], *UNJUDGED[2:])
"""Every row of the table."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How features are chosen: the score (see `nodes`), on how many texts, and how many."""

    method: str = "atp"
    steps: int | None = None
    texts: int = 48
    features: int = 64
    batch: int = 16

    def __post_init__(self):
        for name in ("texts", "features", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a section works on.

    - `length`: tokens of a row. `above`: places from this layer on are no lowest places (None: all
      but the first place).
    """

    model: Any
    tokenizer: TokenizerLike
    basis: Basis
    pool: Pool
    task: Task
    counts: Counts
    scoring: Scoring
    length: int
    above: int | None = None

    @cached_property
    def concepts(self) -> Float[np.ndarray, "concept d"]:
        """Concept vectors at the head's place."""
        return concept_vectors(self.model, self.tokenizer, self.task.concepts, self.pool.place)

    def rows(self, split: Split) -> Rows:
        """The texts as tokens."""
        return rows_of(self.tokenizer, split.texts, self.length)

    def is_lowest(self, node: FeatureNode) -> bool:
        """Whether a node lies at one of the lowest places."""
        if self.above is None:
            return node.place == self.basis.places[0]
        return node.layer < self.above


class Texts:
    """The texts of a seed, their rows and stored streams, each made when it is first asked for."""

    def __init__(self, at: Setting, seed: int):
        self.at, self.splits = at, at.task.draw(seed, at.counts)
        self._rows: dict[str, Rows] = {}
        self._streams: dict[str, Float[np.ndarray, "row pos d_model"]] = {}

    def split(self, name: str) -> Split:
        return getattr(self.splits, name)

    def rows(self, name: str) -> Rows:
        if name not in self._rows:
            self._rows[name] = self.at.rows(self.split(name))
        return self._rows[name]

    def stream(self, name: str) -> Float[np.ndarray, "row pos d_model"]:
        if name not in self._streams:
            layer = start_layer(self.at.basis)
            self._streams[name] = below(self.at.model, self.rows(name), layer)
        return self._streams[name]

    def forget(self, *names: str) -> None:
        """Free the memory of some streams."""
        for name in names:
            self._streams.pop(name, None)

    @property
    def nbytes(self) -> int:
        """Memory that the streams take."""
        return sum(stream.nbytes for stream in self._streams.values())

    def pooled(
        self, name: str, dropped: Sequence[FeatureNode] | None = None, basis: Basis | None = None
    ) -> Float[np.ndarray, "row d"]:
        """Mean residuals, features of a basis ablated."""
        at, basis = self.at, basis or self.at.basis
        drops = None if dropped is None else drops_of(basis, dropped, at.scoring.features)
        return pooled(at.model, self.rows(name), self.stream(name), basis, at.pool, drops)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Features by falling importance, of one attribution."""

    names: tuple[str, ...]
    importance: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """A seed before anything is judged.

    - `said`: what every method answers on the test. `head`: the original one. `centres`: the mean
      of every place, about which neurons are ablated. `chosen`: features by what they were chosen
      for ("head", "skyline", "neurons"), and "random" ones. `facts`: of the attribution.
    """

    said: Mapping[str, Int[np.ndarray, "text"]]
    label: Int[np.ndarray, "text"]
    attribute: Int[np.ndarray, "text"]
    head: Head
    centres: tuple[Float[np.ndarray, "d"], ...]
    chosen: Mapping[str, Chosen]
    facts: Mapping[str, float]


def found(at: Setting, texts: Texts, seed: int) -> Found:
    """The heads of a seed, their answers, and the features that move the original one."""
    ambiguous, balanced, test = (texts.split(n) for n in ("ambiguous", "balanced", "test"))
    x = {name: texts.pooled(name) for name in ("ambiguous", "balanced", "test")}
    head = fit(x["ambiguous"], ambiguous.label, seed)
    answers = {"original": said(head, x["test"])}
    answers["oracle"] = said(fit(x["balanced"], balanced.label, seed), x["test"])
    probe, centre = concept_head(x["ambiguous"], ambiguous.label, at.concepts, seed)
    answers["CBP"] = said(probe, cosines(x["test"], centre, at.concepts))
    answers |= _deleted(at, texts.splits, head, seed)
    neurons = neurons_of(at.model, texts.rows("balanced"), texts.stream("balanced"), at.basis)
    chosen, facts = _chosen(at, texts, head, neurons, seed)
    centres = tuple(_centre(each) for each in neurons.dictionaries)
    return Found(answers, test.label, test.attribute, head, centres, chosen, facts)


def _centre(dictionary: Any) -> Float[np.ndarray, "d"]:
    return np.asarray(dictionary.centre)


def _deleted(at: Setting, splits: Splits, head: Head, seed: int) -> dict[str, np.ndarray]:
    """The same head on texts without the words of the attribute, and one trained on such texts."""
    x = {}
    for name in ("ambiguous", "test"):
        split: Split = getattr(splits, name)
        rows = at.rows(split.without(at.task.words))
        stream = below(at.model, rows, start_layer(at.basis))
        x[name] = pooled(at.model, rows, stream, at.basis, at.pool)
    again = fit(x["ambiguous"], splits.ambiguous.label, seed)
    return {
        "word deletion": said(head, x["test"]),
        "word deletion + retrain": said(again, x["test"]),
    }


def _chosen(at: Setting, texts: Texts, head: Head, neurons: Basis, seed: int):
    """What moves the head on ambiguous texts; and, on balanced ones, towards the attribute."""
    ambiguous, balanced = texts.split("ambiguous"), texts.split("balanced")
    first = _scores(at, at.basis, head, texts.rows("ambiguous"), ambiguous.label)
    own = _best(first, at.scoring.features)
    drawn = random_like(first, np.asarray(own, int), seed)
    chosen = {"head": _named(first, own), "random": _named(first, drawn)}
    for name, basis in (("skyline", at.basis), ("neurons", neurons)):
        rows, label = texts.rows("balanced"), balanced.attribute
        scores = _scores(at, basis, head, rows, label, gaps=False)
        chosen[name] = _named(scores, _best(scores, at.scoring.features))
    gap = float(np.abs(first.gap[list(first.cuts)]).max()) if first.cuts else float("nan")
    facts = {"margin": float(first.base.mean()), "effect": first.effect, "gap": gap}
    return chosen, facts | {"error_share": first.error_share}


def _scores(at: Setting, basis: Basis, head: Head, rows: Rows, label, *, gaps: bool = True):
    some, how = longest_first(rows, at.scoring.texts), at.scoring
    options: Any = {"method": how.method, "steps": how.steps, "batch": how.batch}
    options |= {"gaps": gaps}
    prompts = prompts_of(rows.take(some), label[some])
    margin = Margin(head, at.pool)
    return nodes(at.model, prompts, basis, margin, patch="zero", by_position=False, **options)


def _best(scores, n: int) -> list[int]:
    """The columns of the features that help most; errors cannot be ablated."""
    order = select(scores, scores.layout.size, signed=True)
    order = order[scores.importance[order] > 0]
    return order[~scores.layout.errors(order)][:n].tolist()


def _named(scores, columns) -> Chosen:
    names = tuple(map(str, scores.nodes(columns)))
    return Chosen(names, tuple(float(scores.importance[column]) for column in columns))


def judged(
    at: Setting, texts: Texts, before: Found, ablate: Mapping[str, bool], seed: int
) -> dict[str, Int[np.ndarray, "text"]]:
    """What every arm answers on the test, with the judged features ablated.

    - `ablate`: of every feature chosen for the head, whether it goes.
    """
    gone = [FeatureNode.parse(name) for name in before.chosen["head"].names if ablate[name]]
    k, label = len(gone), texts.split("ambiguous").label

    def of(name: str) -> list[FeatureNode]:
        return [FeatureNode.parse(each) for each in before.chosen[name].names[:k]]

    def answers(dropped: list[FeatureNode], basis: Basis | None = None):
        return said(before.head, texts.pooled("test", dropped, basis))

    low = [node for node in gone if at.is_lowest(node)]
    high = [node for node in gone if not at.is_lowest(node)]
    without = texts.pooled("test", gone)
    again = fit(texts.pooled("ambiguous", gone), label, seed)
    return {
        "random features": answers(of("random")),
        "SHIFT": said(before.head, without),
        "SHIFT + retrain": said(again, without),
        "SHIFT, lowest places left out": answers(high),
        "SHIFT, lowest places alone": answers(low),
        "neuron skyline": answers(of("neurons"), _neurons(at.basis, before.centres)),
        "feature skyline": answers(of("skyline")),
    }


def _neurons(basis: Basis, centres: Sequence[Float[np.ndarray, "d"]]) -> Basis:
    """Neurons about known means."""
    each = tuple(Centred(jnp.asarray(centre)) for centre in centres)
    return Basis(each, basis.sink_norms, basis.places)
