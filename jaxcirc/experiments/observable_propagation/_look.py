"""One run over rows, and all that the study needs of it: what heads read, what observables say, and
what every head writes of them. May import `observables` and `taps`."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...observables import Observable, through_gain
from ...taps import Read, Sites, run
from ._rows import Rows, behind_first

BATCH = 32

WHERE = {"place": "name token", "mean": "mean over tokens"}
"""The two ways to read a row, in words."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What a run over rows shows.

    - `place`, `mean`: what the heads of a layer read, scaled by their norm, Float[layer row
      d_model]: at the last token of each row's place, and on average over its tokens but the
      first.
    - `outputs`: of every observable, Float[observable row]; `direct`: what each head writes of them
      straight to the logits, Float[observable layer head row].
    """

    place: Float[np.ndarray, "layer row d_model"]
    mean: Float[np.ndarray, "layer row d_model"]
    outputs: Float[np.ndarray, "observable row"]
    direct: Float[np.ndarray, "observable layer head row"]

    def read(self, where: str) -> Float[np.ndarray, "layer row d_model"]:
        """What is read at "place" or on "mean"."""
        return getattr(self, where)


def look(
    model,
    rows: Rows,
    observables: Sequence[Observable],
    progress: Callable[[int, int], None] | None = None,
) -> Look:
    """Run over all rows in equal batches."""
    found = []
    starts = range(0, len(rows), BATCH)
    size = min(BATCH, len(rows))
    with jax.default_matmul_precision("highest"):
        for start in starts:
            index = np.arange(start, start + size) % len(rows)
            own = rows.take(index)
            part = _look(model, own.tokens, own.mask, own.place, observables=tuple(observables))
            new = min(size, len(rows) - start)
            found.append([np.asarray(x)[..., :new, :] for x in part[:2]])
            found[-1] += [np.asarray(x)[..., :new] for x in part[2:]]
            if progress is not None:
                progress(min(start + size, len(rows)), len(rows))
    place, mean, outputs, direct = zip(*found, strict=True)
    axis = -2
    joined = [np.concatenate(x, axis=axis) for x in (place, mean)]
    return Look(*joined, *(np.concatenate(x, axis=-1) for x in (outputs, direct)))


@partial(jax.jit, static_argnames=("observables",))
def _look(model, tokens, mask, place, *, observables: tuple[Observable, ...]):
    last = jnp.full((model.n_layers, tokens.shape[0], 1), tokens.shape[1] - 1)
    post = "attn_post_scale" in model.sites()
    reads = Sites(
        attn_in=Read(),
        z=Read(last),
        final_resid=Read(),
        attn_post_scale=Read(last) if post else None,
    )
    logits, seen = run(model, tokens, reads, mask=mask, logits_at=-1)
    assert logits is not None
    x, norm = seen.attn_in, model.blocks.attn_norm
    x = x if norm is None else x / norm.scale(x)
    at = tokens.shape[1] - 1 - jnp.argmax(place[:, ::-1], axis=1)
    spot = jnp.take_along_axis(x, at[None, :, None, None], axis=2)[:, :, 0]
    counted = behind_first(mask).astype(x.dtype)
    mean = jnp.einsum("lbpd,bp->lbd", x, counted) / counted.sum(axis=1)[:, None]
    outputs = jnp.stack([each(logits) for each in observables])
    final = seen.final_resid[:, -1]
    direct = [_direct(model, seen, each, logits, final) for each in observables]
    return spot, mean, outputs, jnp.stack(direct)


def _direct(model, seen: Sites, observable: Observable, logits: Array, final: Array) -> Array:
    """z through W_O and the norms behind, their scales held: Float[layer head batch]."""
    capped = model.logit_soft_cap is not None
    u = jax.vmap(lambda row: observable.direction(model, row if capped else None))(logits)
    if model.final_norm is not None:
        u = through_gain(model.final_norm, u) / model.final_norm.scale(final)
    behind = jnp.broadcast_to(u, (model.n_layers, *u.shape))
    if model.blocks.attn_post_norm is not None:
        behind = jax.vmap(through_gain)(model.blocks.attn_post_norm, behind)
        behind = behind / seen.attn_post_scale[:, :, 0]
    slopes = jnp.einsum("lhed,lbd->lbhe", model.blocks.attn.w_o, behind)
    return jnp.einsum("lbhe,lbhe->lhb", slopes, seen.z[:, :, 0])


def readings(
    look: Look, features: Float[np.ndarray, "layer head d_model"], where: str
) -> Float[np.ndarray, "layer head row"]:
    """Every head's reading of its own feature in every row."""
    return np.einsum("lhd,lrd->lhr", features, look.read(where), optimize=True)


def explained(readings: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The squared correlation along the last axis."""
    a = readings - readings.mean(axis=-1, keepdims=True)
    b = outputs - outputs.mean(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (a * b).sum(-1) ** 2 / ((a**2).sum(-1) * (b**2).sum(-1))
    return np.nan_to_num(r2)


def within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values less the mean of their group along the last axis: templates differ in what they
    expect, and any direction tells templates apart."""
    found = np.array(values, np.float64)
    for group in np.unique(groups):
        own = groups == group
        found[..., own] -= found[..., own].mean(axis=-1, keepdims=True)
    return found


def effects_of(look: Look, rows: Rows, observable: int) -> Float[np.ndarray, "cluster layer head"]:
    """Direct effects: the first kind minus the second, cluster by cluster."""
    direct, clusters = look.direct[observable], np.unique(rows.clusters)

    def mean(label: bool, cluster: int) -> np.ndarray:
        return direct[..., (rows.labels == label) & (rows.clusters == cluster)].mean(axis=-1)

    return np.stack([mean(True, c) - mean(False, c) for c in clusters])
