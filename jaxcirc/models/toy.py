"""Small random models of any shape, for tests and for trying things. May import `nn`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..nn import MLP, Attention, Block, LayerNorm, RMSNorm, Rotary
from .lm import LM, Config


def toy(
    key: PRNGKeyArray,
    *,
    n_layers: int = 3,
    d_model: int = 16,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    d_head: int = 4,
    d_mlp: int | None = 32,
    vocab: int = 50,
    norm: str | None = "rms",
    positions: str = "rotary",
    gated: bool = True,
    activation: str = "silu",
    parallel: bool = False,
    biases: bool = False,
    qk_norm: bool = False,
    post_norm: bool = False,
    tied: bool = True,
    causal: bool = True,
    soft_cap: float | None = None,
    window: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> LM:
    """A random decoder. Weights are drawn so that every part matters: norm gains differ from 1.

    - `norm`: "rms", "layer" or None. `positions`: "rotary", "learned" or "none". `d_mlp` None:
      attention only. `window` applies to even layers.

    >>> model = jaxcirc.models.toy(jax.random.key(0), n_layers=2, parallel=True)
    """
    keys = iter(jax.random.split(key, 64))

    def draw(*shape: int, scale: float | None = None) -> Array:
        spread = scale if scale is not None else shape[-2] ** -0.5 if len(shape) > 1 else 1.0
        return spread * jax.random.normal(next(keys), shape, dtype)

    def make_norm(*shape: int):
        gain = 1 + draw(*shape, scale=0.2)
        if norm is None:
            return None
        return (
            RMSNorm(gain, 1e-6) if norm == "rms" else LayerNorm(gain, draw(*shape, scale=0.1), 1e-5)
        )

    def bias(*shape: int) -> Array | None:
        return draw(n_layers, *shape, scale=0.1) if biases else None

    wide, narrow = (n_layers, d_model), d_model**-0.5
    attn = Attention(
        w_q=draw(*wide, n_heads, d_head, scale=2 * narrow),
        w_k=draw(*wide, n_kv_heads, d_head, scale=2 * narrow),
        w_v=draw(*wide, n_kv_heads, d_head, scale=narrow),
        w_o=draw(n_layers, n_heads, d_head, d_model, scale=narrow),
        b_q=bias(n_heads, d_head),
        b_k=bias(n_kv_heads, d_head),
        b_v=bias(n_kv_heads, d_head),
        b_o=bias(d_model),
        q_norm=make_norm(n_layers, d_head) if qk_norm else None,
        k_norm=make_norm(n_layers, d_head) if qk_norm else None,
        rotary=_rotary(n_layers, d_head, dtype) if positions == "rotary" else None,
        window=None if window is None else _windows(n_layers, window),
        scale=d_head**-0.5,
        soft_cap=soft_cap,
        causal=causal,
    )
    mlp = None
    if d_mlp is not None:
        mlp = MLP(
            w_in=draw(*wide, d_mlp),
            w_out=draw(n_layers, d_mlp, d_model),
            w_gate=draw(*wide, d_mlp) if gated else None,
            b_in=bias(d_mlp),
            b_out=bias(d_model),
            activation=activation,
        )
    block = Block(
        attn,
        mlp,
        attn_norm=make_norm(*wide),
        mlp_norm=None if d_mlp is None else make_norm(*wide),
        attn_post_norm=make_norm(*wide) if post_norm else None,
        mlp_post_norm=make_norm(*wide) if post_norm and d_mlp is not None else None,
        parallel=parallel,
    )
    shape = (n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp or 0, vocab, 64)
    return LM(
        draw(vocab, d_model, scale=1.0),
        block,
        make_norm(d_model),
        Config("toy", "toy", *shape),
        pos_embed=draw(64, d_model, scale=0.3) if positions == "learned" else None,
        unembed=None if tied else draw(d_model, vocab),
    )


def _rotary(n_layers: int, d_head: int, dtype: jax.typing.DTypeLike) -> Rotary:
    exponent = jnp.arange(0, d_head, 2, dtype=dtype) / d_head
    return Rotary(jnp.tile(1.0 / 100.0**exponent, (n_layers, 1)))


def _windows(n_layers: int, window: int) -> Array:
    everything = jnp.iinfo(jnp.int32).max
    return jnp.where(jnp.arange(n_layers) % 2 == 0, window, everything)
