"""Dictionaries judged by control: the three tests by hand and on a tiny model, the toys, the whole
study."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from word_tokens import WordTokenizer

from jaxcirc import load_result, viz
from jaxcirc.dictionaries import TopK, init_coder, supervised
from jaxcirc.experiments import principled
from jaxcirc.experiments.principled import (
    LEVELS,
    Approximation,
    Asked,
    CrossSection,
    Data,
    Judged,
    Recipe,
    Sizes,
    Subject,
    compare,
    principled_sizes,
)
from jaxcirc.experiments.principled._audit import World, controls, measured, rank, ranked_by
from jaxcirc.experiments.principled._causal import exchanged, without
from jaxcirc.experiments.principled._control import Cell, Outcome, judged, nearest, surprise
from jaxcirc.experiments.principled._isolation import isolation_rows
from jaxcirc.experiments.principled._occlusion import Scale, codes_of, recovered
from jaxcirc.experiments.principled._references import aligned, moved, undirected
from jaxcirc.experiments.principled._search import _codes_of, _name
from jaxcirc.experiments.principled._small import Small, prompts
from jaxcirc.experiments.principled._subjects import Drawn, coded, config_of, levels_of, trained
from jaxcirc.models import toy
from jaxcirc.patching import Component
from jaxcirc.tasks.labelled import labelled_ioi

WIDTH = 12
LAST = Component("resid_post", 1)
SECTION = CrossSection("resid_post.1@end", (LAST,), ("IO", "S"))


@pytest.fixture(scope="module")
def words():
    return WordTokenizer()


@pytest.fixture(scope="module")
def sides(words):
    def draw(n, seed, split):
        return labelled_ioi(words, n, seed, split, names=6)

    asked = ((48, "train"), (8, "test"), (10, "test"), (8, "templates"))
    return [draw(n, i, split) for i, (n, split) in enumerate(asked)]


@pytest.fixture(scope="module")
def model(sides, words):
    del sides  # the vocabulary is complete when prompts are there
    size = {"n_layers": 2, "d_model": WIDTH, "d_mlp": None, "vocab": 400}
    build = eqx.filter_jit(lambda key: toy(key, n_heads=2, n_kv_heads=2, d_head=4, **size))
    assert len(words.words) < 400
    return build(jax.random.key(0))


@pytest.fixture(scope="module")
def found(model, sides):
    return Judged(SECTION, Data.of(model, *sides), Asked((1, 2), 2, 2))


def subject(seed=0, features=20):
    return Subject(
        "topk", "k=3", seed, (TopK(init_coder(jax.random.key(seed), WIDTH, features), 3),)
    )


def test_approximation_by_hand_and_refused_where_ablation_costs_nothing():
    clean, mean = np.full(6, 5.0), np.full(6, 1.0)
    test = Approximation(clean, mean, np.full(6, 4.0), np.full(6, 2.0), np.arange(6) % 3)
    assert test.denominator == 4.0 and not test.refused
    assert test.sufficiency.value == pytest.approx(0.8)
    assert test.normalised.value == pytest.approx(0.75)
    assert test.necessity.value == pytest.approx(0.75)
    assert test.change.value == pytest.approx(1.0)
    weak = dataclasses.replace(test, mean=np.full(6, 4.5))
    assert weak.refused and np.isnan(weak.row()["necessity"])
    mixed = dataclasses.replace(test, kept=np.asarray([0.0, 10, 0, 10, 0, 10]))
    assert mixed.sufficiency.value == pytest.approx(1) and mixed.change.value == pytest.approx(5)


def test_the_whole_activation_is_a_perfect_edit_and_none_is_what_it_says(found):
    bench, target = found.report, found.report.target("IO")
    assert bench.agreement(target, target.values).all()
    np.testing.assert_array_equal(bench.agreement(target, bench.values), target.same)
    assert target.none == target.same.mean()
    assert (target.old != target.new).all()
    np.testing.assert_allclose(
        bench.difference(bench.clean),
        bench.clean[np.arange(10), bench.source.labels["IO"]]
        - bench.clean[np.arange(10), bench.source.labels["S"]],
        atol=1e-5,
    )


@pytest.mark.slow
def test_features_taken_out_and_exchanged_go_all_the_way_with_all_of_them(found):
    bench, own = found.report, subject()
    dictionary = own.dictionaries[0]
    every, none = np.ones(20, bool), np.zeros(20, bool)
    x, target = bench.values[0], bench.target("IO")
    back = dictionary.decode(dictionary.encode(x))
    bias = dictionary.decode(jnp.zeros(20))
    (out,) = without(bench, own, [every])
    np.testing.assert_allclose(out, x - (back - bias), atol=1e-5)
    np.testing.assert_allclose(without(bench, own, [none])[0], x, atol=1e-6)
    (moved,) = exchanged(bench, own, target.values, [every])
    there = dictionary.decode(dictionary.encode(target.values[0]))
    np.testing.assert_allclose(moved, x + there - back, atol=1e-5)


@pytest.mark.slow
def test_more_moves_leave_no_more_of_the_way(found):
    target = found.report.target("IO")
    outcomes = [
        judged(found.report, subject(), target, nearest(found.report, k)) for k in (1, 2, 6)
    ]
    left = [outcome.left for outcome in outcomes]
    assert left == sorted(left, reverse=True) and left[-1] < 1
    assert outcomes[0].hits.shape == (10,)


def test_a_learned_subspace_surprises_prompts_apart_no_more_than_where_it_began(found):
    bench, target = found.select, found.select.target("IO")
    gaps = [y - x for x, y in zip(bench.values, target.values, strict=True)]

    def rest(steps):
        edited = moved(bench.values, gaps, aligned(bench, "IO", 2, steps, 0.3))
        groups, truth = jnp.asarray(bench.source.groups), jnp.asarray(target.truth)
        return float(surprise(jnp.asarray(bench.logits(edited)), groups, truth)[1::2].mean())

    assert rest(6) <= rest(0) + 1e-6


def test_random_directions_stand_beside_a_dictionary_as_many_and_as_active(found):
    own = subject()
    (codes,) = coded(own.dictionaries[0], found.train.values[0])
    (rival,) = undirected(own, found.train.values).dictionaries
    (others,) = coded(rival, found.train.values[0])
    assert rival.d_dict == own.dictionaries[0].d_dict
    active = [float((x != 0).sum(axis=1).mean()) for x in (codes, others)]
    assert abs(active[0] - active[1]) <= 0.5


def test_surprise_is_that_of_a_group():
    logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]]))
    groups = jnp.asarray([0, 1, 1])
    np.testing.assert_allclose(surprise(logits, groups, jnp.asarray([1])), np.log(2), atol=1e-6)


@pytest.mark.slow
def test_supervised_codes_are_judged_and_rows_have_their_place_in_the_plane(found):
    found.supervise()
    rows = found.finish()
    sections = {row["section"] for row in rows}
    assert "approximation" in sections
    for row in rows:
        if row["section"] == "control" and row["dictionary"] == "supervised":
            assert row["x"] in (0.0, None) and row["y"] in (1.0, None)


def test_a_population_has_every_level_and_seed_and_levels_are_taken_from_the_middle():
    assert levels_of("topk", 1) == (6,) and levels_of("topk", 3) == (3, 6, 12)
    recipe = Recipe(features=16, tokens=256, batch=64)
    assert config_of("l1", recipe, 2.5, 1).architecture == "l1_unit"
    assert config_of("frozen decoder", recipe, 6, 0).frozen
    source = Drawn({"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6.0)[:, None]}, 4)
    batch = source.batch()
    np.testing.assert_array_equal(batch["a"][0][:, 0] / 2, batch["b"][0][:, 0])
    first = source.batch()["a"][0]
    source.restore({"used": np.asarray(1)})
    np.testing.assert_array_equal(source.batch()["a"][0], first)


@pytest.mark.parametrize("kind", ["l1", "gated", "topk", "jumprelu", "frozen decoder"])
def test_what_all_prompts_share_changes_no_task_dictionary(kind, monkeypatch):
    monkeypatch.setitem(LEVELS, "gated", (2.5,))  # four dimensions at random are no task
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 4)) @ rng.standard_normal((4, 12)) + rng.standard_normal(12)
    x, shared = x.astype(np.float32), np.full(12, 64.0, np.float32)
    recipe = Recipe(16, 2560, 64, seeds=1, levels=1, architectures=(kind,))
    plain, moved = (trained([jnp.asarray(v)], recipe)[0].dictionaries[0] for v in (x, x + shared))
    features = plain.encode(jnp.asarray(x))
    np.testing.assert_allclose(moved.encode(jnp.asarray(x + shared)), features, atol=2e-3)
    np.testing.assert_allclose(moved.decode(features) - shared, plain.decode(features), atol=2e-3)
    assert float((features != 0).sum(axis=1).mean()) > 0.5


def test_two_clusters_are_worth_less_to_two_features_than_to_many():
    for case, ideal, rival in zip(
        compare((0.5, 2.0, 4.0), n=1500, features=400),
        (99.9, 102.1, 103.5),
        (78, 89, 101),
        strict=True,
    ):
        assert case.ideal == pytest.approx(ideal, abs=1.5)
        assert case.rival < case.ideal - 2 * case.error
        del rival


def test_codes_of_two_attributes_have_the_ratio_asked_for():
    strong, weak = codes_of(Scale(values=10, d=12), 1.5)
    lengths = [np.linalg.norm(rows, axis=1).mean() for rows in (strong, weak)]
    assert lengths[0] / lengths[1] == pytest.approx(1.5)


def test_a_dictionary_of_one_feature_a_value_recovers_all_of_them():
    codes = [np.eye(6)[:3] * 3, np.eye(6)[3:]]
    coder = dataclasses.replace(
        init_coder(jax.random.key(0), 6, 6), w_enc=jnp.eye(6), w_dec=jnp.eye(6)
    )
    labels = [np.arange(9) % 3, np.arange(9) // 3]
    x = codes[0][labels[0]] + codes[1][labels[1]]
    assert recovered(TopK(coder, 2), jnp.asarray(x), labels, [3, 3], 0.9) == [3, 3]


def test_prompts_of_the_small_transformer_hold_each_name_as_often_as_its_role_says():
    tokens, labels = prompts(np.random.default_rng(0), 7, 50)
    for row, io, s in zip(tokens, labels["IO"], labels["S"], strict=True):
        assert (row == io).sum() == 1 and (row == s).sum() == 2 and row[-2] == s


def test_presets_and_their_errors():
    assert principled_sizes("default", "anything") == Sizes()
    assert [s.name for s in principled_sizes("paper", "gpt2").sites][0] == "(B)NM out"
    assert len(principled_sizes("paper", "gpt2").sites[2].components) == 30
    with pytest.raises(ValueError, match="use the default"):
        principled_sizes("paper", "smollm2-135m")
    with pytest.raises(ValueError, match="use one of default"):
        principled_sizes("large", "gpt2")


def test_cross_sections_of_other_heads_have_other_names_and_are_kept_as_they_are():
    one, other = ([Component("z", 1, "end", h) for h in some] for some in ((0, 1), (0, 2)))
    assert _name(tuple(one)) != _name(tuple(other)) and _name((LAST,)) == str(LAST)
    assert CrossSection.parse(SECTION.said()) == SECTION


def test_codes_of_components_side_by_side_are_those_of_each():
    rng = np.random.default_rng(0)
    labels, sizes = {"a": rng.integers(0, 3, 30), "b": rng.integers(0, 2, 30)}, {"a": 3, "b": 2}
    values = [jnp.asarray(rng.normal(size=(30, d)), jnp.float32) for d in (4, 7)]
    for x, found in zip(values, _codes_of(values, labels, sizes), strict=True):
        alone = supervised(x, labels, sizes)
        np.testing.assert_allclose(found.mean, alone.mean, atol=1e-6)
        for name, rows in alone.codes.items():
            np.testing.assert_allclose(found.codes[name], rows, atol=1e-6)


def test_a_metric_that_ranks_as_the_truth_does_has_an_interval_that_says_so():
    found = ranked_by([(x**3, x) for x in np.linspace(-1, 1, 12)])
    assert found.value == pytest.approx(1) and found.low > 0.9 and found.n == 12


def test_cause_and_isolation_are_counted_where_the_answer_changes_and_where_it_does_not(found):
    bench = found.report
    same = bench.target("IO").same
    outcome = Outcome(~same, np.full(len(same), np.nan), 0.0)
    cell = Cell("IO", "topk", "", "nearest", 2, (outcome,))
    assert isolation_rows(bench, [cell], 4) == []
    (row,) = isolation_rows(bench, [cell], 2)
    assert row.get("cause", 1.0) == 1.0 and row.get("isolation", 0.0) == 0.0
    assert (row["disentangle"] == 0.5) == (0 < same.sum() < len(same))


@pytest.mark.slow
def test_every_metric_puts_an_oracle_above_a_shuffled_copy_and_ranks_with_the_truth():
    from jaxcirc.experiments.principled._audit import METRICS, audit

    rows = audit(tokens=60_000, seeds=2)
    table = {row["dictionary"]: row for row in rows if row["section"] == "audit controls"}
    for metric in METRICS:
        assert table["oracle"][metric] > table["shuffled decoder"][metric]
        assert table["oracle"][metric] > table["random directions"][metric]
    ranks = {r["metric"]: r["rank with truth"] for r in rows if r["section"] == "audit"}
    assert ranks["edit accuracy"] > 0.5
    assert rank([1, 2, 3], [1, 1, 1]) == 0.0
    world = World.of()
    whole = measured(
        world, controls(world, subject(features=64).dictionaries[0], jax.random.key(0), 3)["oracle"]
    )
    assert whole["truth"] == pytest.approx(1, abs=1e-3) and whole["edit accuracy"] > 0.95


@pytest.mark.slow
def test_a_small_transformer_learns_the_task():
    from jaxcirc.experiments.principled._small import accuracy, trained_small

    small = Small(names=12, d_model=32, steps=800)
    assert accuracy(trained_small(small)[0], small) > 0.8


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"place": "resid_post.1", "task": "sonnets"}, "use one of 'ioi'"),
        ({"place": "resid_post"}, 'as in "resid_post.12"'),
        ({"place": "resid_post.1>mlp_out.1"}, 'as in "resid_post.12"'),
        ({"place": "resid_post.9"}, r"layers 0\.\.1"),
        ({"place": "resid_post.1", "ks": ()}, r"ks=\(2, 8, 32\)"),
    ],
)
def test_a_dictionary_that_cannot_be_judged_is_one_line(model, words, asked, said):
    (dictionary,) = subject().dictionaries
    with pytest.raises(ValueError, match=said):
        principled.judge_dictionary(model, words, dictionary, **asked)


@pytest.mark.slow
def test_one_dictionary_is_judged_beside_codes_and_random_directions(words, tmp_path):
    size = {"n_layers": 2, "d_model": WIDTH, "d_mlp": None, "vocab": 4000}
    small = toy(jax.random.key(0), n_heads=2, n_kv_heads=2, d_head=4, **size)
    (dictionary,) = subject().dictionaries
    asked = {"place": "resid_post.1", "ks": (2, 4), "train": 96, "report": 12, "name": "mine"}
    result = principled.judge_dictionary(small, words, dictionary, **asked)
    kinds = {r["dictionary"] for r in result.table if r["section"] == "approximation"}
    assert {"supervised", "supervised, shuffled labels", "mine", "random directions"} <= kinds
    assert "control.png" in {p.name for p in viz.write(result, tmp_path)}
    other = TopK(init_coder(jax.random.key(0), WIDTH + 1, 20), 3)
    with pytest.raises(ValueError, match="give its own place"):
        principled.judge_dictionary(small, words, other, **asked)


@pytest.mark.slow
def test_the_whole_study_is_resumed_section_by_section(model, words, tmp_path, monkeypatch):
    from jaxcirc.experiments.principled import _part, _shipped

    monkeypatch.setattr(_shipped, "shipped_suites", lambda: ())
    quick = principled_sizes("smoke", "")
    sizes = dataclasses.replace(
        quick,
        train=48,
        select=8,
        report=10,
        names=6,
        scan=40,
        scanned=8,
        stride=1,
        recipe=Recipe(features=24, tokens=1024, batch=128, seeds=2, levels=1),
        toy=Scale(4, 8, 16, 2048, 128, (2.5,), (1.0, 2.0), 2),
        small=Small(5, 16, 5),
        audit=2048,
    )
    first = principled.study_principled(model, words, tmp_path, sizes=sizes)
    kinds = {row["section"] for row in first.table}
    assert {"site", "approximation", "claim", "splitting toy", "occlusion toy", "audit"} <= kinds
    assert {"attention", "small transformer", "meaning", "causal", "control"} <= kinds

    def again(*_):
        pytest.fail("a section that is there is made again")

    monkeypatch.setattr(_part.Part, "_judge", again)
    second = principled.study_principled(model, words, tmp_path, sizes=sizes)
    assert second.table == first.table
    paths = viz.write(load_result(first.save(tmp_path / "result")), tmp_path / "out")
    assert {p.name for p in paths} >= {"control.png", "phenomena.png"}
    with pytest.raises(ValueError, match="another study"):
        principled.study_principled(model, words, tmp_path, sizes=sizes, seed=1)
