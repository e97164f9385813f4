r"""TopK by its active rows alone: only the encoder's product is dense.

Of k active features a token, decoding and all three gradients of weights touch k rows:
10 d F multiply-adds a token become 2 d F + O(k d) (Gao et al. 2024, arXiv 2406.04093, appendix D).
Every sum runs over the k slots, one gathered row a token at a time: on a CPU an eighth of the time
of gathering all k at once, and no [token k d] array. Imports nothing of the package.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Rows = Float[Array, "feature d"]
Codes = tuple[Float[Array, "token k"], Int[Array, "token k"]]
"""Active features of every token: activations, and which features."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def select(
    x: Float[Array, "token d"],
    centre: Float[Array, "d"],
    w_enc: Float[Array, "d feature"],
    bias: Float[Array, "feature"],
    k: int,
) -> Codes:
    """The k largest of relu((x - centre) @ w_enc + bias) and where they are."""
    values, at = lax.top_k((x - centre) @ w_enc + bias, k)
    return jax.nn.relu(values), at


def _select_fwd(x, centre, w_enc, bias, k: int):
    found: Codes = select(x, centre, w_enc, bias, k)
    values, at = found
    return (values, at), (x, centre, w_enc, values > 0, at)


def _select_bwd(k: int, kept, slopes):
    x, centre, w_enc, positive, at = kept
    slope, n = jnp.where(positive, slopes[0], 0), w_enc.shape[1]
    on_bias = jnp.zeros(n, slope.dtype).at[at].add(slope)
    on_x = weighted_rows(slope, at, w_enc.T)
    on_w = lax.optimization_barrier(added_rows(slope, at, x - centre, n).T)  # turned over once
    return on_x, -(w_enc @ on_bias), on_w, on_bias


select.defvjp(_select_fwd, _select_bwd)


@jax.custom_vjp
def decode(values: Float[Array, "token k"], at: Int[Array, "token k"], rows: Rows) -> Array:
    """The sum of each token's rows by its activations: Float[token d]."""
    return weighted_rows(values, at, rows)


def _decode_fwd(values, at, rows):
    return decode(values, at, rows), (values, at, rows)


def _decode_bwd(kept, slope):
    values, at, rows = kept
    return along_rows(slope, at, rows), None, added_rows(values, at, slope, len(rows))


decode.defvjp(_decode_fwd, _decode_bwd)


def weighted_rows(
    values: Float[Array, "token k"], at: Int[Array, "token k"], rows: Rows
) -> Float[Array, "token d"]:
    """sum_j values[:, j] rows[at[:, j]]."""

    def add(j, total):
        return total + _column(values, j)[:, None] * rows[_column(at, j)]

    zeros = jnp.zeros((len(values), rows.shape[1]), _wide(values))
    return lax.fori_loop(0, values.shape[1], add, zeros).astype(values.dtype)


def along_rows(
    x: Float[Array, "token d"], at: Int[Array, "token k"], rows: Rows
) -> Float[Array, "token k"]:
    """x . rows[at[:, j]] for every j."""
    return lax.map(lambda column: (x * rows[column]).sum(axis=-1), at.T).T


def added_rows(
    values: Float[Array, "token k"], at: Int[Array, "token k"], x: Float[Array, "token d"], n: int
) -> Float[Array, "n d"]:
    """values[:, j] x added to row at[:, j], for every j."""

    def add(j, total):
        return total.at[_column(at, j)].add(_column(values, j)[:, None] * x)

    zeros = jnp.zeros((n, x.shape[1]), _wide(values))
    return lax.fori_loop(0, values.shape[1], add, zeros).astype(values.dtype)


def _wide(values: Array) -> jnp.dtype:
    """Sums are taken in float32, or wider."""
    return jnp.promote_types(values.dtype, jnp.float32)


def _column(table: Array, j: Array) -> Array:
    return lax.dynamic_index_in_dim(table, j, 1, keepdims=False)
