"""The k largest by counting: the kernel, its reference and a sort agree to the bit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxcirc_kernels import keep_largest, keep_largest_reference
from jaxcirc_kernels.topk import LANES, WIDEST, _bytes, _chunk, _height

from jaxcirc._ops import _by_count, _by_order, keep

ROWS, WIDTH = 9, 384
"""Of each kind of numbers; all together fill two tiles, the second cut off. Three parts of a
row."""

RNG = np.random.default_rng(0)
NUMBERS = {
    "normal": RNG.normal(size=(ROWS, WIDTH)),
    "tied": RNG.integers(-3, 4, (ROWS, WIDTH)) * 0.7,
    "all equal": np.full((ROWS, WIDTH), 2.5),
    "zeros": RNG.permuted(np.tile([[0.0, -0.0, 1.0]], (ROWS, 128)), axis=1),
    "negative": -1 - RNG.random((ROWS, WIDTH)),
    "huge and tiny": RNG.choice([-1, 1], (ROWS, WIDTH))
    * 10.0 ** RNG.uniform(-37, 38, (ROWS, WIDTH)),
    "one row tied": np.where(np.arange(ROWS)[:, None] == 6, 1.0, RNG.random((ROWS, WIDTH))),
    "infinite": np.where(RNG.random((ROWS, WIDTH)) < 0.02, np.inf, RNG.random((ROWS, WIDTH))),
}
TOGETHER = np.concatenate(list(NUMBERS.values()))

interpreted = jax.jit(partial(keep_largest, interpret=True))
reference = jax.jit(keep_largest_reference)


def by_sort(values: jax.Array, k: int) -> np.ndarray:
    """The k largest of a stable sort, as far as they are positive."""
    found = np.zeros_like(np.asarray(values, np.float64))
    order = np.argsort(-np.asarray(values, np.float64), axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(np.asarray(values, np.float64), order, 1)
    np.put_along_axis(found, order, np.maximum(best, 0), 1)
    return found


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernel_and_reference_keep_what_a_sort_keeps(dtype):
    values = jnp.asarray(TOGETHER).astype(dtype)
    for k in (0, 1, 200, WIDTH):
        expected = by_sort(values, k)
        for found in (interpreted(values, k), reference(values, k)):
            assert found.dtype == dtype
            np.testing.assert_array_equal(np.asarray(found, np.float64), expected)


def test_the_reference_takes_float64():
    with jax.enable_x64(True):
        values = jnp.asarray(TOGETHER)
        assert values.dtype == jnp.float64
        np.testing.assert_array_equal(reference(values, 9), by_sort(values, 9))


@pytest.mark.parametrize("form", [interpreted, reference])
def test_nan_shows(form):
    values = jnp.asarray(TOGETHER, jnp.float32)
    for nan in (np.nan, -np.nan):
        kept = np.asarray(form(values.at[3, 100].set(nan), 5))
        assert np.isnan(kept[3, 100]) and np.isnan(kept).sum() == 1
        assert (kept[3] != 0).sum() == 5  # NaN is one of them


def test_members_of_a_population_have_a_k_each():
    values = jnp.asarray(RNG.normal(size=(2, ROWS, WIDTH)), jnp.float32)
    k, kernel = jnp.asarray([2, 0, 40]), partial(keep_largest, interpret=True)
    every = jax.vmap(jax.vmap(kernel, (0, None)), (None, 0))
    expected = np.stack([[by_sort(one, int(n)) for one in values] for n in k])
    np.testing.assert_array_equal(jax.jit(every)(values, k), expected)


@pytest.mark.parametrize("form", [partial(keep_largest, interpret=True), keep_largest_reference])
def test_slopes_pass_through_what_is_kept(form):
    values = jnp.asarray(NUMBERS["tied"], jnp.float32)
    weights = jnp.asarray(RNG.normal(size=values.shape), jnp.float32)
    slope = jax.jit(jax.grad(lambda x: (form(x, 9) * weights).sum()))(values)
    np.testing.assert_array_equal(slope, np.where(by_sort(values, 9) > 0, weights, 0))


def kernels(function, *arguments) -> int:
    return str(jax.make_jaxpr(function)(*arguments)).count("pallas_call[")


def test_other_widths_and_types_go_to_the_reference():
    assert kernels(lambda x: keep_largest(x, 2), jnp.zeros((2, 3, 256))) == 1
    for shape in ((4, 200), (0, 256), (1, WIDEST + LANES)):
        assert kernels(lambda x: keep_largest(x, 2), jnp.zeros(shape)) == 0
    assert kernels(lambda x: keep_largest(x, 2), jnp.zeros((4, 256), jnp.float16)) == 0
    np.testing.assert_array_equal(keep_largest(jnp.asarray([3.0, -1.0, 2.0, 2.0]), 2), [3, 0, 2, 0])


@pytest.mark.parametrize("width", [128, 128 * 37, 18_432, WIDEST])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_tiles_fit_into_vector_memory(width, dtype):
    dtype = jnp.dtype(dtype)
    height = _height(4096, width, dtype)
    assert height % (32 // dtype.itemsize) == 0 and _height(5, width, dtype) == 5
    assert _bytes(height, width, dtype.itemsize) <= 26 * 2**20
    chunk = _chunk(height, width)
    assert width % chunk == 0 and chunk % LANES == 0
    assert height * chunk <= 16 * 1024 or chunk == LANES


@pytest.mark.parametrize("now, weighed", [(None, False), (3, True)])
def test_the_two_forms_of_keeping_have_equal_values_and_slopes(now, weighed):
    values = jax.nn.relu(jnp.asarray(NUMBERS["normal"][:5, :40], jnp.float32))
    weights = jnp.asarray(RNG.random(40) + 0.1, jnp.float32) if weighed else None
    now = None if now is None else jnp.asarray(now)

    def of(form):
        def total(values):
            kept = form(6, values, now, weights)
            return (kept**2).sum(), kept

        return jax.jit(jax.grad(total, has_aux=True))(values)

    for found, known in zip(of(_by_count), of(_by_order), strict=True):
        np.testing.assert_array_equal(found, known)


def test_the_kernel_is_for_tpus_only():
    values = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    asked = jax.jit(jax.grad(lambda x: keep(x, 8).sum())).trace(values)
    assert "tpu_custom_call" in asked.lower(lowering_platforms=("tpu",)).as_text()
    for platform in ("cpu", "cuda"):
        assert "tpu_custom_call" not in asked.lower(lowering_platforms=(platform,)).as_text()
