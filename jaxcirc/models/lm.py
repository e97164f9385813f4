"""`LM`: a decoder as a pytree of arrays, built from parts, with every layer stacked.

One class serves every family; a family is a table that says which parts it has and where its
weights come from. May import `taps` and `nn`.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Bos, Resid, Tokens
from ..nn import AbstractNorm, Block
from ..taps import Sites, Taps, Timeline, take_layer


@dataclasses.dataclass(frozen=True)
class Config:
    """What a model is and where it came from; recorded in every result.

    `bos` is the model's own habit ("always" or "never"); `sha256` is of the file its weights came
    from; `processing` says what was done to them ("raw": nothing).
    """

    name: str
    family: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    vocab: int
    ctx: int
    bos: Bos = "never"
    sha256: str = ""
    processing: str = "raw"
    source: str = ""


class LM(eqx.Module):
    """A decoder-only language model.

    Every array leaf of `blocks` leads with a layer axis. `unembed` None means tied to `embed`.

    >>> model, tokenizer = jaxcirc.load_model("smollm2-135m")
    >>> logits, _ = jaxcirc.run(model, tokens)
    """

    embed: Float[Array, "vocab d_model"]
    blocks: Block
    final_norm: AbstractNorm | None
    config: Config = eqx.field(static=True)
    pos_embed: Float[Array, "ctx d_model"] | None = None
    unembed: Float[Array, "d_model vocab"] | None = None
    unembed_bias: Float[Array, "vocab"] | None = None
    embed_scale: float = eqx.field(static=True, default=1.0)
    logit_soft_cap: float | None = eqx.field(static=True, default=None)

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return self.config.n_layers

    @property
    def causal(self) -> bool:
        """Whether a position sees only what comes before it."""
        return self.blocks.attn.causal

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the weights."""
        return self.embed.dtype

    def relevant(self) -> "LM":
        """The same function with the gradients of relevance propagation in its MLPs."""
        if self.blocks.mlp is None:
            return self
        mlp = dataclasses.replace(self.blocks.mlp, relevance=True)
        return eqx.tree_at(lambda model: model.blocks.mlp, self, mlp)

    def axis_size(self, axis: str) -> int:
        """The size of a named axis, as `at` needs it."""
        c = self.config
        sizes = {
            "head": c.n_heads,
            "kv_head": c.n_kv_heads,
            "d_head": c.d_head,
            "layer": c.n_layers,
        }
        return (sizes | {"d_model": c.d_model, "d_mlp": c.d_mlp, "vocab": c.vocab, "one": 1})[axis]

    def sites(self) -> tuple[str, ...]:
        """The sites this model has, in the order of a run."""
        b = self.blocks
        absent = {
            "resid_mid": b.parallel,
            "attn_norm_scale": b.attn_norm is None,
            "mlp_norm_scale": b.mlp_norm is None and not (b.parallel and b.attn_norm is not None),
            "q_norm_scale": b.attn.q_norm is None,
            "k_norm_scale": b.attn.k_norm is None,
            "attn_post_scale": b.attn_post_norm is None,
            "mlp_post_scale": b.mlp_post_norm is None,
            "mlp_up": b.mlp is None or b.mlp.w_gate is None,
            "final_norm_scale": self.final_norm is None,
        }
        names = [field.name for field in dataclasses.fields(Sites)]
        no_mlp = b.mlp is None
        return tuple(
            n for n in names if not absent.get(n) and not (no_mlp and n.startswith("mlp_"))
        )

    def check(self, *asked: str) -> None:
        """Raise `ValueError` for a site the model lacks, or readers tapped twice."""
        here = self.sites()
        for site in asked:
            if site not in here:
                raise ValueError(
                    f"{self.config.name} has no site {site!r}: it has {', '.join(here)}"
                )
        apart = {"q_in", "k_in", "v_in"} & set(asked)
        if apart and {"attn_norm_scale", "attn_normed"} & set(asked):
            raise ValueError(
                f"{sorted(apart)[0]!r} gives each reader its own norm: tap attn_in with"
                " attn_normed, or the readers without it"
            )

    def embedding(self, tokens: Tokens, positions: Int[Array, "batch pos"], tap: Taps) -> Resid:
        """The residual stream before the first block; a token outside the vocabulary becomes
        NaN."""
        x = self.embed.at[tokens].get(mode="fill", fill_value=jnp.nan)
        if self.embed_scale != 1.0:
            x = x * jnp.asarray(self.embed_scale, x.dtype)
        x = tap("embed", x)
        if self.pos_embed is None:
            return x
        return x + self.pos_embed.at[positions].get(mode="fill", fill_value=jnp.nan)

    def block(self, layer: Int[Array, ""], x: Resid, time: Timeline, tap: Taps) -> Resid:
        """The stream after block `layer`."""
        return take_layer(self.blocks, layer)(layer, x, time, tap)

    def unembedding(self, x: Resid, tap: Taps) -> Float[Array, "batch pos vocab"]:
        """Logits of a final residual stream."""
        if self.final_norm is not None:
            x = self.final_norm(x, tap, "final_norm_scale")
        logits = (
            jnp.einsum("bpd,vd->bpv", x, self.embed) if self.unembed is None else x @ self.unembed
        )
        if self.unembed_bias is not None:
            logits = logits + self.unembed_bias
        if self.logit_soft_cap is not None:
            logits = jnp.tanh(logits / self.logit_soft_cap) * self.logit_soft_cap
        return tap("logits", logits)


def cast(model: LM, dtype: jax.typing.DTypeLike) -> LM:
    """The model with its floating-point weights in another dtype; rotary frequencies stay
    float32."""
    frequencies = None if model.blocks.attn.rotary is None else model.blocks.attn.rotary.inv_freq

    def convert(leaf):
        keep = leaf is frequencies or not jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf if keep else leaf.astype(dtype)

    return jax.tree.map(convert, model)
