"""What features read and observables say on any tokens, and one regressed on the other.

May import `taps` and `tasks`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Mask, Tokens
from ..taps import At, Read, Sites, run, take_layer
from ..tasks import Interval, interval_of
from ._feature import Feature
from ._observable import Observable


class Readings(eqx.Module):
    """outputs: every observable's value behind every token; features: every feature's reading
    there, scaled as its norm scales; inputs: what they were read from, in front of gain and
    offset."""

    outputs: Float[Array, "observable batch pos"]
    features: Float[Array, "feature batch pos"]
    inputs: Float[Array, "feature batch pos d_model"]


def read(
    model,
    tokens: Tokens,
    observables: Sequence[Observable],
    features: Sequence[Feature],
    mask: Mask | None = None,
) -> Readings:
    """Values of observables and readings of features at every position, in one run.

    A feature with `norms="direction"` reads x / scale(x), another x itself.

    - `tokens`: Int[batch pos]; `mask`: Bool[batch pos], False at padding.

    >>> found = read(model, tokens, [pronoun], [feature])
    >>> regress(found.features[0].ravel(), found.outputs[0].ravel())
    """
    for feature in features:
        if not feature.path:
            raise ValueError(
                "an observable itself is read as an output: read(..., [observable], [])"
            )
    with jax.default_matmul_precision("highest"):
        width = (0, model.axis_size("d_model"))
        vectors = jnp.stack([f.vector for f in features]) if features else jnp.zeros(width)
        offsets = jnp.stack([f.offset for f in features]) if features else jnp.zeros(0)
        mask = jnp.ones(tokens.shape, bool) if mask is None else mask
        sets, (layers, places) = _sets(model, observables), _places(features)
        return _read(model, tokens, mask, sets, layers, vectors, offsets, places)


Places = tuple[tuple[str, int, bool], ...]
"""Of every feature: its site, the slot in which its layer is read, and whether x is scaled."""


def _places(features: Sequence[Feature]) -> tuple[dict[str, Array], Places]:
    """The layers to read at each site, each once, and where every feature finds its own."""
    layers: dict[str, list[int | None]] = {}
    for feature in features:
        own = layers.setdefault(feature.site, [])
        if feature.layer not in own:
            own.append(feature.layer)
    places = tuple(
        (f.site, layers[f.site].index(f.layer), f.norms == "direction") for f in features
    )
    return {site: jnp.asarray(own) for site, own in layers.items()}, places


def _sets(model, observables: Sequence[Observable]) -> tuple[Array, Array]:
    """Token ids and weights of all observables, filled up with weight 0."""
    for observable in observables:
        observable.check(model.config.vocab)
    width = max((len(o.tokens) for o in observables), default=1)
    ids = np.zeros((len(observables), width), np.int32)
    weights = np.zeros((len(observables), width), np.float64)
    for row, o in enumerate(observables):
        ids[row, : len(o.tokens)], weights[row, : len(o.tokens)] = o.tokens, o.weights
    return jnp.asarray(ids), jnp.asarray(weights, model.dtype)


@partial(jax.jit, static_argnames=("places",))
def _read(model, tokens, mask, sets, layers, vectors, offsets, places: Places) -> Readings:
    reads = {site: At(own, Read()) for site, own in layers.items()}
    edits = Sites(**reads, final_resid=Read())
    _, records = run(model, tokens, edits, mask=mask, logits_at=-1)
    inputs = []
    for site, slot, scaled in places:
        x = getattr(records, site)[slot]
        inputs.append(x / _scale(model, site, layers[site][slot], x) if scaled else x)
    empty = jnp.zeros((0, *tokens.shape, model.axis_size("d_model")), model.dtype)
    stacked = jnp.stack(inputs) if inputs else empty
    values = jnp.einsum("fbpd,fd->fbp", stacked, vectors) + offsets[:, None, None]
    return Readings(_outputs(model, records.final_resid, sets), values, stacked)


def _scale(model, site: str, layer: Array, x: Array) -> Array:
    """The scale of the norm that a node reads through."""
    blocks = model.blocks
    norm = blocks.attn_norm if site == "attn_in" or blocks.mlp_norm is None else blocks.mlp_norm
    shared = site == "attn_in" or blocks.mlp_norm is not None or blocks.parallel
    if norm is None or not shared:
        return jnp.ones((), x.dtype)
    return take_layer(norm, layer).scale(x).astype(x.dtype)


def _outputs(
    model, final: Array, sets: tuple[Array, Array]
) -> Float[Array, "observable batch pos"]:
    """The few logits that observables weigh, at every position."""
    ids, weights = sets
    x = final
    if model.final_norm is not None:
        x = model.final_norm.apply(final, model.final_norm.scale(final))
    rows = model.embed[ids] if model.unembed is None else jnp.moveaxis(model.unembed[:, ids], 0, -1)
    logits = jnp.einsum("bpd,otd->otbp", x, rows)
    if model.unembed_bias is not None:
        logits = logits + model.unembed_bias[ids][:, :, None, None]
    if model.logit_soft_cap is not None:
        logits = jnp.tanh(logits / model.logit_soft_cap) * model.logit_soft_cap
    return jnp.einsum("otbp,ot->obp", logits, weights)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A line through points: y = slope * x + intercept; `r2`: the share of variance explained."""

    slope: Interval
    intercept: float
    r2: Interval


def regress(x: Any, y: Any, clusters: Any = None, n: int = 400, seed: int = 0) -> Fit:
    """The best line of y on x, with intervals from resampling whole clusters.

    - `x`, `y`: Float[example]. `clusters`: Int[example] (default: every example is its own).
      `n`: resamplings.

    Raises `ValueError` for arrays of different length, or fewer than three examples.

    >>> regress(feature_readings, outputs, prompts.templates).r2
    """
    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    if a.shape != b.shape or len(a) < 3:
        raise ValueError(
            f"{len(a)} readings and {len(b)} outputs: regress(x, y) needs three pairs or more"
        )
    clusters = np.arange(len(a)) if clusters is None else np.asarray(clusters)
    centre = a.mean(), b.mean()
    a, b = a - centre[0], b - centre[1]
    moments, own = [a, b, a * a, b * b, a * b], [clusters] * 5

    def slope(ma, mb, aa, bb, ab) -> float:
        return (ab - ma * mb) / (aa - ma**2)

    def r2(ma, mb, aa, bb, ab) -> float:
        return (ab - ma * mb) ** 2 / ((aa - ma**2) * (bb - mb**2))

    line = interval_of(slope, moments, own, n=n, seed=seed)
    explained = interval_of(r2, moments, own, n=n, seed=seed)
    return Fit(line, float(centre[1] - line.value * centre[0]), explained)
