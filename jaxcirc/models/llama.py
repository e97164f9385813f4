"""The Llama family: RMSNorm, rotary grouped-query attention and a gated SiLU MLP, pre-norm.

Gives the shape of the model from a file's metadata and the table that maps its tensors. Other
formats of the family are further tables; other families are further files like this one.
May import `nn`, `lm`, `gguf` and `_layout`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..nn import MLP, Attention, Block, RMSNorm, Rotary
from ._layout import Row, heads_in, heads_in_interleaved, heads_out, same, transposed
from .gguf import GGUF
from .lm import LM, Config

GGUF_TABLE = (
    Row("embed", "token_embd.weight", same),
    Row("blocks.attn_norm.weight", "blk.{layer}.attn_norm.weight", same),
    Row("blocks.attn.w_q", "blk.{layer}.attn_q.weight", heads_in_interleaved),
    Row("blocks.attn.w_k", "blk.{layer}.attn_k.weight", heads_in_interleaved),
    Row("blocks.attn.w_v", "blk.{layer}.attn_v.weight", heads_in),
    Row("blocks.attn.w_o", "blk.{layer}.attn_output.weight", heads_out),
    Row("blocks.mlp_norm.weight", "blk.{layer}.ffn_norm.weight", same),
    Row("blocks.mlp.w_gate", "blk.{layer}.ffn_gate.weight", transposed),
    Row("blocks.mlp.w_in", "blk.{layer}.ffn_up.weight", transposed),
    Row("blocks.mlp.w_out", "blk.{layer}.ffn_down.weight", transposed),
    Row("final_norm.weight", "output_norm.weight", same),
    Row("unembed", "output.weight", transposed),
)

ROTARY = "blocks.attn.rotary.inv_freq"


@dataclasses.dataclass(frozen=True)
class Llama:
    """What the metadata of a Llama file says: the model but for its weights."""

    config: Config
    rope_base: float
    eps: float
    tied: bool

    table = GGUF_TABLE

    @classmethod
    def from_gguf(cls, file: GGUF) -> "Llama":
        """Read the metadata; `ValueError` for a missing key or a feature outside the family."""

        def get(key: str, *default: Any) -> Any:
            return file.get(f"llama.{key}", *default)

        d_model, n_heads = get("embedding_length"), get("attention.head_count")
        d_head = get("attention.key_length", d_model // n_heads)
        _check_rotary(file, d_head)
        config = Config(
            name=file.path.stem,
            family="llama",
            n_layers=get("block_count"),
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=get("attention.head_count_kv", n_heads),
            d_head=d_head,
            d_mlp=get("feed_forward_length"),
            vocab=file.shape("token_embd.weight")[0],
            ctx=get("context_length"),
            bos="always" if file.get("tokenizer.ggml.add_bos_token", False) else "never",
        )
        tied = "output.weight" not in file.names()
        eps = get("attention.layer_norm_rms_epsilon")
        return cls(config, get("rope.freq_base", 10000.0), eps, tied)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Llama":
        """The inverse of `dataclasses.asdict`."""
        return cls(Config(**record["config"]), record["rope_base"], record["eps"], record["tied"])

    def skeleton(self) -> LM:
        """The model with a `jax.ShapeDtypeStruct` for every leaf."""
        return jax.eval_shape(self._zeros)

    def constants(self) -> dict[str, np.ndarray]:
        """The leaves that no tensor holds: rotary frequencies base^(-2i / d_head) by layer."""
        c = self.config
        inv_freq = self.rope_base ** -(np.arange(0, c.d_head, 2) / c.d_head)
        return {ROTARY: np.tile(inv_freq.astype(np.float32), (c.n_layers, 1))}

    def _zeros(self) -> LM:
        c = self.config
        layer, wide = c.n_layers, (c.n_layers, c.d_model)
        attn = Attention(
            w_q=jnp.zeros((*wide, c.n_heads, c.d_head)),
            w_k=jnp.zeros((*wide, c.n_kv_heads, c.d_head)),
            w_v=jnp.zeros((*wide, c.n_kv_heads, c.d_head)),
            w_o=jnp.zeros((layer, c.n_heads, c.d_head, c.d_model)),
            rotary=Rotary(jnp.zeros((layer, c.d_head // 2))),
            scale=c.d_head**-0.5,
        )
        mlp = MLP(
            w_in=jnp.zeros((*wide, c.d_mlp)),
            w_gate=jnp.zeros((*wide, c.d_mlp)),
            w_out=jnp.zeros((layer, c.d_mlp, c.d_model)),
            activation="silu",
        )
        norms = [RMSNorm(jnp.zeros(shape), self.eps) for shape in (wide, wide, (c.d_model,))]
        return LM(
            embed=jnp.zeros((c.vocab, c.d_model)),
            blocks=Block(attn, mlp, attn_norm=norms[0], mlp_norm=norms[1]),
            final_norm=norms[2],
            unembed=None if self.tied else jnp.zeros((c.d_model, c.vocab)),
            config=c,
        )


def _check_rotary(file: GGUF, d_head: int) -> None:
    scaling = file.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(
            f"{file.path.name} scales its rotary positions ({scaling!r}), which is not supported:"
            " load a model without rope scaling"
        )
    turning = file.get("llama.rope.dimension_count", d_head)
    if turning != d_head:
        raise ValueError(
            f"{file.path.name} rotates {turning} of {d_head} coordinates of a head, which is not"
            " supported: load a model that rotates them all"
        )
