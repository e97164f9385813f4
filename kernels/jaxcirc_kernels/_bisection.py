r"""Which numbers of a row are its k largest, found by counting instead of sorting.

Positive floats order as the integers that their bits spell, their ranks. The rank of the k-th
largest is the greatest number that at least k ranks reach: found bit by bit from the top, one count
for each (31; 15 in bfloat16). Equals at the cut are kept from the left, as `lax.top_k` takes them:
up to the last column before which there are few enough, found in the same way. Who calls says how
to count, over a whole array or over a tile that lies in fast memory. Imports jax only.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Test = Callable[[Array, Array], Array]
"""Of ranks and of the columns that they stand in: which of them are meant."""

Count = Callable[[Test], Array]
"""How many of each row are meant: Int[row 1]."""


def ranks_of(values: Array) -> Array:
    """The bits of positive values as integers, 0 for all others; NaN above infinity."""
    double = values.dtype == jnp.float64
    kind, whole = (np.float64, np.int64) if double else (np.float32, np.int32)
    nan = np.asarray(np.nan, kind).view(whole) & np.iinfo(whole).max
    wide = values.astype(kind)
    bits = jnp.maximum(lax.bitcast_convert_type(wide, whole), whole(0))
    return jnp.where(wide != wide, whole(nan), bits)


def values_of(ranks: Array, dtype: jnp.dtype) -> Array:
    """The values that have these ranks."""
    kind = np.float64 if ranks.dtype == np.int64 else np.float32
    return lax.bitcast_convert_type(ranks, kind).astype(dtype)


def counted_bits(dtype: jnp.dtype) -> tuple[int, int]:
    """Of ranks: how many bits there are, and how many of them, from the top, may differ from 0."""
    whole = 63 if dtype == jnp.float64 else 31
    return whole, 15 if dtype == jnp.bfloat16 else whole


def bounds(
    count: Count, k: Array, zeros: Array, dtype: jnp.dtype, width: int
) -> tuple[Array, Array]:
    """The k-th largest rank of every row, and the column before which its equals are kept.

    - `zeros`: of the ranks' type, Int[row 1]. `dtype`: of the values. `width`: columns.
    """
    whole, used = counted_bits(dtype)
    cut = _greatest(lambda rank: count(lambda own, _: own >= rank) >= k, zeros, whole, used)
    above = count(lambda own, _: own > cut)
    tied = (cut > 0) & (count(lambda own, _: own >= cut) > k)

    def few(column: Array) -> Array:
        return above + count(lambda own, at: (own == cut) & (at < column)) <= k

    bits = width.bit_length()
    any_tied = jnp.where(tied, np.float32(1), np.float32(0)).sum() > 0
    steps = jnp.where(any_tied, np.int32(bits), np.int32(0))
    end = _greatest(few, jnp.zeros(zeros.shape, np.int32), bits, steps)
    return cut, jnp.where(tied, end, np.int32(width))


def chosen(ranks: Array, columns: Array, cut: Array, end: Array) -> Array:
    """Which ranks lie within the bounds."""
    return (ranks > cut) | ((ranks == cut) & (columns < end))


def _greatest(
    holds: Callable[[Array], Array], zeros: Array, bits: int, steps: int | Array
) -> Array:
    """The greatest number of so many bits, the first `steps` of them from the top free, for which
    something holds that holds for all smaller ones."""
    kind = zeros.dtype.type

    def set_bit(i: Array, found: Array) -> Array:
        more = found | (kind(1) << (np.int32(bits - 1) - i).astype(kind))
        return jnp.where(holds(more), more, found)

    return lax.fori_loop(np.int32(0), jnp.asarray(steps, np.int32), set_bit, zeros)
