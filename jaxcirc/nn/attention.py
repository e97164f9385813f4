"""Grouped-query attention at true key/value width, every activation a site. May import `taps`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..taps import Cache, Taps, Timeline, take_layer
from .mlp import plus
from .norm import AbstractNorm
from .position import Rotary

Stream = Float[Array, "batch pos d_model"]
Query = Float[Array, "batch pos head d_head"]
Key = Float[Array, "batch src kv_head d_head"]

FUSED = (jnp.float32, jnp.bfloat16)
"""The fused kernel takes its softmax in float32, and has no float16 on CPU."""


class Attention(eqx.Module):
    """softmax(q k^T scale) v, summed over heads through W_O.

    Fused (`jax.nn.dot_product_attention`) unless scores, pattern or a head's own copy of keys or
    values are tapped, scores are capped, or x is float16 on a CPU. The mask is applied after the
    `scores` tap.
    """

    w_q: Float[Array, "*layer d_model head d_head"]
    w_k: Float[Array, "*layer d_model kv_head d_head"]
    w_v: Float[Array, "*layer d_model kv_head d_head"]
    w_o: Float[Array, "*layer head d_head d_model"]
    b_q: Float[Array, "*layer head d_head"] | None = None
    b_k: Float[Array, "*layer kv_head d_head"] | None = None
    b_v: Float[Array, "*layer kv_head d_head"] | None = None
    b_o: Float[Array, "*layer d_model"] | None = None
    q_norm: AbstractNorm | None = None
    k_norm: AbstractNorm | None = None
    rotary: Rotary | None = None
    window: Int[Array, "*layer"] | None = None
    scale: float = eqx.field(static=True, default=1.0)
    soft_cap: float | None = eqx.field(static=True, default=None)
    causal: bool = eqx.field(static=True, default=True)

    def __call__(
        self, reads: tuple[Array, Array, Array], layer: Int[Array, ""], time: Timeline, tap: Taps
    ) -> Query:
        """z of every head: Float[batch pos head d_head], from what q, k and v read: Float[batch pos
        d_model], or [batch pos head d_model] apart."""
        q = self._turn(tap("q", project(reads[0], self.w_q, self.b_q)), self.q_norm, "q", time, tap)
        k = self._turn(tap("k", project(reads[1], self.w_k, self.b_k)), self.k_norm, "k", time, tap)
        v = tap("v", project(reads[2], self.w_v, self.b_v))
        cache = time.cache
        if cache is not None:
            k = jnp.concatenate([take_layer(cache.keys, layer).astype(k.dtype), k], axis=1)
            v = jnp.concatenate([take_layer(cache.values, layer).astype(v.dtype), v], axis=1)
        mask = visible(time.positions, time.mask, cache, self.causal, self.window)
        apart = tap.wants("scores", "pattern", "k_at_head", "v_at_head")
        if apart or self.soft_cap is not None or q.dtype not in FUSED:
            return self._attend(q, k, v, mask, tap)
        return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=self.scale)

    def _turn(self, x: Array, norm: AbstractNorm | None, name: str, time: Timeline, tap: Taps):
        x = x if norm is None else norm(x, tap, f"{name}_norm_scale")
        return tap(f"rot_{name}", x if self.rotary is None else self.rotary(x, time.positions))

    def _attend(self, q: Query, k: Key, v: Key, mask, tap: Taps) -> Query:
        k = tap("k_at_head", per_head(k, q.shape[2]))
        v = tap("v_at_head", per_head(v, q.shape[2]))
        scores = jnp.einsum("bdhe,bshe->bhds", q, k) * jnp.asarray(self.scale, q.dtype)
        if self.soft_cap is not None:
            scores = jnp.tanh(scores / self.soft_cap) * self.soft_cap
        scores = tap("scores", scores)
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        wide = scores.astype(np.promote_types(scores.dtype, np.float32))
        pattern = tap("pattern", jax.nn.softmax(wide, axis=-1).astype(v.dtype))
        return jnp.einsum("bhds,bshe->bdhe", pattern, v)

    def write(self, z: Query, norm: AbstractNorm | None, tap: Taps) -> Stream:
        """What the heads add to the stream: Float[batch pos d_model].

        Per-head writes are made only when asked for, and enter by what an edit changes, so reading
        them changes neither value nor gradient; after a post-norm they use its scale held constant.
        """
        out = plus(jnp.einsum("bphe,hed->bpd", z, self.w_o), self.b_o)
        heads = jnp.einsum("bphe,hed->bphd", z, self.w_o) if tap.wants("head_out") else None
        if norm is not None:
            scale = tap("attn_post_scale", norm.scale(out))
            out = norm.apply(out, scale)
            if heads is not None:
                held = jax.lax.stop_gradient(scale)[:, :, None]
                heads = norm.apply(heads, held) - norm.apply(jnp.zeros_like(heads), held)
        return out if heads is None else out + (tap("head_out", heads) - heads).sum(axis=2)


def project(x: Array, weight: Array, bias: Array | None) -> Query:
    """x W + b for every head: Float[batch pos head d_head]; x may differ between heads."""
    return plus(jnp.einsum("bpd,dhe->bphe" if x.ndim == 3 else "bphd,dhe->bphe", x, weight), bias)


def per_head(x: Key, n_heads: int) -> Array:
    """Keys or values copied for each query head of their group."""
    return jnp.repeat(x, n_heads // x.shape[2], axis=2)


def visible(
    positions: Int[Array, "batch dest"],
    mask: Bool[Array, "batch dest"],
    cache: Cache | None,
    causal: bool,
    window: Int[Array, ""] | None,
) -> Bool[Array, "batch one dest src"]:
    """Which sources each destination may read: real, not later, and within the window."""
    sources, real, prefix = positions, mask, 0
    if cache is not None:
        prefix = cache.mask.shape[1]
        sources = jnp.concatenate([cache.positions, positions], axis=1)
        real = jnp.concatenate([cache.mask, mask], axis=1)
    n_dest, n_src = positions.shape[1], sources.shape[1]
    seen = jnp.broadcast_to(real[:, None, :], (real.shape[0], n_dest, n_src))
    if causal:
        seen = seen & jnp.tri(n_dest, n_src, prefix, dtype=bool)
    if window is not None:
        seen = seen & (positions[:, :, None] - sources[:, None, :] < window)
    return seen[:, None]
