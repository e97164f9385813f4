"""Laws of every architecture: shapes, sparsity, the papers' losses and slopes, units, splices."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import AUTOENCODERS, CASES, PAPERS, D, F, arrays, batch, made, stage

from jaxcirc.dictionaries import Coder, Matryoshka, TopK, Transcoder, init_coder
from jaxcirc.dictionaries.train._step import _cast
from jaxcirc.taps import Code, Read, Set, Splice

each = pytest.mark.parametrize("name", CASES)
SMOOTH = ("w_enc", "b_enc", "w_dec", "b_dec", "r_mag", "b_mag", "skip")
"""Parameters with a gradient in the ordinary sense."""


@eqx.filter_jit
def loss(dictionary, x, y, at):
    return dictionary.loss(x, y, at)


@each
def test_leading_axes_are_those_of_single_tokens(name):
    dictionary = made(name)
    x, y = batch(name, n=6)
    whole = dictionary.encode(x)
    boxed = dictionary.encode(x.reshape(2, 3, *x.shape[1:]))
    assert boxed.shape == (2, 3, F) and dictionary.decode(boxed).shape == (2, 3, *y.shape[1:])
    np.testing.assert_allclose(boxed.reshape(6, F), whole, rtol=1e-6)
    np.testing.assert_allclose(dictionary.encode(x[4]), whole[4], rtol=1e-5, atol=1e-6)
    assert whole.dtype == dictionary.decode(whole).dtype == jnp.float32
    assert (dictionary.d_in, dictionary.d_dict) == (D, F)
    assert dictionary.directions.shape == (F, *y.shape[1:])
    assert (np.asarray(whole) >= 0).all() and (np.asarray(whole) > 0).any()


@each
def test_directions_are_what_a_feature_adds(name):
    dictionary = made(name)
    nothing = dictionary.decode(jnp.zeros(F))
    for i in (0, F - 1):
        moved = dictionary.decode(jnp.zeros(F).at[i].set(2.0)) - nothing
        np.testing.assert_allclose(moved, 2 * dictionary.directions[i], rtol=1e-5, atol=1e-6)


@each
def test_bfloat16_computes_in_bfloat16_and_reports_in_float32(name):
    dictionary = made(name)
    x, y = (side.astype(jnp.bfloat16) for side in batch(name))
    params, static = eqx.partition(dictionary, eqx.is_inexact_array)

    def value(params):
        return eqx.combine(_cast(params, "bfloat16"), static).loss(x, y, stage(name))

    (found, seen), slope = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    assert found.dtype == seen.error.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(slope))
    exact, _ = loss(dictionary, *batch(name), stage(name))
    np.testing.assert_allclose(found, exact, rtol=0.05)
    names = {getattr(p[-2], "name", "") + "." + p[-1].name: leaf for p, leaf in _leaves(params)}
    assert all(leaf.dtype == jnp.float32 for key, leaf in names.items() if "threshold" in key)


def _leaves(params):
    return jax.tree_util.tree_leaves_with_path((_cast(params, "bfloat16"),))


REVIVING = ("topk", "batchtopk", "matryoshka", "transcoder", "crosscoder_topk")
"""Those with a second chance for dead features."""


@pytest.mark.parametrize(
    "name, dead", [(name, ()) for name in CASES] + [(name, (1, 4, 6)) for name in REVIVING]
)
def test_losses_and_gradients_are_those_of_the_paper(name, dead):
    with jax.enable_x64(True):
        dictionary, at = made(name, np.float64), stage(name, np.float64, dead)
        x, y = batch(name, np.float64)
        slope, _ = eqx.filter_jit(eqx.filter_grad(partial(_value, x=x, y=y, at=at), has_aux=True))(
            dictionary
        )
        value, seen = loss(dictionary, x, y, at)
        p, x, y, at = arrays(dictionary), np.asarray(x), np.asarray(y), arrays(at)
        np.testing.assert_allclose(value, PAPERS[name](p, p, x, y, at), rtol=1e-12)
        np.testing.assert_allclose(seen.l0, (np.asarray(seen.fired)).sum() / len(x), rtol=1e-12)
        slope = arrays(slope)
        for key in vars(p):
            if key in SMOOTH:
                numeric, way = _difference(name, p, key, x, y, at)
                np.testing.assert_allclose(
                    (getattr(slope, key) * way).sum(), numeric, rtol=1e-6, atol=1e-7
                )


def _value(dictionary, x, y, at):
    return dictionary.loss(x, y, at)


def _difference(name, p, key, x, y, at, h=1e-6):
    """The slope of the transcription along a random way in one parameter."""
    way = np.random.default_rng(len(key)).normal(size=getattr(p, key).shape)
    ends = []
    for sign in (1, -1):
        moved = type(p)(**(vars(p) | {key: getattr(p, key) + sign * h * way}))
        ends.append(PAPERS[name](moved, p, x, y, at))
    return (ends[0] - ends[1]) / (2 * h), way


@each
def test_scaled_is_the_same_function_in_other_units(name):
    dictionary = made(name)
    x, _ = batch(name)
    inputs, outputs = (0.25, 3.0) if "transcoder" in name else (0.25, 0.25)
    if "crosscoder" in name:
        inputs = outputs = jnp.asarray([0.25, 3.0])
    moved = dictionary.scaled(jnp.asarray(inputs), jnp.asarray(outputs))
    inputs, outputs = (np.broadcast_to(u, x.shape[1:-1])[..., None] for u in (inputs, outputs))
    np.testing.assert_allclose(moved.encode(x / inputs), dictionary.encode(x), rtol=1e-4, atol=1e-6)
    whole = dictionary.transcode if isinstance(dictionary, Transcoder) else _autoencoded(dictionary)
    again = moved.transcode if isinstance(moved, Transcoder) else _autoencoded(moved)
    np.testing.assert_allclose(again(x / inputs), whole(x) / outputs, rtol=1e-4, atol=1e-5)


def _autoencoded(dictionary):
    return lambda x: dictionary.decode(dictionary.encode(x))


@pytest.mark.parametrize("name", [*AUTOENCODERS, "crosscoder", "crosscoder_topk"])
def test_splice_is_the_identity_in_value_and_gradient(name):
    splice, (x, _) = Splice(made(name), Read()), batch(name)
    way = jnp.asarray(np.random.default_rng(0).normal(size=x.shape), x.dtype)
    value, slope = jax.value_and_grad(lambda x: (splice(x)[0] * way).sum())(x)
    np.testing.assert_array_equal(splice(x)[0], x)
    np.testing.assert_allclose(slope, way, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(value, (x * way).sum(), rtol=1e-6)
    dropped, _ = Splice(made(name), Set(Code(splice(x)[1].features, jnp.zeros_like(x))))(x)
    np.testing.assert_allclose(dropped, _autoencoded(made(name))(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["l1_unit", "gated", "l1", "topk"])
def test_unit_directions_lose_the_parallel_gradient_and_stay_unit(name):
    dictionary = made(name)
    x, y = batch(name)
    slope, seen = eqx.filter_grad(partial(_value, x=x, y=y, at=stage(name)), has_aux=True)(
        dictionary
    )
    before, after = slope.coder.w_dec, dictionary.tangent(slope).coder.w_dec
    if dictionary.coder.norm == "free":
        np.testing.assert_array_equal(after, before)
        return
    along = (np.asarray(after) * np.asarray(dictionary.coder.w_dec)).sum(axis=1)
    assert np.abs((np.asarray(before) * np.asarray(dictionary.coder.w_dec)).sum(axis=1)).max() > 0.1
    np.testing.assert_allclose(along, 0, atol=1e-5)
    np.testing.assert_array_equal(dictionary.tangent(slope).coder.w_enc, slope.coder.w_enc)
    moved = eqx.tree_at(lambda d: d.coder.w_dec, dictionary, dictionary.coder.w_dec - 0.3 * after)
    np.testing.assert_allclose(moved.settled(seen).coder.lengths, 1, rtol=1e-6)


def test_frozen_directions_take_no_gradient():
    coder = init_coder(jax.random.key(0), D, F, norm="unit", frozen=True)
    x, y = batch("topk")
    slope, _ = eqx.filter_grad(
        partial(_value, x=x, y=y, at=stage("topk", dead=(0, 1))), has_aux=True
    )(TopK(coder, 3))
    assert (np.asarray(slope.coder.w_dec) == 0).all() and np.abs(slope.coder.w_enc).max() > 0


def test_the_encoder_begins_as_the_transpose_where_widths_agree():
    coder = init_coder(jax.random.key(0), D, F, length=0.1)
    np.testing.assert_array_equal(coder.w_enc, coder.w_dec.T)
    np.testing.assert_allclose(coder.lengths, 0.1, rtol=1e-6)
    other = init_coder(jax.random.key(0), D, F, 3)
    assert other.w_enc.shape == (D, F) and other.w_dec.shape == (F, 3)


def test_wrong_shapes_are_one_line():
    coder = init_coder(jax.random.key(0), D, F)
    for wrong in (
        lambda: TopK(coder, 0),
        lambda: TopK(coder, F + 1),
        lambda: Matryoshka(coder, 2, (4, 3, F)),
        lambda: Matryoshka(coder, 2, (4,)),
        lambda: Transcoder(TopK(coder, 2)),
    ):
        with pytest.raises(ValueError) as caught:
            wrong()
        assert "\n" not in str(caught.value)
    assert isinstance(coder, Coder)
