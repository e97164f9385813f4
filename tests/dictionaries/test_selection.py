"""Which features are kept: exact counts, ties, thresholds; slopes that are defined, not derived."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import D, F, batch, coder, made, stage

from jaxcirc.dictionaries import L1, BatchTopK, Coder, JumpReLU, Matryoshka, TopK
from jaxcirc.dictionaries.batchtopk import (
    DECAY,
    at_least,
    kth_largest,
    no_threshold,
    of_batch,
)
from jaxcirc.dictionaries.jumprelu import jump, step
from jaxcirc.dictionaries.l1 import penalty
from jaxcirc.dictionaries.topk import largest

NUMBERS = {
    "normal": np.random.default_rng(0).normal(size=60) ** 2,
    "tied": np.random.default_rng(1).integers(0, 4, 60) * 0.7,
    "zeros": np.zeros(60),
    "huge and tiny": 10.0 ** np.random.default_rng(2).uniform(-38, 38, 60),
    "denormal": np.arange(60) * 1e-45,
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_the_kth_largest_is_that_of_a_sort(numbers, dtype):
    with jax.enable_x64(dtype == np.float64):
        values = jnp.asarray(numbers).astype(dtype).reshape(6, 10)
        found = jax.jit(jax.vmap(kth_largest, (None, 0)))(values, jnp.arange(1, 61))
        assert found.dtype == dtype
        expected = np.sort(np.asarray(values, np.float64).ravel())[::-1]
        np.testing.assert_array_equal(np.asarray(found, np.float64), expected)


def test_counts_beyond_an_int32_compare_rightly():
    rows = jnp.full(8192, 2**20)  # together 2^33
    assert at_least(rows, jnp.asarray(2**31 - 1)) and at_least(rows, jnp.asarray(5))
    for k in (1, 4095, 4096, 4097, 70_001):
        short, exact = jnp.asarray([k // 2, k - k // 2 - 1, 0]), jnp.asarray([k // 2, k - k // 2])
        assert at_least(exact, jnp.asarray(k)) and not at_least(short, jnp.asarray(k))


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("name", ["normal", "tied", "huge and tiny"])
def test_a_batch_keeps_exactly_n_k_and_of_equals_the_first(name, k):
    values = jnp.asarray(NUMBERS[name], jnp.float32).reshape(6, 10)
    kept, least = jax.jit(of_batch)(values, jnp.asarray(k))
    order = np.argsort(-np.asarray(values).ravel(), kind="stable")[: 6 * k]
    expected = np.zeros(60, np.float32)
    expected[order] = np.asarray(values).ravel()[order]
    np.testing.assert_array_equal(np.asarray(kept).ravel(), expected)
    assert (np.asarray(kept) > 0).sum() == min(6 * k, (np.asarray(values) > 0).sum())
    assert least == expected[expected > 0].min()


def test_a_batch_of_zeros_keeps_nothing_and_has_no_least():
    kept, least = of_batch(jnp.zeros((4, 5)), jnp.asarray(2))
    assert (kept == 0).all() and jnp.isnan(least)


def test_bfloat16_ties_do_not_add_features():
    values = jnp.abs(jax.random.normal(jax.random.key(0), (64, 128))).astype(jnp.bfloat16)
    kept, _ = of_batch(values, jnp.asarray(5))
    assert (kept > 0).sum() == 64 * 5


def test_the_threshold_is_the_mean_of_batch_minima_from_the_first_on():
    threshold, minima = no_threshold(), [0.5, 0.7, np.nan, 0.2]
    assert threshold.value == 0
    for i, least in enumerate(minima):
        threshold = threshold.updated(jnp.asarray(least, jnp.float32))
        counted = [m for m in minima[: i + 1] if not np.isnan(m)]
        weights = DECAY ** np.arange(len(counted))[::-1]
        np.testing.assert_allclose(threshold.value, np.average(counted, weights=weights), rtol=1e-5)


def test_the_last_hundred_batches_decide_the_threshold():
    """Minima rise from 0 to 1 over the first 200 of 300 batches, as they do while directions are
    learned, and stay: what is left of the rise in the mean is a tenth."""
    minima = jnp.minimum(jnp.arange(300) / 200, 1.0)
    end, _ = jax.lax.scan(lambda t, least: (t.updated(least), None), no_threshold(), minima)
    weights = DECAY ** np.arange(300)[::-1]
    assert weights[-100:].sum() / weights.sum() > 0.6
    assert 0.8 < end.value < 1


def test_at_its_threshold_batchtopk_keeps_about_k():
    dictionary, (x, y) = BatchTopK(coder(), 3), batch("batchtopk", n=200)
    _, seen = dictionary.loss(x, y, stage("batchtopk"))
    after = dictionary.settled(seen).encode(x)
    kept = dictionary.trained(x, stage("batchtopk"))
    np.testing.assert_allclose(after * (after > seen.least), kept * (kept > seen.least), rtol=1e-6)
    lost = (np.asarray(kept) > 0).sum() - (np.asarray(after) > 0).sum()
    assert lost in (0, 1)  # the least itself, which lies on the threshold


def test_matryoshka_of_one_width_is_batchtopk():
    one, plain = Matryoshka(coder(), 3, (F,)), BatchTopK(coder(), 3)
    (x, y), at = batch("batchtopk"), stage("batchtopk", dead=(1, 4))

    def grad(dictionary):
        return eqx.filter_grad(lambda d: d.loss(x, y, at), has_aux=True)(dictionary)

    (a, seen_a), (b, seen_b) = grad(one), grad(plain)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen_a.error, seen_b.error, rtol=1e-6)


@pytest.mark.parametrize("name", ["topk", "topk_by_length", "transcoder"])
def test_topk_keeps_at_most_k_of_every_token(name):
    codes = np.asarray(made(name).encode(batch(name, n=300)[0]))
    assert (codes > 0).sum(axis=1).max() == 3


def test_topk_comes_down_to_now_and_competes_by_weight():
    values = jnp.asarray([[5.0, 4.0, 3.0, 2.0], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(largest(values, 3, jnp.asarray(2)), [[5, 4, 0, 0], [1, 0, 0, 0]])
    weighed = largest(values, 1, weights=jnp.asarray([1.0, 1.0, 1.0, 9.0]))
    np.testing.assert_array_equal(weighed, [[0, 0, 0, 2], [1, 0, 0, 0]])


def test_dead_features_learn_from_the_auxiliary_loss_only_and_its_target_is_still():
    """All but two features dead, those two alone explaining x: no dead one is active."""
    (x, y), dead = batch("topk"), tuple(range(2, F))
    model = TopK(eqx.tree_at(lambda c: c.b_enc, coder(), coder().b_enc.at[:2].add(50.0)), 2)

    def slopes(dead):
        return eqx.filter_grad(lambda d: d.loss(x, y, stage("topk", dead=dead)), has_aux=True)(
            model
        )[0].coder

    alive, revived = slopes(()), slopes(dead)
    assert (np.asarray(alive.w_enc)[:, 2:] == 0).all() and (np.asarray(alive.w_dec)[2:] == 0).all()
    assert np.abs(revived.w_enc[:, 2:]).max() > 0 and np.abs(revived.w_dec[2:]).max() > 0
    # The living ones form the target, which is held still: AuxK moves them not at all.
    np.testing.assert_allclose(revived.w_enc[:, :2], alive.w_enc[:, :2], rtol=1e-6)
    np.testing.assert_allclose(revived.w_dec[:2], alive.w_dec[:2], rtol=1e-6)


def test_the_auxiliary_reconstruction_has_no_bias():
    """With nothing eligible, what is left is all the loss there is: no bias is added to it."""
    (x, y), at = batch("topk"), stage("topk", dead=(3,))
    shut = eqx.tree_at(lambda d: d.coder.b_enc, made("topk"), jnp.full(F, -100.0))
    _, seen = shut.loss(x, y, at)
    np.testing.assert_allclose(seen.auxiliary, seen.error, rtol=1e-6)


def test_the_gates_auxiliary_loss_leaves_the_decoder_untouched():
    dictionary, (x, y) = made("gated"), batch("gated")
    shut = eqx.tree_at(lambda d: d.b_mag, dictionary, jnp.full(F, -100.0))  # f = 0, gates open
    slope = eqx.filter_grad(lambda d: d.loss(x, y, stage("gated")), has_aux=True)(shut)[0]
    assert (np.asarray(slope.coder.w_dec) == 0).all()
    assert np.abs(slope.coder.b_enc).max() > 0


def test_jump_and_step_have_the_slopes_of_equations_11_and_12():
    """Points below, within and above a window 0.2 wide around a threshold of 1."""
    z, width, theta = jnp.asarray([0.5, 0.95, 1.05, 1.5]), 0.2, jnp.asarray(1.0)
    near = np.asarray([0, 1, 1, 0]) / width
    np.testing.assert_allclose(jump(z, theta, width), [0, 0, 1.05, 1.5])
    np.testing.assert_allclose(step(z, theta, width), [0, 0, 1, 1])
    for function, by_theta, by_z in (
        (jump, -1.0 * near, [0, 0, 1, 1]),
        (step, -near, [0, 0, 0, 0]),
    ):
        each = jax.vmap(jax.grad(partial(function, width=width), (0, 1)), (0, None))
        slope_z, slope_theta = each(z, theta)
        np.testing.assert_allclose(slope_z, by_z)
        np.testing.assert_allclose(slope_theta, by_theta, rtol=1e-6)
    wide = jax.grad(lambda t: jump(z, t, width).sum())(jnp.asarray(2.0))
    assert wide == 0  # no token is near


@pytest.mark.parametrize("penalty_of", ["l0", "quadratic"])
def test_jumprelus_penalty_moves_thresholds_through_tokens_on_both_sides(penalty_of):
    """One feature with a token just below its threshold, whose activation is 0: applied to the
    activation instead of the pre-activation, the step would not see it."""
    one = Coder(jnp.eye(2), jnp.zeros(2), jnp.eye(2), jnp.zeros(2), centred=False)
    dictionary = JumpReLU(one, jnp.asarray([1.0, 9.0]), penalty_of, target=0.25, width=0.2)
    x = jnp.asarray([[0.95, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    at = stage("jumprelu_l0")

    def asked(threshold):
        moved = eqx.tree_at(lambda d: d.threshold, dictionary, threshold)
        return moved.loss(x, x, at)[1].sparsity

    mean_l0 = 2 / 4
    by_count = 1.0 if penalty_of == "l0" else 2 * (mean_l0 / 0.25 - 1) / 0.25
    slope = jax.grad(asked)(dictionary.threshold)
    np.testing.assert_allclose(slope, [-2 * by_count / 0.2 / 4, 0], rtol=1e-6)
    # and the reconstruction's own part, eq. 11: -theta / epsilon * d loss / d f
    error = jax.grad(
        lambda t: eqx.tree_at(lambda d: d.threshold, dictionary, t).loss(x, x, at)[1].error
    )(dictionary.threshold)
    np.testing.assert_allclose(error, [-1.0 / 0.2 * (-2 * 0.95) / 4, 0], rtol=1e-6)


def test_jumprelus_thresholds_do_not_fall_below_0():
    dictionary = eqx.tree_at(lambda d: d.threshold, made("jumprelu_l0"), jnp.linspace(-1, 1, F))
    settled = dictionary.settled(dictionary.loss(*batch("l1"), stage("l1"))[1])
    np.testing.assert_array_equal(settled.threshold, np.maximum(np.linspace(-1, 1, F), 0))
    assert (np.asarray(settled.encode(batch("l1", n=100)[0])) >= 0).all()


def test_annealed_powers_keep_the_size_of_l1_and_end_in_it():
    weighted = jnp.asarray([[0.0, 0.5, 2.0], [1.5, 0.0, 0.0]])
    np.testing.assert_allclose(penalty(weighted, jnp.asarray(1.0)), 2.0)
    np.testing.assert_allclose(penalty(weighted, jnp.asarray(0.3)), 2.0, rtol=1e-6)
    plain = jax.grad(penalty)(weighted, jnp.asarray(1.0))
    np.testing.assert_allclose(
        plain, 0.5 * np.ones((2, 3))
    )  # as of a sum: 0 has slope 1, behind a ReLU
    slope = np.asarray(jax.grad(penalty)(weighted, jnp.asarray(0.5)))
    root = np.sqrt(np.asarray(weighted))
    ratio = 2.0 / root.sum(axis=1).mean()
    expected = np.where(root > 0, ratio * 0.5 / np.maximum(root, 1e-9), 0) / 2
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_l1_of_2024_does_not_gain_by_shrinking_features():
    """Activations halved and directions doubled: the same penalty; with unit directions the form
    of 2023 has no lengths to weigh by."""
    (x, y), at, small = batch("l1"), stage("l1"), coder()
    small = eqx.tree_at(
        lambda c: (c.w_enc, c.b_enc, c.w_dec),
        small,
        (small.w_enc / 2, small.b_enc / 2, small.w_dec * 2),
    )
    np.testing.assert_allclose(
        L1(small).loss(x, y, at)[0], L1(coder()).loss(x, y, at)[0], rtol=1e-5
    )
    unit = L1(coder(norm="unit"))
    _, seen = unit.loss(x, y, at)
    np.testing.assert_allclose(seen.sparsity, unit.encode(x).sum(axis=1).mean(), rtol=1e-5)
    assert D == unit.d_in
