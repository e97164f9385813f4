"""`Spec`: what the metadata of a model says, as data: the model but for its weights.

Every family is described by the same record; families differ in how they fill it and in the table
that maps their tensors. It is plain enough to be written as JSON. May import `nn` and `lm`.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..nn import MLP, AbstractNorm, Attention, Block, LayerNorm, RMSNorm, Rotary
from .lm import LM, Config

FREQUENCIES, WINDOWS = "blocks.attn.rotary.inv_freq", "blocks.attn.window"
UNLIMITED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Norm:
    """Which norm: its kind, the epsilon under its root, and what is added to its gain."""

    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary frequencies base^(-2i / dim), scaled.

    - `dim`: coordinates of a head that turn. `factor`: all frequencies are divided by it, or with
      `smooth` = (low, high, length) as Llama 3.1 does: wavelengths above length / low fully, below
      length / high not at all, and by a blend between. `factors`: one more divisor a frequency.
    """

    base: float
    dim: int
    factor: float = 1.0
    smooth: tuple[float, float, float] | None = None
    factors: tuple[float, ...] = ()

    def inv_freq(self) -> np.ndarray:
        """Float[dim / 2], in float32."""
        plain = (1.0 / self.base ** (np.arange(0, self.dim, 2) / self.dim)).astype(np.float32)
        plain = plain / np.asarray(self.factors, np.float32) if self.factors else plain
        if self.smooth is None:
            return plain / np.float32(self.factor)
        low, high, length = self.smooth
        turns = length * plain / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return (plain * (kept + (1 - kept) / self.factor)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A model but for its weights.

    - `norm`: of every place that has one, or None. `biases`: the biases it has ("b_q", ...,
      "unembed_bias"). `ropes`, `windows`: by layer (empty: none; a window of None: unlimited).
    - `shared_norm`: the MLP of a parallel block reads through attention's norm.

    `config.d_mlp` of 0 means attention only.
    """

    config: Config
    norm: Norm | None
    activation: str = "silu"
    gated: bool = False
    biases: tuple[str, ...] = ()
    learned: bool = False
    ropes: tuple[Rope, ...] = ()
    interleaved: bool = False
    windows: tuple[int | None, ...] = ()
    qk_norm: bool = False
    post_norm: bool = False
    parallel: bool = False
    shared_norm: bool = False
    causal: bool = True
    scale: float = 1.0
    embed_scale: float = 1.0
    soft_cap: float | None = None
    logit_soft_cap: float | None = None
    tied: bool = True

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Spec":
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        norm, ropes = record["norm"], record["ropes"]
        nested = {
            "config": Config(**record["config"]),
            "norm": None if norm is None else Norm(**norm),
            "ropes": tuple(_rope(rope) for rope in ropes),
            "biases": tuple(record["biases"]),
            "windows": tuple(record["windows"]),
        }
        return cls(**record | nested)

    def skeleton(self) -> LM:
        """The model with a `jax.ShapeDtypeStruct` for every leaf."""
        return jax.eval_shape(self._zeros)

    def constants(self) -> dict[str, np.ndarray]:
        """The leaves that no tensor holds, by dotted path: rotary frequencies and windows."""
        made = {}
        if self.ropes:
            made[FREQUENCIES] = np.stack([rope.inv_freq() for rope in self.ropes])
        if self._windowed():
            made[WINDOWS] = np.array([w or UNLIMITED for w in self.windows], np.int32)
        return made

    def _windowed(self) -> bool:
        return any(window is not None for window in self.windows)

    def _zeros(self) -> LM:
        c = self.config
        wide = (c.n_layers, c.d_model)
        learned, out = (c.ctx, c.d_model), (c.d_model, c.vocab)
        return LM(
            embed=jnp.zeros((c.vocab, c.d_model)),
            blocks=self._block(wide),
            final_norm=self._norm(c.d_model),
            config=c,
            pos_embed=jnp.zeros(learned) if self.learned else None,
            unembed=None if self.tied else jnp.zeros(out),
            unembed_bias=jnp.zeros(c.vocab) if "unembed_bias" in self.biases else None,
            embed_scale=self.embed_scale,
            logit_soft_cap=self.logit_soft_cap,
        )

    def _block(self, wide: tuple[int, int]) -> Block:
        has_mlp, post = self.config.d_mlp > 0, self.post_norm
        return Block(
            self._attention(*wide),
            self._mlp(*wide) if has_mlp else None,
            attn_norm=self._norm(*wide),
            mlp_norm=self._norm(*wide) if has_mlp and not self.shared_norm else None,
            attn_post_norm=self._norm(*wide) if post else None,
            mlp_post_norm=self._norm(*wide) if post and has_mlp else None,
            parallel=self.parallel,
        )

    def _attention(self, layer: int, d_model: int) -> Attention:
        c = self.config
        query, key = (c.n_heads, c.d_head), (c.n_kv_heads, c.d_head)
        turning = (layer, self.ropes[0].dim // 2 if self.ropes else 0)
        return Attention(
            w_q=jnp.zeros((layer, d_model, *query)),
            w_k=jnp.zeros((layer, d_model, *key)),
            w_v=jnp.zeros((layer, d_model, *key)),
            w_o=jnp.zeros((layer, *query, d_model)),
            b_q=self._bias("b_q", layer, *query),
            b_k=self._bias("b_k", layer, *key),
            b_v=self._bias("b_v", layer, *key),
            b_o=self._bias("b_o", layer, d_model),
            q_norm=self._norm(layer, c.d_head) if self.qk_norm else None,
            k_norm=self._norm(layer, c.d_head) if self.qk_norm else None,
            rotary=Rotary(jnp.zeros(turning), self.interleaved) if self.ropes else None,
            window=jnp.zeros(layer, jnp.int32) if self._windowed() else None,
            scale=self.scale,
            soft_cap=self.soft_cap,
            causal=self.causal,
        )

    def _mlp(self, layer: int, d_model: int) -> MLP:
        d_mlp = self.config.d_mlp
        return MLP(
            w_in=jnp.zeros((layer, d_model, d_mlp)),
            w_out=jnp.zeros((layer, d_mlp, d_model)),
            w_gate=jnp.zeros((layer, d_model, d_mlp)) if self.gated else None,
            b_in=self._bias("b_in", layer, d_mlp),
            b_gate=self._bias("b_gate", layer, d_mlp),
            b_out=self._bias("b_out", layer, d_model),
            activation=self.activation,
        )

    def _norm(self, *shape: int) -> AbstractNorm | None:
        if self.norm is None:
            return None
        if self.norm.kind == "layer":
            return LayerNorm(jnp.zeros(shape), jnp.zeros(shape), self.norm.eps)
        return RMSNorm(jnp.zeros(shape), self.norm.eps, self.norm.offset)

    def _bias(self, name: str, *shape: int):
        return jnp.zeros(shape) if name in self.biases else None


def _rope(record: dict[str, Any]) -> Rope:
    nested = {"smooth": _tuple(record["smooth"]), "factors": tuple(record["factors"])}
    return Rope(**record | nested)


def _tuple(values: Any) -> Any:
    return None if values is None else tuple(values)
