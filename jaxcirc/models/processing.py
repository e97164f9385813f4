"""Processing: weights rewritten so that a model computes the same in tidier coordinates.

Published dictionaries were trained on the activations of processed weights, so the mode is chosen
by name, recorded in `model.config.processing`, and demanded where it matters
(`require_processing`). Log-probabilities never change. Against the raw model, activations do:

- "raw": nothing is done.
- "centred": what only the mean of the stream carried is dropped. `embed`, `resid_*`, `attn_out`,
  `head_out`, `mlp_out` and `final_resid` are the raw ones minus their mean over d_model; logits are
  the raw ones minus their mean over vocab. Every other site is unchanged.
- "tl": the defaults of TransformerLens 2 and earlier (`fold_layer_norm`, `center_writing_weights`,
  `center_unembed`, `fold_value_biases`). In addition to the above, norms have gain 1 and no bias,
  so `attn_normed` and `mlp_normed` are the raw ones before gain and bias; `v` and `z` lack the
  value bias, and with it `head_out`, while `attn_out`, which has it in its own bias, is unchanged.
  Centring is left out where a reader of the stream is not a LayerNorm, as TransformerLens does.

May import `nn` and `lm`.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..nn import MLP, AbstractNorm, Attention, Block, LayerNorm, RMSNorm
from .lm import LM, cast

MODES = ("raw", "centred", "tl")
"""What `process` can do to a model."""


def process(model: LM, mode: str) -> LM:
    """The raw model with its weights rewritten; a tied unembedding is untied first.

    - `mode`: "raw" (the model itself), "centred" (writing weights and unembedding centred) or "tl"
      (TransformerLens's defaults: norms folded, both centred, value biases folded).

    Sums are taken in float32 at least and rounded to the dtype of the weights. Raises `ValueError`
    for an unknown mode, a model that is processed already, or "centred" where a reader of the
    stream is not a LayerNorm, which alone removes the mean.

    >>> model = process(model, "tl")
    >>> model.config.processing
    'tl'
    """
    _check(model, mode)
    if mode == "raw":
        return model
    if mode == "centred" and not _removes_mean(model):
        raise ValueError(
            f"{model.config.name} reads its stream without LayerNorm, so its mean matters and"
            ' cannot be centred away: use process(model, "tl"), which folds the norms, or "raw"'
        )
    wide = _untied(model)
    if mode == "tl":
        wide = _fold_value_biases(_fold_norms(wide))
    if _removes_mean(model):
        wide = _centre_writes(wide)
    return _record(_centre_unembed(wide), model, mode)


def require_processing(model: LM, mode: str) -> LM:
    """The model itself if it was processed as demanded, else a `ValueError` with the call to make.

    >>> model = require_processing(process(model, "centred"), "centred")
    """
    if mode not in MODES:
        raise ValueError(f"unknown processing {mode!r}: use one of {', '.join(map(repr, MODES))}")
    done = model.config.processing
    if done == mode:
        return model
    raw = "model" if done == "raw" else f"load_model({model.config.name!r})[0]"
    call = raw if mode == "raw" else f'process({raw}, "{mode}")'
    raise ValueError(f"{mode!r} weights are needed and {model.config.name} is {done!r}: use {call}")


def _check(model: LM, mode: str) -> None:
    done = model.config.processing
    if mode not in MODES:
        raise ValueError(f"unknown processing {mode!r}: use one of {', '.join(map(repr, MODES))}")
    if done != "raw":
        raise ValueError(
            f"{model.config.name} is processed already ({done!r}): start from raw weights,"
            f' process(load_model({model.config.name!r})[0], "{mode}")'
        )


def _readers(model: LM) -> list[AbstractNorm | None]:
    """The norms (None: nothing) through which the stream is read."""
    block = model.blocks
    shared = block.mlp is None or (block.parallel and block.mlp_norm is None)
    return [block.attn_norm, *([] if shared else [block.mlp_norm]), model.final_norm]


def _removes_mean(model: LM) -> bool:
    """Whether a constant added to the stream changes nothing, and no post-norm puts it there."""
    posts = (model.blocks.attn_post_norm, model.blocks.mlp_post_norm)
    readers = _readers(model)
    return all(isinstance(norm, LayerNorm) for norm in readers) and posts == (None, None)


# --- sums, in float32 at least ----------------------------------------------------------------


def _wide(x: Array) -> Array:
    return x.astype(np.promote_types(x.dtype, np.float32))


def _centred(x: Array | None, axis: int) -> Array | None:
    if x is None:
        return None
    return _wide(x) - jnp.mean(_wide(x), axis=axis, keepdims=True)


def _added(bias: Array | None, extra: Array | None) -> Array | None:
    """bias + extra, where either may be absent."""
    if bias is None or extra is None:
        return bias if extra is None else extra
    return _wide(bias) + extra


def _replace(part: Any, **changes: Any) -> Any:
    return dataclasses.replace(part, **changes)


# --- the four steps ---------------------------------------------------------------------------


def _untied(model: LM) -> LM:
    return model if model.unembed is not None else _replace(model, unembed=model.embed.T)


def _fold_norms(model: LM) -> LM:
    """Gain and bias of every norm that reads the stream, moved into the weights that read it."""
    block = model.blocks
    attn_norm, mlp_norm = block.attn_norm, block.mlp_norm
    if block.parallel and mlp_norm is None:
        mlp_norm = attn_norm
    blocks = _replace(
        block,
        attn=_fold_into_attention(block.attn, attn_norm),
        mlp=None if block.mlp is None else _fold_into_mlp(block.mlp, mlp_norm),
        attn_norm=_unit(attn_norm),
        mlp_norm=_unit(block.mlp_norm),
    )
    return _fold_into_unembedding(_replace(model, blocks=blocks))


def _fold_into_unembedding(model: LM) -> LM:
    assert model.unembed is not None  # untied by then
    unembed, bias = _folded(model.final_norm, model.unembed, model.unembed_bias)
    final = _unit(model.final_norm)
    return _replace(model, final_norm=final, unembed=unembed, unembed_bias=bias)


def _fold_into_attention(attn: Attention, norm: AbstractNorm | None) -> Attention:
    changes = {}
    for name in "qkv":
        weight, bias = getattr(attn, f"w_{name}"), getattr(attn, f"b_{name}")
        changes[f"w_{name}"], changes[f"b_{name}"] = _folded(norm, weight, bias, layered=True)
    return _replace(attn, **changes)


def _fold_into_mlp(mlp: MLP, norm: AbstractNorm | None) -> MLP:
    w_in, b_in = _folded(norm, mlp.w_in, mlp.b_in, layered=True)
    if mlp.w_gate is None:
        return _replace(mlp, w_in=w_in, b_in=b_in)
    w_gate, b_gate = _folded(norm, mlp.w_gate, mlp.b_gate, layered=True)
    return _replace(mlp, w_in=w_in, b_in=b_in, w_gate=w_gate, b_gate=b_gate)


def _folded(
    norm: AbstractNorm | None, weight: Array, bias: Array | None, layered: bool = False
) -> tuple[Array, Array | None]:
    """(weight, bias) that read the norm's standardised input; the weight is centred over d_model
    where that input has no mean."""
    if norm is None:
        return weight, bias
    axis = 1 if layered else 0
    tail = math.prod(weight.shape[axis + 1 :])
    flat = _wide(weight).reshape(*weight.shape[: axis + 1], tail)
    if isinstance(norm, LayerNorm) and norm.bias is not None:
        extra = jnp.einsum("...d,...de->...e", _wide(norm.bias), flat)
        bias = _added(bias, extra.reshape(*weight.shape[:axis], *weight.shape[axis + 1 :]))
    flat = flat * _gain(norm)[..., None]
    if isinstance(norm, LayerNorm):
        flat = flat - jnp.mean(flat, axis=axis, keepdims=True)
    return flat.reshape(weight.shape), bias


def _gain(norm: AbstractNorm) -> Array:
    if isinstance(norm, RMSNorm):
        return _wide(norm.weight) + norm.offset
    return _wide(_known(norm).weight)


def _unit(norm: AbstractNorm | None) -> AbstractNorm | None:
    """The norm with gain 1 and no bias."""
    if norm is None:
        return None
    ones, eps = jnp.ones_like(_known(norm).weight), _known(norm).eps
    return RMSNorm(ones, eps) if isinstance(norm, RMSNorm) else LayerNorm(ones, None, eps)


def _known(norm: AbstractNorm) -> LayerNorm | RMSNorm:
    if isinstance(norm, LayerNorm | RMSNorm):
        return norm
    raise ValueError(f'{type(norm).__name__} cannot be folded: use process(model, "raw")')


def _fold_value_biases(model: LM) -> LM:
    """b_V through W_O into b_O: the pattern of a head sums to 1."""
    attn = model.blocks.attn
    if attn.b_v is None:
        return model
    group = attn.w_o.shape[1] // attn.b_v.shape[1]
    biases = jnp.repeat(_wide(attn.b_v), group, axis=1)
    extra = jnp.einsum("lhe,lhed->ld", biases, _wide(attn.w_o))
    attn = _replace(attn, b_v=None, b_o=_added(attn.b_o, extra))
    return _replace(model, blocks=_replace(model.blocks, attn=attn))


def _centre_writes(model: LM) -> LM:
    """Everything that is added to the stream, centred over d_model."""
    attn, mlp = model.blocks.attn, model.blocks.mlp
    attn = _replace(attn, w_o=_centred(attn.w_o, -1), b_o=_centred(attn.b_o, -1))
    if mlp is not None:
        mlp = _replace(mlp, w_out=_centred(mlp.w_out, -1), b_out=_centred(mlp.b_out, -1))
    blocks: Block = _replace(model.blocks, attn=attn, mlp=mlp)
    embeds = {name: _centred(getattr(model, name), -1) for name in ("embed", "pos_embed")}
    return _replace(model, blocks=blocks, **embeds)


def _centre_unembed(model: LM) -> LM:
    """Logits centred over vocab, unless a soft cap would see the difference."""
    if model.logit_soft_cap is not None:
        return model
    bias = _centred(model.unembed_bias, 0)
    return _replace(model, unembed=_centred(model.unembed, -1), unembed_bias=bias)


def _record(wide: LM, model: LM, mode: str) -> LM:
    """The mode noted down, and every weight back in the model's dtype."""
    return _replace(cast(wide, model.dtype), config=_replace(model.config, processing=mode))
