"""The same slopes by `jax.vjp` of the model's own run, with patterns and scales held by edits.

Each takes one node: what is added to the stream that it reads moves what it writes, and nothing
else. Holding a pattern at 1 leaves the map from any source to any destination. May import `taps`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..taps import Add, At, Node, Read, Set, Sites, Start, run
from ._point import Point

Vector = Float[Array, "d_model"]
Place = Int[Array, ""]


def final_slope(model, observable, norms: str, point: Point | None, end: int) -> Vector:
    """The slope of the observable in the final stream."""
    if norms == "direction":  # the observable acts before a soft cap
        model = dataclasses.replace(model, logit_soft_cap=None)
    resid, tokens = _stream(model, point, "final_resid", None)
    held = _held(model, "final_norm_scale", norms, resid, model.final_norm)
    return _final(model, observable, tokens, resid, held, jnp.asarray(end))


def head_slope(
    model, node: Node, source: int, dest: int, y: Vector, norms: str, point: Point | None
) -> Vector:
    """The slope of y . (what a head writes at `dest`) in the stream at `source`."""
    resid, tokens = _stream(model, point, "attn_in", node.layer)
    norm = _own(model.blocks.attn_norm, node.layer)
    held = _held(model, "attn_norm_scale", norms, resid, norm)
    if model.blocks.attn_post_norm is not None:
        held |= _post(model, "attn_post_scale", norms, point, node.layer, resid)
    layer = jnp.asarray([node.layer])
    places = [jnp.asarray(i) for i in (node.index, source, dest)]
    return _head(model, tokens, resid, held, layer, *places, y)


def mlp_slope(
    model, node: Node, pos: int, y: Vector, x: Vector, norms: str, point: Point | None
) -> Vector:
    """The slope of y . (what an MLP writes) in the stream, the MLP at x behind its norm."""
    resid, tokens = _stream(model, point, "mlp_in", node.layer)
    own = model.blocks.mlp_norm
    own = model.blocks.attn_norm if own is None and model.blocks.parallel else own
    norm = _own(own, node.layer)
    held = _held(model, "mlp_norm_scale", norms, resid, norm)
    if model.blocks.mlp_post_norm is not None and norms != "gradient":
        held |= _post(model, "mlp_post_scale", norms, point, node.layer, resid)
    layer = jnp.asarray([node.layer])
    normed = resid
    if norm is not None:
        normed = norm.apply(resid, held.get("mlp_norm_scale", norm.scale(resid)))
    return _mlp(model, tokens, resid, held, layer, jnp.asarray(pos), y, x - normed[0, pos])


def _own(norm, layer: int):
    return None if norm is None else jax.tree.map(lambda leaf: leaf[layer], norm)


def _stream(model, point: Point | None, site: str, layer: int | None) -> tuple[Array, Array]:
    """The stream that a node reads, [1 pos d_model], and tokens; any will do without a point."""
    if point is None:
        width = model.axis_size("d_model")
        return jnp.ones((1, 1, width), model.dtype), jnp.zeros((1, 1), int)
    stream = getattr(point.seen, site)
    return (stream if layer is None else stream[layer])[None], point.tokens[None]


def _held(model, site: str, norms: str, resid: Array, norm) -> dict[str, Array]:
    """A norm's scale as edits hold it: 1, as it is at the point, or free."""
    if norm is None or norms == "gradient":
        return {}
    scale = norm.scale(resid)
    return {site: jnp.ones_like(scale) if norms == "direction" else scale}


def _post(model, site: str, norms: str, point, layer: int, resid: Array) -> dict[str, Array]:
    ones = jnp.ones((*resid.shape[:2], 1), resid.dtype)
    if point is None or norms == "direction":
        return {site: ones}
    return {site: getattr(point.seen, site)[layer][None]}


def _edits(held: dict[str, Array], layer: Array) -> Sites:
    return Sites(**{site: At(layer, Set(scale[None])) for site, scale in held.items()})


def _at(resid: Array, pos: Place, step: Vector) -> Array:
    return jnp.zeros_like(resid).at[0, pos].set(step)


@partial(jax.jit, static_argnames=("observable",))
def _final(model, observable, tokens, resid, held, end: Place) -> Vector:
    scales = {site: Set(scale[:, end][:, None]) for site, scale in held.items()}
    start = Start(resid, jnp.asarray(model.n_layers))

    def value(step: Vector) -> Array:
        edits = Sites(final_resid=Add(_at(resid, end, step)), **scales)
        logits, _ = run(model, tokens, edits, start=start, logits_at=end)
        return observable(logits[0])

    return jax.grad(value)(jnp.zeros(resid.shape[-1], resid.dtype))


@jax.jit
def _head(model, tokens, resid, held, layer, head: Place, source: Place, dest: Place, y: Vector):
    def written(step: Vector) -> Vector:
        edits = _edits(held, layer) | Sites(
            attn_in=At(layer, Add(_at(resid, source, step)[None])),
            pattern=At(layer, Set(1.0)),
            head_out=At(layer, Read()),
        )
        start = Start(resid, layer[0])
        _, records = run(model, tokens, edits, start=start, layers=model.n_layers)
        return records.head_out[0, 0, dest, head]

    _, pull = jax.vjp(written, jnp.zeros_like(y))
    return pull(y)[0]


@jax.jit
def _mlp(model, tokens, resid, held, layer, pos: Place, y: Vector, away: Vector) -> Vector:
    def written(step: Vector) -> Vector:
        edits = _edits(held, layer) | Sites(
            mlp_in=At(layer, Add(_at(resid, pos, step)[None])),
            mlp_normed=At(layer, Add(_at(resid, pos, away)[None])),
            mlp_out=At(layer, Read()),
            attn_out=At(layer, Set(0.0)),
        )
        start = Start(resid, layer[0])
        _, records = run(model, tokens, edits, start=start, layers=model.n_layers)
        return records.mlp_out[0, 0, pos]

    _, pull = jax.vjp(written, jnp.zeros_like(y))
    return pull(y)[0]
