"""Rotary positions. Imports nothing of jaxcirc."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rotary(eqx.Module):
    """Rotate pairs of coordinates by position * inv_freq (RoFormer, arXiv 2104.09864, eq. 34).

    The first 2 * len(inv_freq) coordinates of a head turn, the rest pass. Pairs are (i, i + half),
    as in Hugging Face's layout, or neighbours (2i, 2i + 1) when `interleaved`.
    """

    inv_freq: Float[Array, "*layer half"]
    interleaved: bool = eqx.field(static=True, default=False)

    def __call__(
        self, x: Float[Array, "batch pos head d_head"], positions: Int[Array, "batch pos"]
    ) -> Float[Array, "batch pos head d_head"]:
        angle = positions[:, :, None, None].astype(self.inv_freq.dtype) * self.inv_freq
        cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
        turning = 2 * self.inv_freq.shape[-1]
        a, b = self._pairs(x[..., :turning])
        turned = self._unpair(a * cos - b * sin, b * cos + a * sin)
        return jnp.concatenate([turned, x[..., turning:]], axis=-1)

    def _pairs(self, x: Array) -> tuple[Array, Array]:
        if self.interleaved:
            return x[..., 0::2], x[..., 1::2]
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]

    def _unpair(self, a: Array, b: Array) -> Array:
        if self.interleaved:
            return jnp.stack([a, b], axis=-1).reshape(*a.shape[:-1], -1)
        return jnp.concatenate([a, b], axis=-1)
