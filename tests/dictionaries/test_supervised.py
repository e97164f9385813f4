"""Codes from labels: the theorems of the document's appendix, in float64."""

import itertools

import jax
import numpy as np
import pytest

from jaxcirc.dictionaries import supervised
from jaxcirc.dictionaries.supervised import (
    crossed,
    decoded,
    explained,
    interactions,
    shuffled,
    simulates,
    split,
)

D = 6


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def balanced():
    """Every combination of three attributes twice, and activations that are no sum of codes."""
    rows = np.asarray(list(itertools.product(range(3), range(4), range(2))) * 2)
    labels = {name: rows[:, i] for i, name in enumerate("abc")}
    x = np.random.default_rng(0).normal(size=(len(rows), D))
    return x, labels


def skewed(n=90):
    rng = np.random.default_rng(1)
    a = rng.integers(0, 3, n)
    b = np.where(rng.random(n) < 0.7, a, rng.integers(0, 3, n))
    rows = rng.normal(size=(2, 3, D))
    x = rows[0][a] + rows[1][b] + 0.1 * rng.normal(size=(n, D))
    return x, {"a": a, "b": b}


def test_a_balanced_crossed_design_gives_equal_codes():
    x, labels = balanced()
    mean, least = (supervised(x, labels, method=m) for m in ("mean", "least_squares"))
    for name in labels:
        np.testing.assert_allclose(mean.codes[name], least.codes[name], atol=1e-12)
    np.testing.assert_allclose(mean.rebuilt(labels), least.rebuilt(labels), atol=1e-12)


def test_mean_codes_of_one_attribute_do_not_depend_on_the_others():
    x, labels = skewed()
    both, alone = (supervised(x, some, method="mean") for some in (labels, {"a": labels["a"]}))
    np.testing.assert_allclose(both.codes["a"], alone.codes["a"], atol=1e-12)


def test_what_is_not_linearly_decodable_has_mean_codes_of_zero_and_constant_fitted_ones():
    """Class means equal to the global mean: each value's rows are the others' reflections."""
    half = np.random.default_rng(2).normal(size=(20, D))
    x = np.concatenate([half, -half, 2 * half, -2 * half])
    labels = {"a": np.repeat([0, 0, 1, 1], 20)}
    for method in ("mean", "least_squares"):
        codes = supervised(x, labels, method=method).codes["a"]
        np.testing.assert_allclose(codes, 0, atol=1e-12)
    assert np.abs(x).max() > 1


def test_least_squares_codes_are_stationary_and_beat_mean_codes():
    x, labels = skewed()
    least, mean = (supervised(x, labels, method=m) for m in ("least_squares", "mean"))
    left = x - np.asarray(least.rebuilt(labels))
    for values in labels.values():
        for value in range(3):
            np.testing.assert_allclose(left[values == value].mean(axis=0), 0, atol=1e-12)
    assert explained(x, least.rebuilt(labels)) > explained(x, mean.rebuilt(labels)) + 0.05


def test_least_squares_does_not_count_twice_what_two_attributes_share():
    x, labels = skewed()
    twice = {"a": labels["a"], "again": labels["a"]}
    once = supervised(x, {"a": labels["a"]})
    for method, same in (("least_squares", True), ("mean", False)):
        found = supervised(x, twice, method=method).rebuilt(twice)
        assert np.allclose(found, once.rebuilt(labels), atol=1e-10) == same


def test_the_gauge_is_fixed_and_a_value_that_never_occurs_has_no_code():
    x, labels = skewed()
    found = supervised(x, labels, {"a": 5, "b": 3})
    counts = np.bincount(labels["a"], minlength=5)
    np.testing.assert_allclose(counts @ np.asarray(found.codes["a"]), 0, atol=1e-10)
    np.testing.assert_array_equal(found.codes["a"][3:], 0)


def test_predicting_the_mean_explains_exactly_nothing():
    x = np.random.default_rng(3).normal(size=(37, D)) + 5
    for dtype in (np.float32, np.float64):
        rows = x.astype(dtype)
        guess = np.broadcast_to(rows.astype(np.float64).mean(axis=0).astype(dtype), rows.shape)
        assert explained(rows, guess) == 0.0
    assert explained(x, x) == 1.0
    assert explained(x, 0 * x) < -1


def test_weights_add_up_to_one_and_edits_replace_one_code():
    x, labels = skewed()
    found = supervised(x, labels)
    np.testing.assert_allclose(found.weights(labels).sum(axis=1), 1, atol=1e-10)
    new = (labels["a"] + 1) % 3
    moved = np.asarray(found.edited(x, "a", labels["a"], new)) - x
    rows = np.asarray(found.codes["a"])
    np.testing.assert_allclose(moved, rows[new] - rows[labels["a"]], atol=1e-12)
    np.testing.assert_allclose(
        found.rebuilt(labels | {"a": new}), np.asarray(found.rebuilt(labels)) + moved, atol=1e-12
    )


def test_codes_read_their_attribute_back_and_shuffled_labels_explain_nothing_held_out():
    x, labels = skewed(300)
    first, last = np.arange(200), np.arange(200, 300)
    own = {name: values[first] for name, values in labels.items()}
    held = {name: values[last] for name, values in labels.items()}
    codes = supervised(x[first], own)
    assert (decoded(x[last], codes, "a", held) == held["a"]).mean() > 0.95
    assert explained(x[last], codes.rebuilt(held)) > 0.95
    by_chance = supervised(x[first], shuffled(own, np.random.default_rng(0)))
    assert explained(x[last], by_chance.rebuilt(held)) < 0.05


def test_a_coupled_parametrisation_simulates_the_independent_one():
    x, labels = balanced()
    codes = supervised(x, labels)
    truth = np.asarray(codes.rebuilt(labels))
    wide = crossed(labels, {"a": 3, "b": 4, "c": 2}, [("a", "c"), ("b", "c")])
    assert wide[1] == {"a,c": 6, "b,c": 8}
    coupled = supervised(truth, *wide)
    np.testing.assert_allclose(coupled.rebuilt(wide[0]), truth, atol=1e-10)
    np.testing.assert_allclose(simulates(coupled, codes, "a", "c"), 1, atol=1e-9)


def test_attention_scores_are_the_sum_of_their_terms():
    x, labels = skewed()
    keys = np.random.default_rng(4).normal(size=x.shape)
    q, k = (split(supervised(rows, labels), rows, labels) for rows in (x, keys))
    terms = np.asarray(interactions(q, k, 0.5))
    assert terms.shape == (len(x), 4, 4)
    np.testing.assert_allclose(terms.sum(axis=(1, 2)), 0.5 * (x * keys).sum(axis=1), atol=1e-10)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (({"a": np.zeros(3, int)},), "give a value for each of 4 rows"),
        (({"a": np.asarray([0, 1, 2, 5])}, {"a": 3}), "use 0..2"),
        (({}, {}), "no attribute"),
        (({"a": np.zeros(4, int)}, None, "median"), 'use "mean" or "least_squares"'),
    ],
)
def test_what_cannot_be_fitted_is_one_line(arguments, said):
    with pytest.raises(ValueError, match=said):
        supervised(np.zeros((4, 2)), *arguments)
