"""A penzai `TransformerLM` read into an `LM`, layer by layer; imported by `from_penzai`'s call.

May import `nn` and `lm`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from penzai import pz
from penzai.models.transformer import model_parts

from .._types import Bos
from ..nn import ACTIVATIONS, MLP, AbstractNorm, Attention, Block, LayerNorm, RMSNorm, Rotary
from ._penzai_layers import Layers, array, linear, number
from .lm import LM, Config, cast

LINEAR = (pz.nn.Linear, pz.nn.Affine)
NORMS = (pz.nn.RMSLayerNorm, pz.nn.LayerNorm)
ROPES = (pz.nn.ApplyRoPE, pz.nn.ApplyRoPEToSubset)
MASKS = (pz.nn.ApplyCausalAttentionMask, pz.nn.ApplyCausalSlidingWindowAttentionMask)
EVERYTHING = jnp.iinfo(jnp.int32).max
"""The window of a layer that has none."""


def read(model: Any, name: str, ctx: int, bos: Bos) -> LM:
    """The work of `from_penzai`."""
    if not isinstance(model, model_parts.TransformerLM):
        kind = type(model).__name__
        raise ValueError(f"{kind} is not a penzai TransformerLM: give the model itself, uncached")
    meta = model.metadata
    common, query = tuple(meta.common_head_axes), tuple(meta.query_only_head_axes)
    body = Layers(pz.freeze_params(model).body, "body")
    table = body.take(pz.nn.EmbeddingLookup).table.embeddings
    body.maybe(pz.nn.CastToDType)
    scale = body.maybe(pz.nn.ConstantRescale)
    blocks = _blocks(body, partial(_block, common=common, query=query))
    norm = body.maybe(*NORMS)
    unembed, bias = _unembedding(body.take(pz.nn.EmbeddingDecode, *LINEAR), table)
    cap = body.maybe(pz.nn.TanhSoftCap)
    body.end()
    heads = blocks.attn.w_q.shape[2], blocks.attn.w_k.shape[2], blocks.attn.w_q.shape[3]
    d_mlp = 0 if blocks.mlp is None else blocks.mlp.w_in.shape[-1]
    shape = (blocks.attn.w_q.shape[0], meta.embedding_dim, *heads, d_mlp, meta.vocab_size, ctx)
    lm = LM(
        array(table, "vocabulary", "embedding"),
        blocks,
        _norm(norm, "embedding"),
        Config(name, "penzai", *shape, bos=bos, source="penzai"),
        unembed=unembed,
        unembed_bias=bias,
        embed_scale=1.0 if scale is None else number(scale.by),
        logit_soft_cap=None if cap is None else number(cap.soft_cap),
    )
    return cast(lm, jnp.dtype(meta.activation_dtype))


# --- parts ------------------------------------------------------------------------------------


def _blocks(body: Layers, read_block: Callable[[Any], Block]) -> Block:
    """Every block, with a layer axis."""
    stack = body.maybe(pz.nn.LayerStack)
    if stack is not None:
        block = _unstacked(stack, read_block)
    else:
        first = read_block(body.take(model_parts.TransformerBlock))
        block = _stacked([first, *map(read_block, body.all(model_parts.TransformerBlock))])
    if jnp.all(block.attn.window == EVERYTHING):
        return pz.select(block).at(lambda b: b.attn.window).set(None)
    return block


def _unstacked(stack: Any, read_block: Callable[[Any], Block]) -> Block:
    """The block of a LayerStack, read with its layer axis in front."""
    arrays = pz.select(stack.stacked_sublayers).at_instances_of(pz.nx.NamedArray)
    arrays = arrays.where(lambda x: stack.stack_axis in x.named_shape)
    layers = [x.untag_prefix(stack.stack_axis) for x in arrays.get_sequence()]
    layers = [x.with_positional_prefix() for x in layers]
    return jax.vmap(lambda layer: read_block(arrays.set_sequence(layer)))(layers)


def _stacked(blocks: list[Block]) -> Block:
    if len({jax.tree.structure(block) for block in blocks}) > 1:
        raise ValueError("the blocks differ in more than weights: convert a model of one kind")
    return jax.tree.map(lambda *layers: jnp.stack(layers), *blocks)


def _block(layer: Any, common: tuple[str, ...], query: tuple[str, ...]) -> Block:
    parts = Layers(layer, "TransformerBlock")
    attend = partial(_attention, common=common, query=query)
    both = parts.maybe(pz.nn.BranchAndAddTogether)
    if both is not None:
        parts.end()
        return _parallel(Layers(both.branches, "BranchAndAddTogether"), attend)
    norm, attn, post = _half(parts.take(pz.nn.Residual).delta, pz.nn.Attention)
    second = parts.maybe(pz.nn.Residual)
    parts.end()
    block = Block(attend(attn), attn_norm=norm, attn_post_norm=post)
    if second is None:
        return block
    norm, mlp, post = _half(second.delta, model_parts.TransformerFeedForward)
    return Block(block.attn, _mlp(mlp), block.attn_norm, norm, block.attn_post_norm, post)


def _parallel(branches: Layers, attend: Any) -> Block:
    branches.take(pz.nn.Identity)
    attn_norm, attn, attn_post = _half(branches.take(pz.nn.Sequential), pz.nn.Attention)
    mlp_norm, mlp, mlp_post = _half(
        branches.take(pz.nn.Sequential), model_parts.TransformerFeedForward
    )
    branches.end()
    block = (attend(attn), _mlp(mlp), attn_norm, mlp_norm, attn_post, mlp_post)
    return Block(*block, parallel=True)


def _half(layers: Any, kind: type) -> tuple[AbstractNorm | None, Any, AbstractNorm | None]:
    """(norm, layer of the kind, post-norm) of one half of a block."""
    parts = Layers(layers, "half a block")
    norm, layer, post = parts.maybe(*NORMS), parts.take(kind), parts.maybe(*NORMS)
    parts.end()
    return _norm(norm, "embedding"), layer, _norm(post, "embedding")


def _norm(layer: Any, axis: str) -> AbstractNorm | None:
    if layer is None:
        return None
    parts = Layers(layer, type(layer).__name__)
    eps = number(parts.take(pz.nn.Standardize, pz.nn.RMSStandardize).epsilon)
    weight = array(parts.take(pz.nn.Linear).weights, axis)
    bias = parts.maybe(pz.nn.AddBias)
    parts.end()
    if isinstance(layer, pz.nn.RMSLayerNorm):
        return RMSNorm(weight, eps)
    return LayerNorm(weight, None if bias is None else array(bias.bias, axis), eps)


def _attention(layer: Any, common: tuple[str, ...], query: tuple[str, ...]) -> Attention:
    q, k = Layers(layer.input_to_query, "query"), Layers(layer.input_to_key, "key")
    v, out = Layers(layer.input_to_value, "value"), Layers(layer.attn_value_to_output, "output")
    scores = Layers(layer.query_key_to_attn, "scores")
    w_q, b_q = _heads(q.take(*LINEAR), common + query)
    w_k, b_k = _heads(k.take(*LINEAR), common)
    w_v, b_v = _heads(v.take(*LINEAR), common)
    out.take(pz.nn.NamedEinsum)
    inputs = (*common, *query, "projection")
    w_o, b_o = linear(out.take(*LINEAR), inputs, ("embedding",))
    q_norm, k_norm = (_norm(part.maybe(*NORMS), "projection") for part in (q, k))
    ropes = q.maybe(*ROPES), k.maybe(*ROPES)
    if ropes[0] != ropes[1]:
        raise ValueError("query and key are rotated differently: give both the same ApplyRoPE")
    scale = q.maybe(pz.nn.ConstantRescale)
    scores.take(pz.nn.NamedEinsum)
    cap, mask = scores.maybe(pz.nn.TanhSoftCap), scores.maybe(*MASKS)
    scores.take(pz.nn.Softmax)
    for part in (q, k, v, out, scores):
        part.end()
    return Attention(
        w_q,
        w_k,
        w_v,
        w_o.reshape(w_q.shape[1], w_q.shape[2], -1),
        b_q,
        b_k,
        b_v,
        b_o,
        q_norm,
        k_norm,
        _rotary(ropes[0], w_q.shape[2]),
        window=jnp.asarray(getattr(mask, "sliding_window_size", EVERYTHING), jnp.int32),
        scale=1.0 if scale is None else number(scale.by),
        soft_cap=None if cap is None else number(cap.soft_cap),
        causal=mask is not None,
    )


def _heads(layer: Any, axes: tuple[str, ...]) -> tuple[Array, Array | None]:
    """(weight [d_model head d_head], bias [head d_head] or None), head axes made one."""
    weight, bias = linear(layer, ("embedding",), (*axes, "projection"))
    d_model, d_head = weight.shape[0], weight.shape[-1]
    bias = None if bias is None else bias.reshape(-1, d_head)
    return weight.reshape(d_model, -1, d_head), bias


def _rotary(layer: Any, d_head: int) -> Rotary | None:
    if layer is None:
        return None
    turning = getattr(layer, "rope_subset_size", d_head)
    inv_freq = float(layer.max_wavelength) ** -(np.arange(0, turning, 2) / turning)
    return Rotary(jnp.asarray(inv_freq, jnp.float32))


def _mlp(layer: Any) -> MLP:
    parts, up, down = Layers(layer, "MLP"), ("embedding",), ("neurons",)
    both = parts.maybe(pz.nn.BranchAndMultiplyTogether)
    w_gate = b_gate = None
    if both is None:
        w_in, b_in = linear(parts.take(*LINEAR), up, down)
        activation = _activation(parts.take(pz.nn.Elementwise))
    else:
        branches = Layers(both.branches, "gated MLP")
        gate = Layers(branches.take(pz.nn.NamedGroup), "gate")
        w_gate, b_gate = linear(gate.take(*LINEAR), up, down)
        activation = _activation(gate.take(pz.nn.Elementwise))
        w_in, b_in = linear(branches.take(*LINEAR), up, down)
        gate.end()
        branches.end()
    w_out, b_out = linear(parts.take(*LINEAR), down, up)
    parts.end()
    return MLP(w_in, w_out, w_gate, b_in, b_gate, b_out, activation=activation)


def _activation(layer: Any) -> str:
    """Our name of a function."""

    def call(f: Any) -> tuple[Any, dict[str, Any]]:
        f = partial(jax.nn.gelu, approximate=True) if f is jax.nn.gelu else f
        return (f.func, f.keywords) if isinstance(f, partial) else (f, {})

    for name, f in ACTIVATIONS.items():
        if call(f) == call(layer.fn):
            return name
    known = ", ".join(ACTIVATIONS)
    raise ValueError(f"activation {layer.fn} is not known: use one of {known} (jax.nn's)")


def _unembedding(layer: Any, table: Any) -> tuple[Array | None, Array | None]:
    """(unembed, bias); None where the embedding serves for both."""
    if not isinstance(layer, pz.nn.EmbeddingDecode):
        return linear(layer, ("embedding",), ("vocabulary",))
    own: Any = layer.table.embeddings
    if own.label == table.label:
        return None, None
    return array(own, "embedding", "vocabulary"), None
