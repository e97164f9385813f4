"""Text that the model itself goes on with: features against each other and against outputs at every
token, what ablation does to it, and steering.

May import `observables` and `taps`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..._types import Mask
from ...observables import (
    Feature,
    Observable,
    ablate,
    auc,
    coupling,
    propagate,
    read,
    regress,
    steer,
)
from ...taps import Sites, generate, run
from ...tasks import Interval, interval, interval_of
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from . import _words
from ._pronouns import gap_of
from ._rows import Rows, behind_first, filled, plain
from ._subject import Ready

BATCH = 8

Condition = Callable[[Mask], Sites]
"""Edits for rows with a mask."""


def texts(ready: Ready) -> tuple[Int[Array, "row pos"], Bool[Array, "row pos"]]:
    """Prompts of names, continued by the model."""
    rows = ready.rows["subject"].spread(ready.sizes.texts)
    key = jax.random.key(ready.seed)
    more = generate(ready.model, rows.tokens, n=ready.sizes.length, key=key, mask=rows.mask)
    mask = jnp.concatenate([rows.mask, jnp.ones(more.shape, bool)], axis=1)
    return jnp.concatenate([rows.tokens, more], axis=1), mask


def corpus(ready: Ready) -> Section:
    """Coupling and prediction at every token of text."""
    layer, head = ready.top("subject")
    found = [propagate(ready.model, ready.observables[n], f"{layer}.{head}") for n in ready.order]
    tokens, mask = texts(ready)
    asked = [ready.observables[name] for name in ready.order]
    parts = [
        read(ready.model, tokens[i : i + BATCH], asked, found, mask[i : i + BATCH])
        for i in range(0, len(tokens), BATCH)
    ]
    outputs, values = (
        np.concatenate([np.asarray(getattr(p, n)) for p in parts], axis=1)
        for n in ("outputs", "features")
    )
    kept = np.asarray(behind_first(mask))
    clusters = np.broadcast_to(np.arange(len(tokens))[:, None], kept.shape)[kept]
    rows: list[Row] = []
    x = values[0][kept]
    for i, name in enumerate(ready.order[1:], 1):
        fit = regress(x, values[i][kept], clusters)
        rows.append(
            _corpus_row(
                f"{name} feature", fit, float(coupling(found[0], found[i], 1.0, 0.0).coefficient)
            )
        )
    so_far = np.cumsum(np.where(kept, values[0], 0), axis=1) / np.maximum(
        np.cumsum(kept, axis=1), 1
    )
    rows.append(
        _corpus_row("output behind the token", regress(x, outputs[0][kept], clusters), None)
    )
    rows.append(
        _corpus_row(
            "output, feature averaged so far",
            regress(so_far[kept], outputs[0][kept], clusters),
            None,
        )
    )
    arrays = {"tokens": np.asarray(tokens), "mask": np.asarray(mask, np.uint8)}
    return Section(rows, arrays)


def _corpus_row(of: str, fit, told: float | None) -> Row:
    return {
        "section": "text",
        "of": of,
        "slope": fit.slope.value,
        "slope low": fit.slope.low,
        "slope high": fit.slope.high,
        "coupling": told,
        "r2": fit.r2.value,
        "tokens": fit.r2.n,
    }


def debias(ready: Ready, kept: Section) -> Section:
    """The feature's direction taken out of the stream behind first tokens: the gap between
    occupations, and what else changes."""
    workers = filled(ready.tokenizer, _words.WORKERS[: ready.sizes.templates], _words.JOBS)
    names = ready.rows["subject"].spread(60)
    tokens = jnp.asarray(kept.arrays["tokens"][: 2 * BATCH])
    mask = jnp.asarray(kept.arrays["mask"][: 2 * BATCH], bool)
    conditions = _conditions(ready)
    changed = divergences(ready.model, tokens, mask, list(conditions.values()))
    rows: list[Row] = []
    seen = {}
    for step, (name, condition) in enumerate(conditions.items()):
        gap = outputs_under(ready.model, workers, ready.subject, condition)
        named = outputs_under(ready.model, names, ready.subject, condition)
        seen[name] = gap
        rows.append(
            {
                "section": "debias",
                "ablated": name,
                "gap of occupations": gap_of(gap, workers.labels),
                "gap of names": gap_of(named, names.labels),
                "AUC of names": auc(named, names.labels),
                "nats a token of its own text": changed[step],
            }
        )
        ready.tell("debias")(step + 1, len(conditions))
    return Section(rows, {}, _debias_claims(seen, workers))


def _conditions(ready: Ready) -> dict[str, Condition]:
    """Nothing, our feature at its layer and from it on, the difference of means, a random one."""
    layer, head = ready.top("subject")
    feature = propagate(ready.model, ready.subject, f"{layer}.{head}")
    onward = list(range(layer, ready.model.n_layers))
    seen, labels = ready.look("subject"), ready.rows["subject"].labels
    x = seen.read("place")[layer]
    means = _turned(feature, x[labels].mean(axis=0) - x[~labels].mean(axis=0))

    def without(direction: Feature, layers: Sequence[int]) -> Condition:
        return lambda mask: ablate(ready.model, direction, layers=layers, where=behind_first(mask))

    return {
        "nothing": lambda mask: Sites(),
        f"the feature at layer {layer}": without(feature, [layer]),
        f"the feature from layer {layer} on": without(feature, onward),
        f"difference of means from layer {layer} on": without(means, onward),
        f"a random direction from layer {layer} on": without(_random(ready, feature), onward),
    }


def _turned(feature: Feature, vector: np.ndarray) -> Feature:
    return dataclasses.replace(feature, vector=jnp.asarray(vector, feature.vector.dtype))


def _random(ready: Ready, feature: Feature) -> Feature:
    rng = np.random.default_rng(ready.seed)
    return _turned(feature, rng.normal(size=feature.vector.shape))


def outputs_under(model, rows: Rows, observable: Observable, condition: Condition) -> np.ndarray:
    """An observable behind every row, edited."""
    found = []
    size = min(32, len(rows))
    for start in range(0, len(rows), size):
        own = rows.take(np.arange(start, start + size) % len(rows))
        edits = condition(own.mask)
        logits, _ = run(model, own.tokens, edits, mask=own.mask, logits_at=-1)
        found.append(np.asarray(observable(logits))[: len(rows) - start])
    return np.concatenate(found)


def divergences(model, tokens, mask, conditions: Sequence[Condition]) -> list[float]:
    """Nats from the clean model to each edited one, a token of text on average."""
    totals = np.zeros(len(conditions))
    for i in range(0, len(tokens), 4):
        own = tokens[i : i + 4], mask[i : i + 4]
        clean = _log_probabilities(model, *own, Sites())
        totals += [float(_divergence(model, clean, *own, each(own[1]))) for each in conditions]
    return (totals / int(mask.sum())).tolist()


@jax.jit
def _log_probabilities(model, tokens, mask, edits: Sites) -> Array:
    logits, _ = run(model, tokens, edits, mask=mask)
    assert logits is not None
    return jax.nn.log_softmax(logits)


@jax.jit
def _divergence(model, clean, tokens, mask, edits: Sites) -> Array:
    edited = _log_probabilities(model, tokens, mask, edits)
    return ((jnp.exp(clean) * (clean - edited)).sum(axis=-1) * mask).sum()


def _debias_claims(seen: dict[str, np.ndarray], workers: Rows) -> list[Claim]:
    first, *ours, _, chance = seen
    clusters, labels = workers.clusters, workers.labels
    order = [np.argsort(clusters[labels == side], kind="stable") for side in (True, False)]

    def by_pair(outputs: np.ndarray) -> np.ndarray:
        sides = [outputs[labels == s][o] for s, o in zip((True, False), order, strict=True)]
        return sides[0] - sides[1]

    own = clusters[labels][order[0]]

    def share(name: str) -> Interval:
        gaps = [by_pair(seen[first]), by_pair(seen[name])]
        return interval_of(lambda clean, now: 1 - now / clean, gaps, [own, own])

    by_chance = max(0.0, share(chance).value)
    return [
        Claim(
            f"debias: without {name} occupations lose half of their pronoun's gap",
            "share of the gap that goes; baseline: a random direction",
            share(name),
            baseline=by_chance,
            floor=0.5 - by_chance,
            paper="early trials of the notebooks: -3.6 and +2.8 logits",
        )
        for name in ours
    ]


AMOUNTS = (-4, -2, 0, 2, 4)
"""In differences between the mean woman's and the mean man's reading."""


def steering(ready: Ready) -> Section:
    """Continuations of open prompts, steered along the feature and along a random direction."""
    layer, head = ready.top("subject")
    feature = propagate(ready.model, ready.subject, f"{layer}.{head}")
    unit = _unit_step(ready, feature)
    repeat = np.tile(np.arange(len(_words.OPEN)), max(2, ready.sizes.draws // 2))
    own = plain(ready.tokenizer, _words.OPEN).take(repeat)
    random = _random(ready, feature)
    steps = [("the feature", feature, amount) for amount in AMOUNTS]
    steps += [("a random direction", random, amount) for amount in (AMOUNTS[0], AMOUNTS[-1])]
    rows: list[Row] = []
    each = {}
    for step, (along, direction, amount) in enumerate(steps):
        edits = steer(ready.model, direction, amount * unit)
        each[along, amount], told = _spoken_of(ready, own, edits)
        rows.append({"section": "steering", "along": along, "amount": amount, **told})
        ready.tell("steering")(step + 1, len(steps))
    ours, chance = (
        interval(each[along, AMOUNTS[-1]] - each[along, AMOUNTS[0]], repeat)
        for along in ("the feature", "a random direction")
    )
    claim = Claim(
        "steering along the feature changes who is spoken of",
        "balance of she over he in a text (-1 to 1), most less least steered; baseline: a random"
        " direction",
        ours,
        baseline=abs(chance.value),
        floor=0.5,
        paper="shown by examples",
    )
    return Section(rows, {}, [claim])


def _spoken_of(ready: Ready, own: Rows, edits: Sites) -> tuple[np.ndarray, Row]:
    """Whom continuations speak of: 1 where she is named more often than he, -1 less often."""
    key = jax.random.key(ready.seed)
    more = np.asarray(generate(ready.model, own.tokens, edits, 12, key, mask=own.mask))
    sides = (" she", " her"), (" he", " his", " him")
    she, he = (np.isin(more, list(_ids(ready.tokenizer, side))).sum(axis=1) for side in sides)
    told: Row = {
        "she, her": int(she.sum()),
        "he, his, him": int(he.sum()),
        "texts": len(own),
        "for example": ready.tokenizer.decode(more[0].tolist()).strip()[:60],
    }
    return np.sign(she - he).astype(float), told


def _unit_step(ready: Ready, feature: Feature) -> float:
    """How far the streams of women's and men's names lie apart along the feature."""
    rows = ready.rows["subject"].spread(16)
    still = dataclasses.replace(feature, vector=feature.unit, norms="gradient")
    values = np.asarray(read(ready.model, rows.tokens, [], [still], rows.mask).features[0])
    last = rows.tokens.shape[1] - 1 - np.argmax(np.asarray(rows.place)[:, ::-1], axis=1)
    own = values[np.arange(len(rows)), last]
    return gap_of(own, rows.labels)


def _ids(tokenizer, texts) -> set[int]:
    found = [tokenizer.encode(text) for text in texts]
    return {ids[0] for ids in found if len(ids) == 1}
