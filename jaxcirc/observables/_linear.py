"""Sublayers pulled back by their weights: norms, heads, MLPs.

Dunefsky & Cohan 2023 (arXiv 2312.16291), section 2: for f(x) = W x an observable n of f is W^T n of
x. Attention scores are fixed, so rotary positions, windows and norms of queries and keys do not
enter. The gain of a norm always does: it is not close to a constant in real models. May import `nn`
and `taps`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..nn import ACTIVATIONS, MLP, AbstractNorm, Attention, LayerNorm, RMSNorm
from ..taps import Sites, Taps, take_layer

Vector = Float[Array, "d_model"]


def through_gain(
    norm: AbstractNorm | None, y: Float[Array, "*batch d"]
) -> Float[Array, "*batch d"]:
    """The transpose of a norm whose scale is 1: gain * y, centred if the norm centres.

    Raises `ValueError` for a norm of another kind than LayerNorm and RMSNorm.
    """
    if norm is None:
        return y
    if isinstance(norm, RMSNorm):
        return (y * (norm.weight + norm.offset)).astype(y.dtype)
    if isinstance(norm, LayerNorm):
        scaled = y * norm.weight
        return (scaled - scaled.mean(axis=-1, keepdims=True)).astype(y.dtype)
    raise ValueError(f'{type(norm).__name__} has no closed form: propagate(..., route="vjp")')


def through_norm(norm: AbstractNorm | None, y: Vector, x: Vector) -> Vector:
    r"""The gradient of y . norm(x) at x: direction and magnitude.

    $$\frac{1}{s} P \left(I - \frac{Px (Px)^\top}{d s^2}\right) (\gamma \odot y)$$

    where s is the norm's scale, and P centres (LayerNorm) or is the identity (RMSNorm).
    """
    if norm is None:
        return y
    gained, scale = through_gain(norm, y), norm.scale(x)
    centred = x - x.mean() if isinstance(norm, LayerNorm) else x
    along = (centred @ gained) / (x.shape[-1] * scale**2)
    return ((gained - along * centred) / scale).astype(y.dtype)


def head_pull(attn: Attention, layer: int, head: int, y: Vector) -> Vector:
    """(W_V W_O) y of one head, with the value head of its group."""
    group = attn.w_q.shape[-2] // attn.w_v.shape[-2]
    return attn.w_v[layer, :, head // group] @ (attn.w_o[layer, head] @ y)


@jax.jit
def mlp_pull(mlp: MLP, layer: Int[Array, ""], y: Vector, x: Vector) -> Vector:
    r"""The gradient of y . MLP(x) at x.

    Gated: $W_g[\sigma'(g) \odot u \odot W_o y] + W_u[\sigma(g) \odot W_o y]$; plain:
    $W_i[\sigma'(p) \odot W_o y]$. `layer` may be traced.
    """
    own = take_layer(mlp, layer)
    back, act = own.w_out @ y, ACTIVATIONS[mlp.activation]
    up = x @ own.w_in + (0 if own.b_in is None else own.b_in)
    if own.w_gate is None:
        return own.w_in @ (_slope(act, up) * back)
    gate = x @ own.w_gate + (0 if own.b_gate is None else own.b_gate)
    return own.w_gate @ (_slope(act, gate) * up * back) + own.w_in @ (act(gate) * back)


def _slope(act, x: Array) -> Array:
    return jax.grad(lambda v: act(v).sum())(x)


@jax.jit
def mlp_value(mlp: MLP, layer: Int[Array, ""], y: Vector, x: Vector) -> Float[Array, ""]:
    """y . MLP(x)."""
    return y @ take_layer(mlp, layer)(x[None, None], Taps(Sites()))[0, 0]


@jax.jit
def mlp_root(
    mlp: MLP, layer: Int[Array, ""], y: Vector, low: Vector, high: Vector
) -> tuple[Float[Array, "d_model"], Float[Array, "two"]]:
    """Where y . MLP(x) = 0 on the segment from `low` to `high`, by bisection, and its values at the
    two ends, which must differ in sign."""

    def value(t: Array) -> Array:
        return mlp_value(mlp, layer, y, (1 - t) * low + t * high)

    zero, one = jnp.zeros((), y.dtype), jnp.ones((), y.dtype)
    ends = jnp.stack([value(zero), value(one)])

    def halve(_, span: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (span[0] + span[1]) / 2
        rises = jnp.sign(value(middle)) == jnp.sign(ends[1])
        return jnp.where(rises, span[0], middle), jnp.where(rises, middle, span[1])

    near, far = jax.lax.fori_loop(0, jnp.finfo(y.dtype).nmant + 1, halve, (zero, one))
    t = (near + far) / 2
    return (1 - t) * low + t * high, ends
