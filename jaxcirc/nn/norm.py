"""Normalisation, with its denominator as a site. May import `taps`."""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..taps import Taps


class AbstractNorm(eqx.Module):
    """A norm over the last axis: centre, divide by a scale, apply gain and bias."""

    def __call__(self, x: Float[Array, "... d"], tap: Taps, site: str) -> Float[Array, "... d"]:
        """The normed x; its scale is tapped as `site`."""
        return self.apply(x, tap(site, self.scale(x)))

    @abc.abstractmethod
    def scale(self, x: Float[Array, "... d"]) -> Float[Array, "... one"]:
        """The denominator, in at least float32."""

    @abc.abstractmethod
    def apply(self, x: Float[Array, "... d"], scale: Array) -> Float[Array, "... d"]:
        """x normed by a given denominator; linear in the centred x."""


def _wide(x: Array) -> Array:
    return x.astype(np.promote_types(x.dtype, np.float32))


class RMSNorm(AbstractNorm):
    """x / sqrt(mean(x^2) + eps) * (offset + weight); Gemma has offset 1."""

    weight: Float[Array, "*layer d"]
    eps: float = eqx.field(static=True)
    offset: float = eqx.field(static=True, default=0.0)

    def scale(self, x: Float[Array, "... d"]) -> Float[Array, "... one"]:
        wide = _wide(x)
        return jnp.sqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)

    def apply(self, x: Float[Array, "... d"], scale: Array) -> Float[Array, "... d"]:
        gain = _wide(self.weight) + self.offset if self.offset else _wide(self.weight)
        return (_wide(x) / scale * gain).astype(x.dtype)


class LayerNorm(AbstractNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias; the bias may be absent."""

    weight: Float[Array, "*layer d"]
    bias: Float[Array, "*layer d"] | None
    eps: float = eqx.field(static=True)

    def scale(self, x: Float[Array, "... d"]) -> Float[Array, "... one"]:
        wide = _centred(x)
        return jnp.sqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)

    def apply(self, x: Float[Array, "... d"], scale: Array) -> Float[Array, "... d"]:
        normed = _centred(x) / scale * _wide(self.weight)
        return (normed if self.bias is None else normed + _wide(self.bias)).astype(x.dtype)


def _centred(x: Array) -> Array:
    wide = _wide(x)
    return wide - jnp.mean(wide, axis=-1, keepdims=True)
