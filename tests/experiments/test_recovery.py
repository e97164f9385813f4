"""Recovery of known dictionaries: the worlds, the scores by hand, and that training finds atoms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc import experiments, load_result, viz
from jaxcirc.cli._recovery import Recovery
from jaxcirc.experiments._matching import match, support_f1
from jaxcirc.experiments._synthetic import Made, flat_world, tree_world
from jaxcirc.experiments.recovery import _dictionaries, _score

TINY = dataclasses.replace(
    experiments.SCALES["quick"], d=12, atoms=16, active=2, tokens=40_000, batch=256
)


@pytest.fixture(scope="module")
def found():
    return experiments.study_recovery(scale=TINY, architectures=("topk",), seeds=2)


def test_a_flat_world_is_as_sparse_as_asked():
    world = flat_world(jax.random.key(0), 64, 256, 5)
    x, codes = world.draw(jax.random.key(1), 2000)
    np.testing.assert_allclose((codes > 0).sum(axis=1).mean(), 5, atol=0.2)
    np.testing.assert_allclose(jnp.linalg.norm(world.atoms, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(x, codes @ world.atoms, atol=1e-4)
    sizes = codes[codes > 0]
    assert sizes.min() >= 0.5 and sizes.max() <= 1.5


def test_in_a_tree_children_need_their_parents_and_frequencies_are_zipfs():
    world = tree_world(jax.random.key(0), 64, 256, 5)
    _, codes = world.draw(jax.random.key(1), 2000)
    active = np.asarray(codes > 0)
    np.testing.assert_allclose(active.sum(axis=1).mean(), 5, atol=0.2)
    np.testing.assert_allclose(world.frequencies.sum(), 5, rtol=1e-4)
    np.testing.assert_allclose(active.mean(axis=0), world.frequencies, atol=0.06)
    parents, children = active[:, :32], active[:, 32:]
    assert not (children & ~parents[:, np.asarray(world.parents)]).any()
    rates = np.asarray(world.rates[:32])
    free = rates < 0.9
    np.testing.assert_allclose((rates * np.arange(1, 33))[free], rates[31] * 32, rtol=1e-5)
    with pytest.raises(ValueError, match="fewer than 50 active"):
        tree_world(jax.random.key(0), 8, 16, 50)


def test_a_source_gives_other_tokens_every_time_and_the_same_again():
    worlds = {"flat": flat_world(jax.random.key(0), 8, 16, 2)}
    source = Made(worlds, 32, jax.random.key(1))
    first, second = (source.batch()["flat"][0] for _ in range(2))
    assert np.abs(first - second).max() > 0.1
    again = Made(worlds, 32, jax.random.key(1))
    again.restore({"used": np.asarray(1)})
    np.testing.assert_array_equal(again.batch()["flat"][0], second)


def test_matching_is_the_best_one_whatever_order_sign_and_length():
    rng = np.random.default_rng(0)
    atoms, order = rng.normal(size=(6, 4)), rng.permutation(6)
    matched, cosine = match(atoms, -3 * atoms[order])
    np.testing.assert_array_equal(order[matched], np.arange(6))
    np.testing.assert_allclose(cosine, 1)
    # Both atoms are nearest to feature 0; one to one, the sum counts.
    matched, cosine = match(np.eye(2), np.asarray([[1.0, 0.9], [0.1, 1.0]]))
    np.testing.assert_array_equal(matched, [0, 1])
    few, some = match(np.eye(3), np.eye(3)[:2])
    assert sorted(few) == [-1, 0, 1] and some.sum() == 2
    _, dead = match(np.eye(2), np.zeros((2, 2)))
    np.testing.assert_array_equal(dead, 0)


def test_f1_by_hand():
    true = np.asarray([[1, 1, 0], [0, 0, 1]], bool)
    codes = np.asarray([[0, 1, 1, 1], [0, 0, 0, 1]], bool)
    # atoms 0, 1, 2 have features 1, 0, 3; feature 2 belongs to none
    assert support_f1(true, codes, np.asarray([1, 0, 3])) == pytest.approx(2 * 2 / (3 + 4))
    assert support_f1(true, true, np.arange(3)) == 1
    assert support_f1(true, codes[:, :2], np.asarray([1, -1, 0])) == pytest.approx(2 / (3 + 1))


def test_a_crosscoder_sees_the_same_tokens_cut_into_sites():
    worlds = {"flat": flat_world(jax.random.key(0), 8, 16, 2)}
    whole, parts = (Made(worlds, 32, jax.random.key(1), sites).batch()["flat"] for sites in (1, 2))
    assert parts[0].shape == (32, 2, 4) and parts[0] is parts[1]
    np.testing.assert_array_equal(parts[0].reshape(32, 8), whole[0])


def test_crosscoders_find_atoms_across_sites():
    world = flat_world(jax.random.key(0), TINY.d, TINY.atoms, TINY.active)
    (one,) = _dictionaries("crosscoder by k", {"flat": world}, TINY, 1)["flat"]
    score = _score(one, world, *world.draw(jax.random.key(2), 512))
    _, chance = match(np.asarray(world.atoms), np.random.default_rng(0).normal(size=(16, 12)))
    assert score.cosine.mean() > chance.mean() + 0.05 and score.explained > 0.5


def test_training_finds_what_random_directions_do_not(found):
    for world in ("flat", "tree"):
        numbers = {
            n: found.numbers[f"{world}/{n}/cosine"].value for n in found.facts["dictionaries"]
        }
        assert numbers["oracle codes"] == pytest.approx(1, abs=1e-5)
        assert numbers["topk"] > numbers["frozen random"]
    assert (
        found.numbers["flat/topk/cosine"].value
        > found.numbers["flat/frozen random/cosine"].value + 0.1
    )
    f1 = {n: found.numbers[f"flat/{n}/F1"].value for n in found.facts["dictionaries"]}
    assert f1["oracle codes"] == 1 and f1["oracle pursuit"] > f1["topk"] > f1["random pursuit"]
    assert found.numbers["flat/oracle codes/FVE"].value == pytest.approx(1)


def test_the_result_holds_intervals_over_seeds_and_every_atom(found, tmp_path):
    number = found.numbers["flat/topk/cosine"]
    assert number.n == 2 and number.low < number.value < number.high
    assert found.arrays["tree/topk/cosine"].shape == (2, 16)
    assert [row["section"] for row in found.table] == ["flat"] * 5 + ["tree"] * 5
    assert {"parents", "children"} <= set(found.table[-1]) - set(found.table[0])
    files = {path.name for path in viz.write(found, tmp_path)}
    assert {"recovered.png", "index.html", "table.csv"} <= files
    assert load_result(tmp_path).numbers["flat/topk/F1"] == found.numbers["flat/topk/F1"]


def test_the_figure_names_every_dictionary(found):
    figure = viz.recovery_dots(found)
    for axes, world in zip(figure.axes, ("flat", "tree"), strict=True):
        rows = [row for row in found.table if row["section"] == world]
        assert [t.get_text() for t in axes.get_yticklabels()] == [r["dictionary"] for r in rows]


def test_the_command_prints_both_worlds(monkeypatch, found, tmp_path, capsys):
    asked = {}

    def study(**options):
        asked.update(options)
        return found

    monkeypatch.setattr(experiments, "study_recovery", study)
    Recovery(preset="quick", architectures=("topk",), seeds=2, out=tmp_path)()
    said = capsys.readouterr().out
    assert "parents" in said and "oracle" in said and "topk" in said
    assert asked["scale"] == experiments.SCALES["quick"] and asked["seeds"] == 2


def test_unknown_architectures_are_one_line():
    with pytest.raises(ValueError, match="unknown 'relu': use some of topk"):
        experiments.study_recovery(architectures=("relu",))
