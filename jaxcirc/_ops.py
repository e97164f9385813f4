"""The one door to operations whose best form depends on where they run: kernels, or plain XLA.

Imports `jaxcirc_kernels` and nothing of jaxcirc.

A mesh is in use inside `with jax.set_mesh(mesh)`. The features of a dictionary are shared out among
the devices along its axis "dictionary", and tokens among those along "data": what needs all
features of a token must then not be written plainly, or XLA brings all of them together on every
device (537 MB where 4,096 tokens have 16,384 features).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxcirc_kernels import keep_largest
from jaxtyping import Array, Bool, Float, Int

DATA, DICTIONARY = "data", "dictionary"
"""The axes of a mesh."""


def axis_size(axis: str) -> int:
    """How many devices the mesh in use has along an axis; 0 without such an axis, and where each
    device works alone (inside `jax.shard_map`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return 0 if axis in mesh.manual_axes else dict(mesh.shape).get(axis, 0)


def is_sharded() -> bool:
    """Whether the mesh in use has an axis for features, be it of one device."""
    return axis_size(DICTIONARY) > 0


def keep(
    values: Float[Array, "*batch feature"],
    k: int,
    now: Int[Array, ""] | None = None,
    weights: Float[Array, "feature"] | None = None,
) -> Float[Array, "*batch feature"]:
    """Values that are not negative, all but the k largest of each row set to 0; of equals the first
    are kept. Slopes pass through what is kept.

    By a sort of each row, on a TPU by counting: a sort there takes several times the values' own
    memory and most of a step's time. On a mesh by a sort.

    - `now`: so many of the k (annealing). `weights`: values compete as value * weight.

    >>> keep(jnp.asarray([[3.0, 1.0, 2.0]]), 2)
    Array([[3., 0., 2.]], dtype=float32)
    """
    if not jax.sharding.get_abstract_mesh().empty:
        return _by_order(k, values, now, weights)
    forms = {"tpu": partial(_by_count, k), "default": partial(_by_order, k)}
    return lax.platform_dependent(values, now, weights, **forms)


def _by_count(k: int, values: Array, now: Array | None, weights: Array | None) -> Array:
    n = k if now is None else now
    if weights is None:
        return keep_largest(values, n)
    return jnp.where(keep_largest(lax.stop_gradient(values * weights), n) != 0, values, 0.0)


def _by_order(k: int, values: Array, now: Array | None, weights: Array | None) -> Array:
    rank = lax.stop_gradient(values if weights is None else values * weights)
    _, at = lax.top_k(rank, k)
    chosen = jnp.take_along_axis(values, at, axis=-1)
    if now is not None:
        chosen = jnp.where(jnp.arange(k) < now, chosen, 0.0)
    return jnp.put_along_axis(jnp.zeros_like(values), at, chosen, axis=-1, inplace=False)


def among_largest(
    values: Float[Array, "token feature"], k: int, now: Int[Array, ""] | None = None
) -> Bool[Array, "token feature"]:
    """Which of each row's values are among its k largest; of equals the first, as in `lax.top_k`.

    On a mesh every device takes the k largest of its own features and sends only those: k numbers a
    token, where the plain form moves all of them.

    - `now`: so many of the k (annealing).

    >>> among_largest(jnp.asarray([[3.0, 1.0, 2.0]]), 2)
    Array([[ True, False,  True]], dtype=bool)
    """
    now = jnp.asarray(k, jnp.int32) if now is None else now
    if not is_sharded():
        found, at = lax.top_k(values, k)
        return _down_to(values, found, at, jnp.broadcast_to(now, values.shape[:1]))
    rows = DATA if axis_size(DATA) and values.shape[0] % axis_size(DATA) == 0 else None
    spec = P(rows, DICTIONARY)

    def on_each(values: Array, now: Array) -> Array:
        found, at = lax.top_k(values, min(k, values.shape[-1]))
        return _down_to(values, found, at, _survivors(found, k, now))

    return jax.shard_map(on_each, in_specs=(spec, P()), out_specs=spec)(values, now)


def _survivors(
    own: Float[Array, "token candidate"], k: int, now: Int[Array, ""]
) -> Int[Array, "token"]:
    """How many of this device's candidates are among the largest of all devices'."""
    n = own.shape[-1]
    every = lax.all_gather(own, DICTIONARY, axis=-1, tiled=True)
    _, at = lax.top_k(every, k)
    mine = (at // n == lax.axis_index(DICTIONARY)) & (jnp.arange(k) < now)
    return mine.sum(axis=-1)


def _down_to(
    values: Float[Array, "token feature"],
    found: Float[Array, "token candidate"],
    at: Int[Array, "token candidate"],
    n: Int[Array, "token"],
) -> Bool[Array, "token feature"]:
    """The first n of the candidates as a mask: those larger than the last, and equals up to it."""
    last = jnp.maximum(n - 1, 0)[:, None]
    least, place = jnp.take_along_axis(found, last, -1), jnp.take_along_axis(at, last, -1)
    columns = lax.broadcasted_iota(at.dtype, values.shape, 1)
    kept = (values > least) | ((values == least) & (columns <= place))
    return kept & (n > 0)[:, None]
