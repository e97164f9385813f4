"""Steering and ablation along a feature, as tables of edits for `run` and `generate`.

May import `taps`.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..taps import AbstractEdit, Add, At, Sites
from ._feature import Feature


class Along(AbstractEdit):
    """Set the coordinate along a direction: x -> x + where * (value - x . unit) unit.

    `unit`: Float[slot d], of length 1; `value`: Float[slot]; `where` broadcasts against x without
    its last axis. Records the coordinate that was there.
    """

    unit: Float[Array, "*slot d"]
    value: Float[Array, "*slot"]
    where: Bool[Array, "..."] | bool = True

    def __call__(self, x: Array) -> tuple[Array, Array]:
        along = x @ self.unit.astype(x.dtype)
        step = (self.value.astype(x.dtype) - along) * jnp.asarray(self.where, x.dtype)
        return x + step[..., None] * self.unit.astype(x.dtype), along


def steer(
    model,
    feature: Feature,
    amount: float | Float[Array, ""],
    *,
    layers: Sequence[int] | None = None,
    where: Bool[Array, "batch pos"] | None = None,
) -> Sites:
    """Add `amount` times the feature's unit vector to the stream that its path reads.

    - `layers`: others than the feature's own. `where`: which tokens (default: all).

    >>> generate(model, tokens, steer(model, feature, 20.0), n=16)
    """
    step = jnp.asarray(amount, model.dtype) * feature.unit
    if where is not None:
        step = jnp.where(where[..., None], step, 0.0)

    def edit(n: int | None) -> AbstractEdit:
        return Add(
            step if n is None else jnp.broadcast_to(_ranked(step), (n, *_ranked(step).shape))
        )

    return _placed(model, feature, layers, edit)


def ablate(
    model,
    feature: Feature,
    *,
    to: float = 0.0,
    layers: Sequence[int] | None = None,
    where: Bool[Array, "batch pos"] | None = None,
) -> Sites:
    """Take the feature's direction out of the stream that its path reads.

    - `to`: the coordinate that is left along it. Others as for `steer`.

    >>> run(model, tokens, ablate(model, feature), logits_at=-1)
    """
    unit, value = feature.unit, jnp.asarray(to, feature.vector.dtype)

    def edit(n: int | None) -> AbstractEdit:
        if n is None:
            return Along(unit, value, True if where is None else where)
        chosen = True if where is None else jnp.broadcast_to(where, (n, *where.shape))
        return Along(jnp.broadcast_to(unit, (n, *unit.shape)), jnp.full(n, value), chosen)

    return _placed(model, feature, layers, edit)


def _ranked(step: Array) -> Array:
    """With axes for batch and position, where one vector serves all."""
    return step.reshape((1,) * (3 - step.ndim) + step.shape)


def _placed(model, feature: Feature, layers: Sequence[int] | None, edit: Any) -> Sites:
    if feature.layer is None:
        if layers is not None:
            raise ValueError("the observable itself is read behind all layers: leave layers= out")
        return Sites(final_resid=edit(None))
    inside = feature.site == "mlp_in" and not model.blocks.parallel
    chosen = jnp.asarray([feature.layer] if layers is None else list(layers))
    return Sites(**{"resid_mid" if inside else "resid_pre": At(chosen, edit(chosen.shape[0]))})
