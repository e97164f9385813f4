"""All heads at once: what every head of a model reads for an observable, by weights alone.

For x ~ N(0, I) a feature's squared length is E[(x . y)^2], so lengths rank heads without data
(Dunefsky & Cohan 2023, arXiv 2312.16291, section 2). One compiled call. May import `taps`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._feature import Feature
from ._linear import through_gain
from ._observable import Observable


def features(model, observable: Observable | Feature) -> Float[Array, "layer head d_model"]:
    """The feature of every head: `propagate(model, observable, "layer.head").vector`.

    - `observable`: or a feature, of which every head is then put in front; the layers from the
      feature's own on come out as zero.

    >>> features(model, pronoun).shape                                  # [layer head d_model]
    """
    with jax.default_matmul_precision("highest"):
        return _features(model, _end(model, observable))


def feature_norms(model, observable: Observable | Feature) -> Float[Array, "layer head"]:
    """The length of every head's feature, a ranking that needs no forward pass.

    Heads that share a value head share W_V, so their features are not independent evidence.

    >>> jnp.unravel_index(feature_norms(model, pronoun).argmax(), (30, 9))
    """
    with jax.default_matmul_precision("highest"):
        return _norms(model, _end(model, observable))


class _End(eqx.Module):
    """What heads write to: tokens of the logits with their weights, or a direction of the stream
    that is read behind layer `before`."""

    ids: Int[Array, "token"]
    weights: Float[Array, "token"]
    vector: Float[Array, "d_model"]
    before: Int[Array, ""]


def _end(model, observable: Observable | Feature) -> _End:
    width, dtype = model.axis_size("d_model"), model.dtype
    if isinstance(observable, Observable):
        observable.check(model.config.vocab)
        ids = jnp.asarray(observable.tokens, jnp.int32)
        weights = jnp.asarray(observable.weights, dtype)
        return _End(ids, weights, jnp.zeros(width, dtype), jnp.asarray(model.n_layers))
    if observable.norms != "direction":
        raise ValueError('heads are ranked without data: propagate(..., norms="direction")')
    layer = model.n_layers if observable.layer is None else observable.layer
    inside = observable.site == "mlp_in" and not model.blocks.parallel
    none = jnp.zeros(0, jnp.int32), jnp.zeros(0, dtype)
    return _End(*none, observable.vector, jnp.asarray(layer + inside))


@jax.jit
def _norms(model, end: _End) -> Float[Array, "layer head"]:
    return jnp.linalg.norm(_features(model, end), axis=-1)


@jax.jit
def _features(model, end: _End) -> Float[Array, "layer head d_model"]:
    """Two products a layer: W_O with the end, W_V with what that gives its heads, each read once
    and as it lies."""
    attn, blocks, y = model.blocks.attn, model.blocks, end.vector
    if end.ids.shape[0]:
        rows = model.embed[end.ids] if model.unembed is None else model.unembed[:, end.ids].T
        y = through_gain(model.final_norm, end.weights @ rows)
    n_layers, d_model, n_values, d_head = attn.w_v.shape
    n_heads = attn.w_o.shape[1]
    behind = jnp.broadcast_to(y, (n_layers, d_model))
    if blocks.attn_post_norm is not None:
        behind = jax.vmap(through_gain)(blocks.attn_post_norm, behind)
    flat = attn.w_o.reshape(n_layers, n_heads * d_head, d_model)
    slopes = jnp.einsum("lrd,ld->lr", flat, behind).reshape(n_layers, n_values, -1, d_head)
    found = jnp.einsum("ldke,lkge->lkgd", attn.w_v, slopes).reshape(n_layers, n_heads, d_model)
    if blocks.attn_norm is not None:
        found = jax.vmap(through_gain)(blocks.attn_norm, found)
    return jnp.where((jnp.arange(n_layers) < end.before)[:, None, None], found, 0.0)
