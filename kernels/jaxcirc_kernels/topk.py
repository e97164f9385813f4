r"""Keep the k largest positive values of every row and set all others to 0, without a sort.

The TopK activation of Gao et al. 2024 (arXiv 2406.04093, eq. 3), by the bisections of `_bisection`.
`keep_largest` is a Pallas kernel for TPUs: a tile of whole rows stays in vector memory through all
counts, so every value is read and written once. `keep_largest_reference` is the same function in
jax.numpy, for any backend: every count reads the array again. Compiled for a v5e, at 4,096 rows of
12,288 float32 (201 MB): temporaries of the kernel 0 MB, of the reference 202 MB, of a sort that
finds the 288 largest 403 MB; the kernel reads and writes 403 MB where the reference reads 31 times
201 MB. Imports `_bisection` and jax.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ._bisection import Test, bounds, chosen, counted_bits, ranks_of, values_of

LANES, SUBLANES, VECTOR = 128, 8, 1024
"""Of a TPU's registers: columns, rows and numbers of 32 bits in one."""

WIDEST = 131_072
"""Columns of which a tile still fits."""

TILE = 12 * 2**20
"""Bytes that a tile may take, unless its least height takes more."""

SPARE = 4 * 2**20
"""Bytes of vector memory left to the compiler beside a tile."""

HEIGHT, REGISTERS = 64, 16
"""Rows of a tile at most; registers that are counted at once."""


def keep_largest(values: Array, k: int | Array, *, interpret: bool = False) -> Array:
    """The values with all but the k largest positive ones of each row set to 0, by a TPU's kernel.

    As many as are positive are kept where that is fewer; of equals the first. NaN counts as the
    largest. Slopes pass through what is kept. Widths that the kernel does not take (no multiple of
    128, or above 131,072) and other types than float32 and bfloat16 go to the reference.

    - `values`: Float[*batch feature]. `k`: so many; a number, or Int[] where it varies at run time.
      `interpret`: run the kernel step by step, on any backend.

    >>> keep_largest(pre, 32)
    """
    if not _fits(values):
        return keep_largest_reference(values, k)
    return _keep(_interpreted if interpret else _compiled, values, jnp.asarray(k, np.int32))


def keep_largest_reference(values: Array, k: int | Array) -> Array:
    """`keep_largest` in jax.numpy.

    >>> keep_largest_reference(jnp.asarray([[3.0, -1.0, 2.0, 2.0]]), 2)
    Array([[3., 0., 2., 0.]], dtype=float32)
    """
    return _keep(_by_counts, values, jnp.asarray(k, np.int32))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _keep(how: Callable[[Array, Array], Array], values: Array, k: Array) -> Array:
    return how(values, k)


@_keep.defjvp
def _keep_jvp(how, primals, tangents):
    kept = _keep(how, *primals)
    return kept, jnp.where(kept != 0, tangents[0], 0)


def _by_counts(values: Array, k: Array) -> Array:
    ranks = ranks_of(values)
    columns = lax.broadcasted_iota(np.int32, values.shape, values.ndim - 1)

    def count(test: Test) -> Array:
        return test(ranks, columns).sum(axis=-1, keepdims=True, dtype=np.int32)

    zeros = jnp.zeros_like(ranks[..., :1])
    ends = bounds(count, k, zeros, values.dtype, values.shape[-1])
    return values_of(jnp.where(chosen(ranks, columns, *ends), ranks, 0), values.dtype)


# --- what surrounds the kernel ----------------------------------------------------------------


def _fits(values: Array) -> bool:
    width = values.shape[-1]
    known = values.dtype in (jnp.float32, jnp.bfloat16)
    return known and values.size > 0 and width % LANES == 0 and width <= WIDEST


def _compiled(values: Array, k: Array) -> Array:
    return _of_groups(False)(values.reshape(1, -1, values.shape[-1]), k[None]).reshape(values.shape)


def _interpreted(values: Array, k: Array) -> Array:
    return _of_groups(True)(values.reshape(1, -1, values.shape[-1]), k[None]).reshape(values.shape)


@cache
def _of_groups(interpret: bool) -> Callable[[Array, Array], Array]:
    """Of groups of rows with a k each; what is mapped over makes more groups."""

    @custom_vmap
    def of_groups(values: Array, k: Array) -> Array:
        return _tiles(values, k, interpret)

    @of_groups.def_vmap
    def _(size: int, mapped: list[bool], values: Array, k: Array) -> tuple[Array, bool]:
        values = values if mapped[0] else jnp.broadcast_to(values, (size, *values.shape))
        k = k if mapped[1] else jnp.broadcast_to(k, (size, *k.shape))
        found = of_groups(values.reshape(-1, *values.shape[2:]), k.reshape(-1))
        return found.reshape(values.shape), True

    return of_groups


def _tiles(values: Array, k: Array, interpret: bool) -> Array:
    """The kernel on every tile of Float[group row feature], with its group's k."""
    groups, rows, width = values.shape
    height, item = _height(rows, width, values.dtype), values.dtype.itemsize
    tile = pl.BlockSpec((None, height, width), lambda i, j: (i, j, 0))
    return pl.pallas_call(
        _tile,
        out_shape=jax.ShapeDtypeStruct(values.shape, values.dtype),
        grid=(groups, pl.cdiv(rows, height)),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), tile],
        out_specs=tile,
        scratch_shapes=[pltpu.VMEM((height, width), jnp.dtype(np.int32))],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"),
            vmem_limit_bytes=_bytes(height, width, item) + SPARE,
        ),
        cost_estimate=pl.CostEstimate(
            flops=3 * counted_bits(values.dtype)[1] * values.size,
            bytes_accessed=2 * values.size * item,
            transcendentals=0,
        ),
        interpret=interpret,
        name="keep_largest",
    )(k, values)


def _bytes(height: int, width: int, item: int) -> int:
    """Of a tile: ranks, and values going in and out, two of each so that copies overlap."""
    return height * width * (4 + 4 * item)


def _height(rows: int, width: int, dtype: jnp.dtype) -> int:
    """Rows of a tile: as many as its bytes allow, by whole registers."""
    item = dtype.itemsize
    least = SUBLANES * 4 // item
    most = min(HEIGHT, TILE // _bytes(1, width, item)) // least * least
    return min(rows, max(least, most))


def _chunk(height: int, width: int) -> int:
    """Columns that are counted at once: a part of the width, by whole registers."""
    most = max(1, REGISTERS * VECTOR // (max(height, SUBLANES) * LANES))
    blocks = width // LANES
    return LANES * max(d for d in range(1, min(most, blocks) + 1) if blocks % d == 0)


# --- the kernel -------------------------------------------------------------------------------


def _tile(k, values, kept, ranks):
    """One tile: its ranks are made once, counted often, and turned back into what is kept."""
    height, width = ranks.shape
    chunk = _chunk(height, width)
    within = lax.broadcasted_iota(np.int32, (height, chunk), 1)

    def each(body: Callable, start):
        def at(i: Array, carry):
            first = pl.multiple_of(i * np.int32(chunk), chunk)
            return body(pl.ds(first, chunk), first + within, carry)

        return lax.fori_loop(np.int32(0), np.int32(width // chunk), at, start)

    def fill(part, _, carry):
        ranks[:, part] = ranks_of(values[:, part])
        return carry

    def count(test: Test) -> Array:
        def add(part, columns: Array, total: Array) -> Array:
            return total + jnp.where(test(ranks[:, part], columns), np.float32(1), np.float32(0))

        total = each(add, jnp.zeros((height, chunk), jnp.float32))  # whole numbers below 2^24
        return total.sum(axis=1, keepdims=True).astype(np.int32)

    def write(part, columns: Array, carry):
        own = ranks[:, part]
        kept[:, part] = values_of(jnp.where(chosen(own, columns, *ends), own, 0), kept.dtype)
        return carry

    each(fill, np.int32(0))
    zeros = jnp.zeros((height, 1), np.int32)
    ends = bounds(count, k[pl.program_id(0)], zeros, kept.dtype, width)
    each(write, np.int32(0))
