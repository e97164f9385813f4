"""The MLP, plain or gated. May import `taps`."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..taps import Taps

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}


class MLP(eqx.Module):
    """act(x W_gate) * (x W_in) W_out when gated, act(x W_in) W_out when `w_gate` is None.

    `relevance`: same values, but gradients by the rules of layer-wise relevance propagation: an
    activation passes act(x)/x, and a product halves what it passes to each factor.
    """

    w_in: Float[Array, "*layer d_model d_mlp"]
    w_out: Float[Array, "*layer d_mlp d_model"]
    w_gate: Float[Array, "*layer d_model d_mlp"] | None = None
    b_in: Float[Array, "*layer d_mlp"] | None = None
    b_gate: Float[Array, "*layer d_mlp"] | None = None
    b_out: Float[Array, "*layer d_model"] | None = None
    activation: str = eqx.field(static=True, default="silu")
    relevance: bool = eqx.field(static=True, default=False)

    def __call__(self, x: Float[Array, "batch pos d_model"], tap: Taps) -> Array:
        activate = partial(_proportional if self.relevance else _apply, self.activation)
        up = affine(x, self.w_in, self.b_in)
        if self.w_gate is None:
            post = activate(tap("mlp_pre", up))
        else:
            pre = tap("mlp_pre", affine(x, self.w_gate, self.b_gate))
            post = activate(pre) * tap("mlp_up", up)
            post = _halved(post) if self.relevance else post
        return affine(tap("mlp_post", post), self.w_out, self.b_out)


def _apply(name: str, x: Array) -> Array:
    return ACTIVATIONS[name](x)


def _proportional(name: str, x: Array) -> Array:
    """act(x) as x times a constant."""
    small = jnp.abs(x) < 1e-6
    ratio = ACTIVATIONS[name](x) / jnp.where(small, jnp.ones_like(x), x)
    y = x * jax.lax.stop_gradient(jnp.where(small, jnp.full_like(x, 0.5), ratio))
    return jnp.where(small, ACTIVATIONS[name](x), y)


def _halved(x: Array) -> Array:
    """x with half its gradient."""
    half = x * jnp.asarray(0.5, x.dtype)
    return half + jax.lax.stop_gradient(half)


def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """x W + b, the bias optional."""
    y = x @ weight
    return y if bias is None else y + bias.astype(y.dtype)


def plus(x: Array, bias: Array | None) -> Array:
    """x + b in x's dtype, the bias optional."""
    return x if bias is None else x + jnp.asarray(bias, x.dtype)
