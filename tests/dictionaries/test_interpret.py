"""What features mean: F1 by hand, its lift over a constant, unions, and shared predicates."""

import numpy as np
import pytest

from jaxcirc.dictionaries.interpret import (
    cover,
    jaccards,
    overlap_of,
    predicates_of,
    score,
    union,
    with_conjunctions,
)

LABELS = {"IO": np.asarray([0, 0, 1, 1, 2, 2]), "Pos": np.asarray([0, 1, 0, 1, 0, 1])}
SIZES = {"IO": 3, "Pos": 2}


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    held = predicates_of(LABELS, SIZES)
    active = np.asarray([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    found = score(active, held)
    i = found.names.index("IO=0")
    np.testing.assert_allclose(found.precision[i], [2 / 3, 2 / 5, 0], atol=1e-6)
    np.testing.assert_allclose(found.recall[i], [1, 1, 0])
    np.testing.assert_allclose(found.f1[i], [0.8, 4 / 7, 0], atol=1e-6)
    assert found.best()[0][0] == i
    np.testing.assert_array_equal(found.ranks(("IO=0",))[0], [0, 1, 2])


def test_an_always_active_feature_has_no_lift_though_its_f1_is_two_thirds_on_one_half():
    found = score(np.ones((6, 1), bool), predicates_of(LABELS, SIZES))
    i = found.names.index("Pos=0")
    assert found.f1[i, 0] == pytest.approx(2 / 3)
    np.testing.assert_allclose(found.lift, 0, atol=1e-6)
    perfect = score((LABELS["IO"] == 1)[:, None], predicates_of(LABELS, SIZES))
    assert perfect.lift[perfect.names.index("IO=1"), 0] == pytest.approx(1)


def test_conjunctions_hold_where_both_do():
    both = with_conjunctions(predicates_of(LABELS, SIZES), "IO", "Pos")
    np.testing.assert_array_equal(both["IO=2 and Pos=1"], [0, 0, 0, 0, 0, 1])
    assert len(both) == 3 + 2 + 6


def test_a_union_is_as_large_as_is_best_and_no_larger():
    holds = np.asarray([1, 1, 1, 1, 0, 0], bool)
    active = np.asarray([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], bool)
    found = union(active, holds, np.asarray([0, 1, 2]), 3)
    assert found.features == (0, 1) and found.f1 == 1.0
    assert union(active, holds, np.asarray([2, 0, 1]), 1).f1 == 0.0


def test_a_value_that_many_disjoint_features_share_is_covered_by_all_of_them():
    n, parts = 120, 12
    holds = np.arange(2 * n) < n
    split = np.zeros((2 * n, parts + 1), bool)
    for i in range(parts):
        split[i * 10 : (i + 1) * 10, i] = True
    split[:, parts] = True  # impure: active everywhere
    many = cover(split, holds)
    assert len(many.features) == 11 and many.share >= 0.9 and many.overlap == 0.0
    assert parts not in many.features
    one = cover(holds[:, None], holds)
    assert one.features == (0,) and one.share == 1.0
    assert cover(~holds[:, None], holds).features == ()


def test_overlaps_are_jaccard_indices():
    a = np.asarray([[1, 1], [1, 0], [0, 0]], bool)
    np.testing.assert_allclose(jaccards(a, a), [[1, 0.5], [0.5, 1]])
    assert overlap_of(a) == 0.5
