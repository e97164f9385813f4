"""`feature_page`: where every feature is active, by quantile, and which tokens it speaks for.

The examples are those of Bricken et al. 2023 (Towards Monosemanticity): the strongest contexts, and
samples from each quantile of the rest. May import `dictionaries` and `taps`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..._types import Progress, TokenizerLike
from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary
from .._result import model_facts
from ._annotations import Annotation
from ._card import other_weights
from ._codes import Codes, collect
from ._logits import Weights, weights
from ._runs import SinkNorm

BINS = 20
"""Of the histogram of a feature's activations."""

TOP = "Top activations"


@dataclasses.dataclass(frozen=True)
class Example:
    """Some tokens of a text, with a feature's activation on each.

    - `context`: the row of `FeaturePage.tokens`; `start`: where in it. `peak`: the strongest token,
      counted from `start`.
    """

    context: int
    start: int
    peak: int
    values: Float[np.ndarray, "token"]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature.

    - `density`: the share of tokens it is active on. `largest`: its strongest activation.
      `quantiles`: examples by name, the strongest first. `top`, `bottom`: tokens whose logits it
      raises and lowers, with weights per unit of activation. `histogram`: counts of activations
      in equal steps from 0 to `largest`. `note`, `by`, `score`: what is said of it, who says so,
      and how well it holds.
    """

    index: int
    density: float
    largest: float
    quantiles: tuple[tuple[str, tuple[Example, ...]], ...]
    top: tuple[tuple[str, float], ...]
    bottom: tuple[tuple[str, float], ...]
    histogram: tuple[int, ...]
    note: str = ""
    by: str = ""
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class FeaturePage:
    """Features of a dictionary with the text they were seen on.

    - `place`: "resid_post.12". `tokens`: the contexts that examples are from. `words`: tokens as
      text, by id. `facts`: what was run on what.
    """

    place: str
    tokens: Int[np.ndarray, "context pos"]
    words: Mapping[int, str]
    features: tuple[Feature, ...]
    facts: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Look:
    """How much of a feature is shown: strongest examples, quantiles of the others, examples of
    each, tokens before and after the peak, tokens raised and lowered."""

    examples: int = 8
    quantiles: int = 4
    each: int = 3
    before: int = 20
    after: int = 8
    logits: int = 8


def feature_page(
    model,
    tokenizer: TokenizerLike,
    dictionary: AbstractDictionary,
    contexts: Contexts,
    place: str,
    *,
    sink_norm: SinkNorm = float("inf"),
    features: Sequence[int] | None = None,
    look: Look = Look(),
    annotations: Iterable[Annotation] = (),
    card: Mapping[str, Any] | None = None,
    batch: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> FeaturePage:
    """Gather what a page shows of some features (default: all).

    - `annotations`: notes to show, those of this model and place; of several on one feature, the
      last. Other arguments as for `evaluate`.

    >>> viz.write_features(feature_page(model, tokenizer, dictionary, contexts, "resid_post.12"),
    ...     "features.html")
    """
    codes = collect(
        model,
        dictionary,
        contexts,
        place,
        sink_norm=sink_norm,
        features=features,
        batch=batch,
        progress=progress,
    )
    said = weights(model, dictionary, codes.features, place, look.logits)
    own = (("", model.config.name), ("", place))
    notes = {n.feature: n for n in annotations if n.model in own[0] and n.place in own[1]}
    rng, words = np.random.default_rng(seed), _Words(tokenizer)
    found = tuple(
        _feature(codes, i, look, rng, said, words, notes.get(int(number)) or Annotation(i, ""))
        for i, number in enumerate(codes.features)
    )
    used = _used(found)
    rows = contexts.tokens[used]
    return FeaturePage(
        place,
        rows,
        {int(token): words(int(token)) for token in np.unique(rows)},
        tuple(_renumbered(feature, used) for feature in found),
        model_facts(model)
        | {"place": place, "contexts": len(contexts), "context": contexts.length}
        | {"contexts_hash": contexts.hash(), "tokens": codes.tokens, "seed": seed},
        other_weights(model, card or {}),
    )


class _Words:
    """Tokens as text, each asked for once."""

    def __init__(self, tokenizer: TokenizerLike):
        self._word = getattr(tokenizer, "token", lambda i: tokenizer.decode([i]))
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._word(token)
        return self._known[token]


def _feature(
    codes: Codes, i: int, look: Look, rng, said: Weights | None, words: _Words, note: Annotation
) -> Feature:
    _, _, value = codes.of(i)
    largest = float(value.max(initial=0.0))
    counts = np.histogram(value, BINS, (0, largest))[0] if largest > 0 else np.zeros(BINS, int)
    return Feature(
        int(codes.features[i]),
        float(codes.density[i]),
        largest,
        _quantiles(codes, i, look, rng),
        () if said is None else said.top(i, words),
        () if said is None else said.bottom(i, words),
        tuple(counts.tolist()),
        note.text,
        note.by,
        note.score,
    )


def _quantiles(
    codes: Codes, i: int, look: Look, rng
) -> tuple[tuple[str, tuple[Example, ...]], ...]:
    """The strongest contexts, then a sample of each quantile of the others."""
    context, pos, value = codes.of(i)
    best = np.lexsort((-value, context))
    best = best[np.unique(context[best], return_index=True)[1]]  # the peak of every context
    best = best[value[best] > 0]
    best = best[np.argsort(-value[best], kind="stable")]
    groups = [(TOP, best[: look.examples])]
    others = np.array_split(best[look.examples :], look.quantiles)
    for k, group in enumerate(others):
        share = [f"{100 * (look.quantiles - k - low) / look.quantiles:.0f}" for low in (1, 0)]
        drawn = np.sort(rng.permutation(len(group))[: look.each])
        groups.append((f"Quantile {share[0]}\N{EN DASH}{share[1]} %", group[drawn]))
    dense = codes.dense(i) if len(best) else None
    return tuple(
        (name, tuple(_example(codes, dense, int(context[e]), int(pos[e]), look) for e in group))
        for name, group in groups
        if len(group)
    )


def _example(codes: Codes, dense, context: int, pos: int, look: Look) -> Example:
    """The tokens around a peak, padding left out."""
    length = int(codes.contexts.mask[context].sum())
    start, stop = max(0, pos - look.before), min(length, pos + look.after + 1)
    return Example(context, start, pos - start, dense[context, start:stop])


def _used(features: Iterable[Feature]) -> Int[np.ndarray, "context"]:
    every = [e.context for f in features for _, group in f.quantiles for e in group]
    return np.unique(np.asarray(every, int))


def _renumbered(feature: Feature, used: Int[np.ndarray, "context"]) -> Feature:
    """Examples that name rows of the contexts used."""

    def moved(example: Example) -> Example:
        return dataclasses.replace(example, context=int(np.searchsorted(used, example.context)))

    groups = tuple((name, tuple(map(moved, group))) for name, group in feature.quantiles)
    return dataclasses.replace(feature, quantiles=groups)
