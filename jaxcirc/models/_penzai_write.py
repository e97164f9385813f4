"""An `LM` written as a penzai `TransformerLM`; imported by `to_penzai`'s call.

The layers, their order and the labels of their parameters are those of penzai's own variants. May
import `nn`, `taps` and `lm`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from penzai import pz
from penzai.models.transformer import model_parts

from ..nn import ACTIVATIONS, MLP, AbstractNorm, Attention, Block, LayerNorm, RMSNorm, Rotary
from ..taps import take_layer
from .lm import LM

STREAM, HIDDEN, VOCAB = ("embedding",), ("neurons",), ("vocabulary",)
EVERYTHING = jnp.iinfo(jnp.int32).max
"""The window of a layer that has none."""


@dataclasses.dataclass(frozen=True)
class Heads:
    """Names and sizes of the head axes: of queries, keys and values (`common`), and of queries
    alone."""

    common: dict[str, int]
    query: dict[str, int]

    @classmethod
    def of(cls, n_heads: int, n_kv_heads: int) -> "Heads":
        """As penzai names them: full, single or grouped keys and values."""
        group = n_heads // n_kv_heads
        if group == 1:
            return cls({"heads": n_heads}, {})
        if n_kv_heads == 1:
            return cls({}, {"query_heads": n_heads})
        return cls({"head_groups": n_kv_heads}, {"query_heads": group})

    @property
    def all(self) -> dict[str, int]:
        """The axes of queries."""
        return self.common | self.query


def write(model: LM, name: str) -> Any:
    """The work of `to_penzai`."""
    if model.pos_embed is not None:
        raise ValueError(
            f"{model.config.name} learned its positions, and penzai has none: convert a model with"
            " rotary positions"
        )
    c, heads = model.config, Heads.of(model.config.n_heads, model.config.n_kv_heads)
    table = pz.nn.EmbeddingTable(
        _parameter(f"{name}/embedder.embeddings", model.embed, VOCAB + STREAM), VOCAB[0]
    )
    layers: list[Any] = [pz.nn.EmbeddingLookup(table)]
    if model.embed_scale != 1.0:
        layers.append(pz.nn.ConstantRescale(_constant(model.embed_scale, model.dtype)))
    for i in range(c.n_layers):
        block = take_layer(model.blocks, jnp.asarray(i))
        layers.append(_block(f"{name}/block_{i}", block, heads))
    layers += _norm(f"{name}/final_norm", model.final_norm, STREAM)
    layers.append(_unembedding(f"{name}/lm_head", model, table))
    if model.logit_soft_cap is not None:
        layers.append(pz.nn.TanhSoftCap(_constant(model.logit_soft_cap, model.dtype)))
    meta = model_parts.TransformerMetadata(
        heads.common, heads.query, c.d_model, c.d_head, c.d_mlp, c.vocab, model.dtype
    )
    return model_parts.TransformerLM(pz.nn.Sequential(layers), meta)


# --- parameters -------------------------------------------------------------------------------


def _parameter(label: str, array: Array, axes: tuple[str, ...]) -> Any:
    return pz.Parameter(value=pz.nx.wrap(array).tag(*axes), label=label)


def _constant(x: float, dtype: jnp.dtype) -> Any:
    return jnp.asarray(x, dtype)


def _linear(
    label: str, weight: Array, bias: Array | None, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Any:
    """A Linear, or an Affine where there is a bias; axes in the order of the arrays."""
    if bias is None:
        parameter = _parameter(f"{label}.weights", weight, inputs + outputs)
        return pz.nn.Linear(parameter, inputs, outputs)
    linear = _linear(f"{label}/Linear", weight, None, inputs, outputs)
    parameter = _parameter(f"{label}/AddBias.bias", bias, outputs)
    return pz.nn.Affine([linear, pz.nn.AddBias(parameter, ())])


# --- parts: each a list, empty where the model lacks it ---------------------------------------


def _block(label: str, block: Block, heads: Heads) -> Any:
    attn_norm, mlp_norm = block.attn_norm, block.mlp_norm
    if block.parallel and mlp_norm is None:
        mlp_norm = attn_norm
    halves = [
        pz.nn.Sequential(
            _norm(f"{label}/pre_attention_norm", attn_norm, STREAM)
            + [_attention(f"{label}/attention", block.attn, heads)]
            + _norm(f"{label}/post_attention_norm", block.attn_post_norm, STREAM)
        )
    ]
    if block.mlp is not None:
        halves.append(
            pz.nn.Sequential(
                _norm(f"{label}/pre_ffw_norm", mlp_norm, STREAM)
                + [_mlp(f"{label}/mlp", block.mlp)]
                + _norm(f"{label}/post_ffw_norm", block.mlp_post_norm, STREAM)
            )
        )
    if block.parallel:
        both = pz.nn.BranchAndAddTogether([pz.nn.Identity(), *halves])
        return model_parts.TransformerBlock([both])
    return model_parts.TransformerBlock([pz.nn.Residual(half) for half in halves])


def _norm(label: str, norm: AbstractNorm | None, axes: tuple[str, ...]) -> list[Any]:
    if norm is None:
        return []
    if isinstance(norm, RMSNorm):
        weight, eps = norm.weight + norm.offset, _constant(norm.eps, norm.weight.dtype)
        standardised = pz.nn.RMSStandardize(axes, eps)
        return [pz.nn.RMSLayerNorm([standardised, _scale(label, weight, axes)])]
    if not isinstance(norm, LayerNorm):
        raise ValueError(f"penzai has no {type(norm).__name__}: convert a model without it")
    layers: list[Any] = [pz.nn.Standardize(axes, norm.eps), _scale(label, norm.weight, axes)]
    if norm.bias is not None:
        layers.append(pz.nn.AddBias(_parameter(f"{label}/shift.bias", norm.bias, axes), ()))
    return [pz.nn.LayerNorm(layers)]


def _scale(label: str, weight: Array, axes: tuple[str, ...]) -> Any:
    return pz.nn.Linear(_parameter(f"{label}/scale.weights", weight, axes), (), ())


def _attention(label: str, attn: Attention, heads: Heads) -> Any:
    rope = _rope(attn.rotary, attn.w_q.shape[-1])
    scale = pz.nn.ConstantRescale(_constant(attn.scale, attn.w_q.dtype))
    query = _heads_in(f"{label}/query", attn.w_q, attn.b_q, heads.all)
    key = _heads_in(f"{label}/key", attn.w_k, attn.b_k, heads.common)
    value = _heads_in(f"{label}/value", attn.w_v, attn.b_v, heads.common)
    q_norm = _norm(f"{label}/query_norm", attn.q_norm, ("projection",))
    k_norm = _norm(f"{label}/key_norm", attn.k_norm, ("projection",))
    return pz.nn.Attention(
        input_to_query=pz.nn.Sequential([query, *q_norm, *rope, scale]),
        input_to_key=pz.nn.Sequential([key, *k_norm, *rope]),
        input_to_value=pz.nn.Sequential([value]),
        query_key_to_attn=pz.nn.Sequential(_pattern(attn, heads)),
        attn_value_to_output=pz.nn.Sequential(_output(f"{label}/output", attn, heads)),
    )


def _heads_in(label: str, weight: Array, bias: Array | None, axes: dict[str, int]) -> Any:
    d_model, d_head, sizes = weight.shape[0], weight.shape[-1], tuple(axes.values())
    weight = weight.reshape(d_model, *sizes, d_head)
    bias = None if bias is None else bias.reshape(*sizes, d_head)
    return _linear(label, weight, bias, STREAM, (*axes, "projection"))


def _pattern(attn: Attention, heads: Heads) -> list[Any]:
    """From (queries, keys) to the pattern."""
    both, own = {axis: axis for axis in heads.common}, {axis: axis for axis in heads.query}
    query, key = {"seq": "dest"} | both | own, {"seq": "src"} | both
    inputs = (query | {"projection": "p"}, key | {"projection": "p"})
    layers: list[Any] = [pz.nn.NamedEinsum(inputs, query | {"kv_seq": "src"})]
    if attn.soft_cap is not None:
        layers.append(pz.nn.TanhSoftCap(_constant(attn.soft_cap, attn.w_q.dtype)))
    return [*layers, *_mask(attn), pz.nn.Softmax("kv_seq")]


def _mask(attn: Attention) -> list[Any]:
    hidden = jnp.finfo(attn.w_q.dtype).min
    window = EVERYTHING if attn.window is None else int(attn.window)
    if attn.causal and window < EVERYTHING:
        return [pz.nn.ApplyCausalSlidingWindowAttentionMask(hidden, window)]
    if window < EVERYTHING:
        raise ValueError("penzai has no window without causality: convert a causal model")
    return [pz.nn.ApplyCausalAttentionMask(hidden)] if attn.causal else []


def _output(label: str, attn: Attention, heads: Heads) -> list[Any]:
    """From (pattern, values) to what is added to the stream."""
    both, own = {axis: axis for axis in heads.common}, {axis: axis for axis in heads.query}
    query, p = {"seq": "dest"} | both | own, {"projection": "p"}
    inputs = (query | {"kv_seq": "src"}, {"seq": "src"} | both | p)
    weight = attn.w_o.reshape(*heads.all.values(), *attn.w_o.shape[1:])
    axes = (*heads.all, "projection")
    out = _linear(label, weight, attn.b_o, axes, STREAM)
    return [pz.nn.NamedEinsum(inputs, query | p), out]


def _rope(rotary: Rotary | None, d_head: int) -> list[Any]:
    if rotary is None:
        return []
    turning, base = 2 * rotary.inv_freq.shape[-1], _wavelength(rotary)
    if turning == d_head:
        return [pz.nn.ApplyRoPE("projection", base, "token_positions")]
    return [pz.nn.ApplyRoPEToSubset("projection", base, turning, "token_positions")]


def _wavelength(rotary: Rotary) -> float:
    """The base of inv_freq = base^(-2i / turning), or a `ValueError` where there is none."""
    if rotary.interleaved:
        raise ValueError("penzai rotates halves, not neighbours: convert a model in that layout")
    inv_freq = np.asarray(rotary.inv_freq, np.float64)
    turning = 2 * len(inv_freq)
    exponent = np.arange(0, turning, 2) / turning
    base = 10000.0 if turning == 2 else float(inv_freq[-1] ** (-1 / exponent[-1]))
    base = float(f"{base:.6g}")
    if not np.allclose(base**-exponent, inv_freq, rtol=1e-5, atol=0):
        raise ValueError("penzai has no rotary scaling: convert a model without it")
    return base


def _mlp(label: str, mlp: MLP) -> Any:
    activate = pz.nn.Elementwise(ACTIVATIONS[mlp.activation])
    names = ("in", "out") if mlp.w_gate is None else ("value_linear", "out_linear")
    up = _linear(f"{label}/{names[0]}", mlp.w_in, mlp.b_in, STREAM, HIDDEN)
    out = _linear(f"{label}/{names[1]}", mlp.w_out, mlp.b_out, HIDDEN, STREAM)
    if mlp.w_gate is None:
        return model_parts.TransformerFeedForward([up, activate, out])
    gate = _linear(f"{label}/gating_linear", mlp.w_gate, mlp.b_gate, STREAM, HIDDEN)
    gate = pz.nn.NamedGroup("gate", [gate, activate])
    both = pz.nn.BranchAndMultiplyTogether([gate, up])
    return model_parts.TransformerFeedForward([both, out])


def _unembedding(label: str, model: LM, table: Any) -> Any:
    if model.unembed is not None:
        return _linear(label, model.unembed, model.unembed_bias, STREAM, VOCAB)
    if model.unembed_bias is not None:
        return _linear(label, model.embed.T, model.unembed_bias, STREAM, VOCAB)
    return pz.nn.EmbeddingDecode(table)
