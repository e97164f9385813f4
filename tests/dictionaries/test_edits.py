"""Edits by few features: against every set of moves, between their two programs, and by hand."""

import jax
import numpy as np
import pytest

from jaxcirc.dictionaries import (
    NONE,
    behaviour_edit,
    best_edit,
    greedy_edit,
    labelled_edit,
    removed_weight,
)
from jaxcirc.dictionaries import greedy as module


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def case(seed=0, batch=5, features=12, d=8, active=4):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(features, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codes = np.zeros((2, batch, features))
    for side in codes:
        for row in side:
            row[rng.choice(features, active, replace=False)] = rng.uniform(0.5, 2, active)
    x = codes @ rows + 0.1 * rng.normal(size=(2, batch, d))
    return rows, codes[0], codes[1], x[1] - x[0], x


def test_one_move_is_the_best_one_and_more_are_never_better_than_the_best_set():
    excess, start = [], []
    for seed in range(6):
        rows, source, target, gap, _ = case(seed)
        for k in (1, 2, 3):
            greedy, best = (f(rows, source, target, gap, k) for f in (greedy_edit, best_edit))
            assert (np.asarray(greedy.left) >= np.asarray(best.left) - 1e-10).all()
            if k == 1:
                np.testing.assert_allclose(greedy.left, best.left, atol=1e-10)
            excess.append((np.asarray(greedy.left) - np.asarray(best.left)).mean())
            start.append(np.square(gap).sum(axis=1).mean())
    assert max(excess) > 1e-6  # random directions interfere, and some greedy sets are beaten
    assert np.mean(excess) < 0.05 * np.mean(start)


def test_with_directions_at_right_angles_greedy_is_best():
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    _, source, target, _, _ = case(features=9)
    gap = (target - source) @ rows
    for k in (1, 2, 3):
        greedy, best = (f(rows, source, target, gap, k) for f in (greedy_edit, best_edit))
        np.testing.assert_allclose(greedy.left, best.left, atol=1e-10)


def test_sparse_and_dense_programs_make_the_same_moves(monkeypatch):
    rows, source, target, gap, _ = case(1, features=400, active=3)
    sparse = greedy_edit(rows, source, target, gap, 4)
    monkeypatch.setattr(module, "_packed", lambda *sides: None)
    dense = greedy_edit(rows, source, target, gap, 4)
    np.testing.assert_array_equal(sparse.chosen, dense.chosen)
    np.testing.assert_allclose(sparse.delta, dense.delta, atol=1e-12)
    traced = jax.jit(lambda *a: greedy_edit(*a, 4))(rows, source, target, gap)
    np.testing.assert_array_equal(traced.chosen, dense.chosen)


def test_moves_are_whole_swaps_and_distances_what_they_say():
    rows, source, target, gap, x = case(2)
    edit = greedy_edit(rows, source, target, gap, 3)
    chosen = np.asarray(edit.chosen)
    for b in range(len(gap)):
        at = chosen[b][chosen[b] != NONE]
        assert len(set(at)) == len(at)
        moved = (target - source)[b, at] @ rows[at]
        np.testing.assert_allclose(edit.delta[b], moved, atol=1e-12)
        np.testing.assert_allclose(edit.left[b], np.square(gap[b] - moved).sum(), atol=1e-12)


def test_nothing_is_moved_where_nothing_helps():
    rows, source, _, gap, _ = case(3)
    same = greedy_edit(rows, source, source, gap, 2)
    assert (np.asarray(same.chosen) == NONE).all()
    np.testing.assert_array_equal(same.delta, 0)
    away = greedy_edit(np.eye(2), np.zeros((1, 2)), -np.ones((1, 2)), np.ones((1, 2)), 2)
    np.testing.assert_allclose(away.left, 2)


def test_a_behaviour_that_is_linear_is_moved_by_the_largest_products():
    rows, source, target, gap, x = case(4)
    way = np.random.default_rng(5).normal(size=rows.shape[1])
    edit = behaviour_edit(rows, source, target, x[0], lambda a: -np.broadcast_to(way, a.shape), 2)
    pull = (target - source) * (rows @ way)
    for b, chosen in enumerate(np.asarray(edit.chosen)):
        want = [j for j in np.argsort(-pull[b])[:2] if pull[b, j] > 0]
        assert [j for j in chosen if j != NONE] == want


def test_labelled_edits_take_away_and_add_what_tells_the_values():
    rows = np.eye(4)
    source, target = np.asarray([[1.0, 2, 0, 0]]), np.asarray([[0.0, 3, 5, 0]])
    ranks = np.asarray([[3, 0, 1, 2], [3, 2, 1, 0]])
    old, new = np.asarray([0]), np.asarray([1])
    one = labelled_edit(rows, source, target, ranks, old, new, 1)
    np.testing.assert_array_equal(one.chosen, [[0, 2]])
    np.testing.assert_allclose(one.delta, [[-1, 0, 5, 0]])
    two = labelled_edit(rows, source, target, ranks, old, new, 2)
    np.testing.assert_allclose(two.delta, [[-1, 1, 5, 0]])
    np.testing.assert_allclose(removed_weight(rows, source, one), 1 / 5)


def test_weights_of_all_active_features_add_up_to_one():
    rows, source, target, gap, _ = case(6)
    everything = greedy_edit(rows, source, 0 * source, -source @ rows, 12)
    np.testing.assert_allclose(removed_weight(rows, source, everything), 1, atol=1e-10)
