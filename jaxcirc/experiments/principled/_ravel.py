r"""RAVEL's disentangle score of a dictionary: does an edit of one attribute spare the others?

Huang et al. 2024 (arXiv 2402.17700): cause, how often the edit of the attribute asked for gives the
source's value; isolation, how often the edit of another one leaves the base's; $\tfrac12
(\overline{\mathrm{iso}} + \overline{\mathrm{cause}})$, averaged over attributes. Beside a
dictionary's features stand the whole activation, which has cause and no isolation, and codes made
from labels. Only prompts that the model answers right, and only sources that differ in every
attribute. May import `dictionaries`, `patching`, `tasks`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...dictionaries import AbstractDictionary, supervised
from ...dictionaries.interpret import predicates_of, score
from ...patching import Component, activations, first_column, narrow, tail
from ...tasks import interval
from ...tasks.labelled import Ravel
from .._result import Row
from ._approximation import cells
from ._subjects import coded

Edited = Callable[[str, Array, Array, np.ndarray, np.ndarray], Array]
"""(attribute, base, source, rows of the base, of the source) -> the edited base."""


def disentangle(
    model,
    ravel: Mapping[str, Ravel],
    place: Component,
    dictionary: AbstractDictionary | None = None,
    name: str = "dictionary",
    seed: int = 0,
) -> list[Row]:
    """Cause, isolation and their mean for every way of editing, a row each.

    - `ravel`: as `read_ravel` gives, the same entities for every attribute. `place`: a component
      at the span "entity".

    Half of the entities serve to make codes and to say what features mean.

    >>> disentangle(model, read_ravel(tokenizer, folder), Component("resid_post", 12, "entity"))
    """
    hits: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    for asked, own in ravel.items():
        judged = _Asked(model, own, place, seed)
        for way, edit in _ways(judged, dictionary, name).items():
            for attribute in ravel:
                found = judged.right_after(attribute, edit)
                hits.setdefault(way, []).append((asked, attribute, found))
    return [_row(way, own, place) for way, own in hits.items()]


class _Asked:
    """Prompts of one attribute: which are answered right, and pairs of bases and sources."""

    def __init__(self, model, own: Ravel, place: Component, seed: int):
        self.model, self.own, self.place = model, own, place
        (self.x,) = activations(model, own.prompts, [place])
        self.ids, self.small = own.ids[own.asked], narrow(model, own.ids[own.asked])
        self.ends = tail(model, own.prompts, first_column(own.prompts, [place]))
        answers = own.labels[own.asked]
        self.right = np.flatnonzero(self._says(self.x) == answers)
        half = np.arange(len(answers)) % 2 == 0
        self.train, held = np.flatnonzero(half), [i for i in self.right if not half[i]]
        self.base, self.source = self._pairs(np.asarray(held, int), seed)

    def _says(self, values: Array) -> Int[np.ndarray, "example"]:
        """The value the model gives for every prompt with the place set."""
        with jax.default_matmul_precision("highest"):
            return np.asarray(self.ends.logits(self.small, [self.place], [values]).argmax(axis=1))

    def _pairs(self, held: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """For every base a source that differs from it in every attribute, where there is one."""
        rng, pairs = np.random.default_rng(seed), []
        table = np.stack(list(self.own.labels.values()), axis=1)
        for i in held:
            others = held[(table[held] != table[i]).all(axis=1)]
            if len(others):
                pairs.append((i, rng.choice(others)))
        base, source = np.asarray(pairs, int).reshape(-1, 2).T
        return base, source

    def right_after(self, attribute: str, edit: Edited) -> np.ndarray:
        """Where the answer is what it should be after an edit of an attribute."""
        values = np.array(self.x)
        if len(self.base):
            sides = self.x[self.base], self.x[self.source]
            values[self.base] = np.asarray(edit(attribute, *sides, self.base, self.source))
        wanted = self.source if attribute == self.own.asked else self.base
        said = self._says(jnp.asarray(values))[self.base]
        return said == self.own.labels[self.own.asked][wanted]


def _ways(judged: _Asked, dictionary: AbstractDictionary | None, name: str) -> dict[str, Edited]:
    """Ways of editing, made from the training half."""
    labels, rows = judged.own.labels, judged.train
    own = {a: values[rows] for a, values in labels.items()}
    sizes = {a: len(ids) for a, ids in judged.own.ids.items()}
    codes = supervised(judged.x[rows], own, sizes)

    def whole(attribute, base, source, at, to):
        return source

    def by_codes(attribute, base, source, at, to):
        return codes.edited(base, attribute, labels[attribute][at], labels[attribute][to])

    found: dict[str, Edited] = {"whole activation": whole, "supervised": by_codes}
    if dictionary is not None:
        found[name] = _by_features(dictionary, judged.x[rows], own, sizes)
    return found


def _by_features(
    dictionary: AbstractDictionary,
    x: Float[Array, "row d"],
    labels: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
) -> Edited:
    """Every feature belongs to the attribute whose value it tells best; all features of one are
    exchanged."""
    active = np.asarray(coded(dictionary, x)[0]) != 0
    scored = score(active, predicates_of(labels, sizes))
    at, f1 = scored.best()
    owner = np.asarray([name.split("=")[0] for name in scored.names])[at]

    def edit(attribute, base, source, *_):
        mine = jnp.asarray((owner == attribute) & (f1 > 0))
        f, g = coded(dictionary, base, source)
        return base + ((g - f) * mine) @ dictionary.directions

    return edit


def _row(way: str, hits: list[tuple[str, str, np.ndarray]], place: Component) -> Row:
    cause = np.concatenate([x for asked, edited, x in hits if asked == edited])
    spared = np.concatenate([x for asked, edited, x in hits if asked != edited])
    named: Row = {"section": "disentangle", "cross-section": str(place), "dictionary": way}
    if not len(cause) or not len(spared):
        return {**named, "pairs": 0}
    both = {"cause": interval(cause), "isolation": interval(spared)}
    mean = (cause.mean() + spared.mean()) / 2
    return {**named, "pairs": len(cause), **cells(both), "disentangle": float(mean)}
