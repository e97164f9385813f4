"""Intervals: coverage, clusters, ratios, and the refusal to divide by nothing."""

import dataclasses

import numpy as np
import pytest

from jaxcirc.tasks import Interval, interval, interval_of, recovered, recovered_each


def test_a_constant_has_no_width():
    found = interval(np.full(6, 2.5), np.array([7, 7, 8, 8, 9, 9]))
    assert found == Interval(2.5, 2.5, 2.5, n=6, clusters=3)
    assert str(found) == "2.5 [2.5, 2.5]"
    assert Interval(**dataclasses.asdict(found)) == found


def test_one_example_has_no_interval():
    found = interval([2.5])
    assert found.value == 2.5 and np.isnan([found.low, found.high]).all()


def test_few_clusters_are_covered_too():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(300):
        found = interval(rng.normal(size=5), seed=seed)
        hits += found.low <= 0 <= found.high
    assert 0.87 <= hits / 300 <= 0.99


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=40)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)
    wide, narrow = interval(values, level=0.99), interval(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 5)
    hits = 0
    for seed in range(200):
        values = rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=200)
        found = interval(values, clusters, seed=seed)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_clusters_widen_the_interval():
    clusters = np.repeat(np.arange(10), 20)
    values = np.random.default_rng(1).normal(size=10)[clusters]
    alone, together = interval(values), interval(values, clusters)
    assert together.value == alone.value
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert (alone.clusters, together.clusters) == (200, 10)


def test_clusters_of_unequal_size_weigh_by_their_examples():
    clusters = np.array([0, 0, 0, 1])
    found = interval(np.array([1.0, 1, 1, 5]), clusters)
    assert (found.value, found.low, found.high) == (2, 1, 5)


def test_one_cluster_resamples_its_examples():
    values = np.random.default_rng(2).normal(size=30)
    one, each = interval(values, np.zeros(30)), interval(values)
    assert (one.low, one.high) == (each.low, each.high)
    assert one.clusters == 1


def test_recovered_is_a_ratio_of_means():
    base, target = np.array([0.0, 1.0, 2.0]), np.array([4.0, 5.0, 4.0])
    patched = np.array([1.0, 1.0, 4.0])
    assert recovered(patched, base, target).value == pytest.approx(0.3)
    assert recovered(base, base, target) == Interval(0.0, 0.0, 0.0, 3, 3)
    assert recovered(target, base, target) == Interval(1.0, 1.0, 1.0, 3, 3)


def test_the_ratio_has_the_interval_of_a_ratio():
    rng = np.random.default_rng(3)
    whole = rng.uniform(2, 6, size=60)
    found = recovered(0.7 * whole, np.zeros(60), whole, np.repeat(np.arange(12), 5))
    assert found.low == pytest.approx(0.7) and found.high == pytest.approx(0.7)


def test_recovered_refuses_a_denominator_near_zero():
    base = np.zeros(8)
    target = np.array([1.0, -1, 1, -1, 1, -1, 1, -0.5])
    with pytest.raises(ValueError, match="too near 0 to divide by: report the raw effects"):
        recovered(base, base, target)
    with pytest.raises(ValueError, match="target minus base is 0 "):
        recovered(base, base, base)
    assert recovered(base, base, np.full(8, 0.01)).value == 0


def test_the_refusal_counts_clusters_and_not_examples():
    base = np.zeros(40)
    clusters = np.repeat(np.arange(4), 10)
    target = np.array([3.0, -1.0, 1.5, -0.5])[clusters]
    recovered(base, base, target)
    with pytest.raises(ValueError, match="too near 0"):
        recovered(base, base, target, clusters)


def test_each_example_needs_a_tenth_of_a_logit():
    base = np.zeros(4)
    shares, left_out = recovered_each(np.full(4, 0.5), base, np.array([1.0, 0.1, -2.0, 0.05]))
    np.testing.assert_array_equal(shares, [0.5, np.nan, -0.25, np.nan])
    assert left_out == 2


@pytest.mark.parametrize(
    "values, clusters, message",
    [
        ([], None, r"no values: interval\(values\) needs at least one example"),
        ([[1.0]], None, "give one number for every example"),
        ([1.0, np.nan], None, "leave those examples out"),
        ([1.0, 2.0], [0], "give one id for each of 2 values"),
    ],
)
def test_errors(values, clusters, message):
    with pytest.raises(ValueError, match=message):
        interval(np.array(values), clusters)


def test_three_runs_of_different_sizes():
    with pytest.raises(ValueError, match=r"values have shapes \[\(3,\), \(3,\), \(2,\)\]"):
        recovered(np.ones(3), np.zeros(3), np.ones(2))


def test_any_statistic_of_a_mean_is_resampled_like_the_mean():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=40), rng.integers(0, 8, 40)
    mean = interval(values, clusters, n=300)
    found = interval_of(lambda m: m, [values], [clusters], n=300)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(mean))


def test_clusters_of_one_label_are_resampled_together():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=(30, 2, 3)), rng.integers(0, 6, 30)
    same = interval_of(lambda a, b: (a - b).max(), [values, values], [clusters, clusters])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    double = np.repeat(values, 2, axis=0), np.repeat(clusters, 2)
    twice = interval_of(
        lambda a, b: np.abs(a - b).max(), [values, double[0]], [clusters, double[1]]
    )
    assert twice.high < 1e-12 and twice.n == 30 and twice.clusters == 6


def test_resamplings_without_a_value_do_not_count():
    values, clusters = np.asarray([1.0, 2.0, 3.0]), np.arange(3)
    found = interval_of(lambda a, b: a / b, [values, values[:1]], [clusters, clusters[:1]])
    assert found.value == 2 and 1 <= found.low <= found.high <= 3
    alone = interval_of(lambda a: a, [values], [np.zeros(3, int)])
    assert alone.value == 2 and np.isnan(alone.low)
