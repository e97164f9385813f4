"""Many dictionaries judged on one text by shared runs: what `sae table` is made of.

The model's own run and its cross-entropy are computed once for all of them. May import
`dictionaries` and `taps`.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._types import Progress
from ...dictionaries.train import Contexts, Spot
from ...taps import AXES, AbstractDictionary, Start
from ...tasks import Interval, interval_of
from ._baselines import baselines, moments_of
from ._card import place_of
from ._numbers import Measured
from ._pass import OWN, Parts, Pass, told
from ._runs import Chunk, Clean, Where, chunks, clean_run, located, losses

Loaded = tuple[AbstractDictionary, Mapping[str, Any]]
"""A dictionary and its card."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A dictionary where it acts."""

    name: str
    dictionary: AbstractDictionary
    where: Where

    @property
    def below(self) -> Spot:
        """From where a spliced run goes on."""
        return Spot("resid_pre", min(spot.layer for spot in self.where.spots))


@dataclasses.dataclass(frozen=True)
class Found:
    """Of one dictionary on one text: its own numbers on all of it, those of its baselines on a
    part, and the share that it saves of the first baseline's nats, on the same tokens."""

    own: Measured
    beside: Measured
    saved: Interval


def subjects_of(model, loaded: Mapping[str, Loaded]) -> list[Subject]:
    """In the order in which a run meets their places; a card says place and sink norm.

    Raises `ValueError` for a card without a place, and a dictionary that does not fit there.
    """
    if not loaded:
        raise ValueError('no dictionaries: table(model, {"resid_post.12": (dictionary, card)}, ..)')
    found = [_subject(model, name, *each) for name, each in loaded.items()]
    sites = list(AXES)

    def order(subject: Subject) -> tuple[int, int]:
        first = subject.where.spots[0]
        return first.layer, sites.index(first.site)

    return sorted(found, key=order)


def _subject(model, name: str, dictionary: AbstractDictionary, card: Mapping[str, Any]) -> Subject:
    place = place_of(card)
    if place is None:
        raise ValueError(f'{name} names no place: save it with facts={{"place": "resid_post.12"}}')
    norm = card.get("sink_norm") or math.inf
    return Subject(name, dictionary, located(model, dictionary, place, norm))


class Work:
    """All dictionaries on one text.

    - `tell`: gives what is told of the progress of a stage, by its name.
    """

    def __init__(
        self,
        model,
        subjects: Sequence[Subject],
        components: Sequence[int],
        batch: int,
        seed: int,
        tell: Callable[[str], Progress],
    ):
        self.model, self.subjects, self.batch, self.tell = model, subjects, batch, tell
        self.components, self.seed = components, seed
        spots = (spot for s in subjects for spot in (*s.where.spots, s.below))
        self.spots = tuple(dict.fromkeys(spots))

    def over(self, reference: Contexts, judged_on: Contexts, tokens: int) -> dict[str, Found]:
        """Dictionaries on all of the text, baselines on the first so many tokens."""
        passes, done = self._passes(reference, judged_on), self.tell("splicing")
        first, rest = (defaultdict(lambda: defaultdict(list)) for _ in range(2))
        for i, chunk in enumerate(chunks(judged_on, self.batch)):
            all_of_them = i * self.batch * judged_on.length < tokens
            names = {s: tuple(p.each) if all_of_them else (OWN,) for s, p in passes.items()}
            for subject, columns in self._chunk(chunk, passes, names).items():
                for name, values in columns.items():
                    (first if all_of_them else rest)[subject][name].append(values)
            done(min(len(judged_on), (i + 1) * self.batch), len(judged_on))
        return {s: _found(first[s], rest[s], tuple(p.each)) for s, p in passes.items()}

    def _passes(self, reference: Contexts, judged_on: Contexts) -> dict[str, Pass]:
        pairs = [(s.dictionary, s.where) for s in self.subjects]
        fitted, means = (
            moments_of(self.model, pairs, some, self.batch, self.tell(stage))
            for some, stage in ((reference, "baselines"), (judged_on, "means"))
        )
        found = {}
        for s, fit, mean in zip(self.subjects, fitted, means, strict=True):
            beside = baselines(s.dictionary, fit, self.components, self.seed)
            found[s.name] = Pass(self.model, s.where, {OWN: s.dictionary} | beside, fit, mean)
        return found

    def _chunk(
        self, chunk: Chunk, passes: Mapping[str, Pass], names: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Columns of every dictionary."""
        tokens, mask = chunk.arrays()
        shared = clean_run(self.model, tokens, mask, self.spots)
        columns, finals = {}, []
        for s in self.subjects:
            clean = self._clean(s, shared, tokens.shape)
            columns[s.name], runs = passes[s.name].spliced(chunk, clean, names[s.name])
            finals += runs.values()
        found, first = losses(self.model, shared.final, jnp.stack(finals), tokens), 0
        for s in self.subjects:
            columns[s.name] |= told(found, names[s.name], chunk, first)
            first += len(names[s.name])
        return columns

    def _clean(self, subject: Subject, shared: Clean, shape: tuple[int, ...]) -> Clean:
        """The part of the shared run that one dictionary asks for."""
        rows = dict(zip(self.spots, shared.rows, strict=True))
        start = Start(rows[subject.below].reshape(*shape, -1), jnp.asarray(subject.below.layer))
        return Clean(tuple(rows[spot] for spot in subject.where.spots), start, shared.final)


def _found(first: Parts, rest: Parts, names: Sequence[str]) -> Found:
    alone = {n: v for n, v in first.items() if "." not in n or n.endswith(f".{OWN}")}
    whole = {name: [*values, *rest[name]] for name, values in alone.items()}
    return Found(Measured.of(whole, (OWN,)), Measured.of(first, names), _saved(first, names[1]))


def _saved(parts: Parts, beside: str) -> Interval:
    clean, ours, theirs, document = (
        np.concatenate(parts[column])
        for column in ("clean", f"entropy.{OWN}", f"entropy.{beside}", "scored_document")
    )
    nats = [ours - clean, theirs - clean]
    return interval_of(lambda own, other: 1 - own / other, nats, [document] * 2)
