"""`run`: the one pure function that every method of the library transforms.

A scan over layer *indices*, each layer's weights gathered as it comes (slicing the stack would copy
it). Edits whose structure differs between layers split the scan into segments. Knows nothing of
transformers: a model embeds, applies block `layer`, and unembeds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._types import Mask, Resid, Tokens
from ._edit import AbstractEdit, SlotRecord
from ._sites import OUTER, Sites, Taps


class Cache(eqx.Module):
    """Keys and values of positions before the first token of a call, for every layer.

    keys (after rotary) and values: Float[layer batch prefix kv_head d_head]; positions and mask
    (False: ignore): [batch prefix]. They are what `Read` records at `rot_k` and `v`.
    """

    keys: Float[Array, "layer batch prefix kv_head d_head"]
    values: Float[Array, "layer batch prefix kv_head d_head"]
    positions: Int[Array, "batch prefix"]
    mask: Bool[Array, "batch prefix"]


class Start(eqx.Module):
    """Resume at a layer, which may be traced, from a cached residual stream.

    resid: Float[batch pos d_model], the value of `resid_pre[layer]`. The layers below are skipped
    by a `lax.cond` in the same scan: differentiable, and as fast as a loop with a dynamic start
    (0.106 s against 0.112 s for half of SmolLM2). What is read there is zero. `layer` None starts
    at the first without asking, so that a backward pass need not compute blocks again.
    """

    resid: Resid
    layer: Int[Array, ""] | None = None


class Timeline(eqx.Module):
    """Where the tokens of a call stand: their positions, which are real, and the cache before
    them."""

    positions: Int[Array, "batch pos"]
    mask: Mask
    cache: Cache | None


@runtime_checkable
class Model(Protocol):
    """What `run` asks of a model."""

    @property
    def n_layers(self) -> int: ...
    def check(self, *asked: str) -> None: ...
    def embedding(self, tokens: Tokens, positions: Int[Array, "batch pos"], tap: Taps) -> Resid: ...
    def block(self, layer: Int[Array, ""], x: Resid, time: Timeline, tap: Taps) -> Resid: ...
    def unembedding(self, x: Resid, tap: Taps) -> Array: ...


class Carry(eqx.Module):
    """What flows from layer to layer: the stream, and the slot buffers of what `At` reads (the edge
    run, in `_edges`, carries the writes instead)."""

    resid: Resid
    slots: Any


def _all_but_weights(primitive, *_, **__) -> bool:
    """Keep everything a block computes; its weights are gathered again, not stacked up a second
    time."""
    return primitive not in (lax.dynamic_slice_p, lax.squeeze_p, lax.reshape_p)


REMAT = {
    "none": _all_but_weights,
    "block": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What a backward pass keeps of each block: everything, nothing, or matrix products."""


@partial(jax.jit, static_argnames=("layers", "remat"))
def run(
    model: Model,
    tokens: Tokens,
    edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
    *,
    mask: Mask | None = None,
    positions: Int[Array, "batch pos"] | None = None,
    logits_at: Int[Array, "*at"] | int | None = None,
    layers: int | None = None,
    start: Start | None = None,
    cache: Cache | None = None,
    remat: str = "none",
) -> tuple[Array | None, Sites]:
    """Run a model with activations rewritten and recorded on the way.

    Pure: `jax.jit`, `grad`, `vmap` and sharding apply. Arguments beyond the tokens are arrays, so
    one compiled program serves all their values.

    - `tokens`: Int[batch pos]. `edits`: a `Sites` table of edits; records come back in the same
      table.
    - `mask`: Bool[batch pos], False at padding on either side (default: all real).
    - `positions`: Int[batch pos] (default: counted along the mask, after the cache).
    - `logits_at`: score these columns only: an int, Int[batch] (logits [batch vocab]) or
      Int[batch n] ([batch n vocab]); default every position.
    - `layers`: stop after so many blocks; the logits are then None.
    - `start`: resume from a residual stream at a layer. `cache`: keys and values before the
      tokens.
    - `remat`: what a backward pass keeps of a block: "none" checkpointed, "block", or "dots"; from
      a traced start always "block".

    Returns (logits, records). Raises `ValueError` for a site the model lacks.

    >>> logits, records = run(model, tokens, Sites(z=Read()))
    >>> records.z.shape                                   # [layer batch pos head d_head]
    """
    model.check(*(site for site, _ in edits.items()))
    _check_arguments(model, edits, layers, start, remat)
    time = _timeline(tokens, mask, positions, cache)
    tap = Taps(edits)
    x = start.resid if start is not None else model.embedding(tokens, time.positions, tap)
    x, records = _stack(model, x, edits, time, start, layers, remat)
    if layers is not None:
        return None, eqx.combine(tap.records, records)
    x = tap("final_resid", x)
    logits = model.unembedding(x if logits_at is None else _columns(x, logits_at), tap)
    squeeze = logits_at is not None and jnp.ndim(logits_at) < 2
    return logits[:, 0] if squeeze else logits, eqx.combine(tap.records, records)


def _check_arguments(model: Model, edits: Sites, layers, start, remat: str) -> None:
    if layers is not None and not 0 <= layers <= model.n_layers:
        raise ValueError(
            f"layers={layers}: this model has {model.n_layers}; use layers=0..{model.n_layers}"
        )
    for site, edit in edits.items():
        if site not in OUTER:
            edit.check(model.n_layers)
    if start is not None and edits.embed is not None:
        raise ValueError("`embed` lies before `start`: edit resid_pre, or run without start=")
    if remat not in REMAT:
        raise ValueError(f"remat={remat!r}: use one of {', '.join(map(repr, REMAT))}")


def _timeline(tokens, mask, positions, cache: Cache | None) -> Timeline:
    mask = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if positions is None:
        before = 0 if cache is None else jnp.sum(cache.mask, axis=1, keepdims=True)
        positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0) + before
    return Timeline(jnp.broadcast_to(positions, tokens.shape), mask, cache)


def _columns(x: Resid, logits_at: Int[Array, "*at"] | int) -> Float[Array, "batch at d_model"]:
    at = jnp.asarray(logits_at)
    at = jnp.broadcast_to(at, (x.shape[0],)) if at.ndim == 0 else at
    at = (at[:, None] if at.ndim == 1 else at) % x.shape[1]
    return jnp.take_along_axis(x, at[:, :, None], axis=1)


def _stack(model, x, edits, time, start, layers, remat) -> tuple[Resid, Sites]:
    """All blocks, segment after segment, with the records joined along the layer axis."""
    stop = model.n_layers if layers is None else layers
    inner = Sites(**{site: edit for site, edit in edits.items() if site not in OUTER})
    parts = []
    for low, high in _segments(inner, stop):
        table = _each(inner, lambda _, edit, low=low: edit.segment(low))
        x, records = _scan(partial(_block, model, table, time, start, remat), x, low, high)
        parts.append((low, records))

    def join(site: str, edit: AbstractEdit) -> Any:
        return edit.join([(low, getattr(records, site)) for low, records in parts])

    return x, _each(inner, join) if parts else Sites()


def _segments(edits: Sites, stop: int) -> list[tuple[int, int]]:
    """Ranges of layers between which the structure of the edits changes."""
    alone = {layer for _, edit in edits.items() for layer in edit.alone()}
    cuts = {0, stop} | {cut for layer in alone for cut in (layer, layer + 1)}
    bounds = sorted(cut for cut in cuts if 0 <= cut <= stop)
    return list(zip(bounds, bounds[1:], strict=False))


def _each(edits: Sites, change: Callable[[str, AbstractEdit], Any]) -> Sites:
    return Sites(**{site: change(site, edit) for site, edit in edits.items()})


def _block(model, edits: Sites, time, start: Start | None, remat: str, x: Resid, layer):
    """One layer: the stream after it, and its records."""

    def live(x):
        tap = Taps(_each(edits, lambda _, edit: edit.at_layer(layer)))
        return model.block(layer, x, time, tap), tap.records

    def skip(x):
        return x, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(live, x)[1])

    # Inside a scan nothing can be merged across the barrier that prevent_cse would put up.
    if start is None or start.layer is None:
        return jax.checkpoint(live, policy=REMAT[remat], prevent_cse=False)(x)

    def either(x):
        return lax.cond(layer >= start.layer, live, skip, x)

    # What a cond keeps for its backward pass is stacked up by the scan, all the weights with it.
    return jax.checkpoint(either, policy=REMAT["block"], prevent_cse=False)(x)


def _scan(block: Callable, x: Resid, low: int, high: int) -> tuple[Resid, Sites]:
    _, shapes = jax.eval_shape(block, x, jnp.asarray(low))
    slots = jax.tree.map(_slot_buffer, shapes, is_leaf=_is_slot)

    def body(carry: Carry, layer):
        x, records = block(carry.resid, layer)
        slots = jax.tree.map(_fill, records, carry.slots, is_leaf=_is_slot)
        plain = jax.tree.map(_unless_slot, records, is_leaf=_is_slot)
        return Carry(x, slots), plain

    carry, stacked = lax.scan(body, Carry(x, slots), jnp.arange(low, high))
    return carry.resid, eqx.combine(carry.slots, stacked)


def _is_slot(record: Any) -> bool:
    return isinstance(record, SlotRecord)


def _unless_slot(record: Any) -> Any:
    return jax.tree.map(lambda _: None, record.value) if _is_slot(record) else record


def _slot_buffer(record: Any) -> Any:
    if not _is_slot(record):
        return None
    return jax.tree.map(lambda s: jnp.zeros((record.n_slots, *s.shape), s.dtype), record.value)


def _fill(record: Any, buffer: Any) -> Any:
    """The buffer with this layer's reading in its slot, if the layer was hit."""
    if not _is_slot(record):
        return None

    def put(value, buffer):
        old = lax.dynamic_index_in_dim(buffer, record.slot, 0, False)
        return lax.dynamic_update_index_in_dim(
            buffer, jnp.where(record.hit, value, old), record.slot, 0
        )

    return jax.tree.map(put, record.value, buffer)
