"""Experiments over edges: discovery, comparison, leaderboard, atlas, on small models."""

import numpy as np
import pytest
from scipy import stats

from jaxcirc import experiments, patching, viz, zoo
from jaxcirc.experiments import _atlas, compare
from jaxcirc.experiments._atlas import read_atlas
from jaxcirc.experiments.compare import draw_edges, weighted_rank


@pytest.fixture(scope="module")
def case():
    """A trained model that can do its task."""
    known = zoo.load("induction")
    return known.model, known.prompts(12)


def test_discovery_traces_faithfulness_and_draws_the_graph(case, tmp_path):
    model, prompts = case
    found = experiments.discover_edges(*case, method="eap", sizes=(2, 10, 40, 10**6), draws=3)
    exact = patching.patch_edges(model, prompts, np.arange(found.facts["edges"]))
    assert found.arrays["sizes"].tolist() == [2, 10, 40]
    assert found.arrays["random"].shape == (3, 3)
    assert {"faithfulness_10", "complement_10", "clean"} <= set(found.numbers)
    assert (np.diff(found.arrays["importance"][found.arrays["order"]]) <= 0).all()
    assert np.corrcoef(found.arrays["importance"], exact.importance.mean(axis=0))[0, 1] > 0.2
    written = {path.name for path in viz.write(found, tmp_path)}
    assert {"edges.png", "circuit.html", "result.json"} <= written
    assert experiments.load_result(tmp_path).table == list(found.table)


def test_comparison_judges_methods_alike(case, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "TOP", 8)  # few edges of this model do anything

    def oracle(model, prompts, *, metric, wiring):
        every = np.arange(wiring.n_edges)
        return np.asarray(patching.patch_edges(model, prompts, every, metric).importance)

    methods = {"oracle": oracle, "eap": "eap", "random": "random"}
    found = experiments.compare_methods(*case, methods=methods, sample=60, grid=(0.1, 0.5, 1.0))
    rows = {row["method"]: row for row in found.table if row["section"] == "method"}
    assert rows["oracle"]["rank"] == pytest.approx(1) and rows["oracle"]["recall"] == 1
    assert rows["random"]["rank"] < rows["eap"]["rank"] < 1
    assert len([row for row in found.table if row["section"] == "agreement"]) == 3
    assert rows["eap"]["seconds"] > 0 and set(found.arrays) >= {"cpr_eap", "scores_oracle"}
    assert tmp_path / "curves.png" in viz.write(found, tmp_path)


def test_sampled_edges_stand_for_all():
    sizes = {"a": np.r_[np.full(10, 5.0), np.ones(990)], "b": np.ones(1000)}
    totals = [draw_edges(sizes, 200, seed)[1].sum() for seed in range(40)]
    assert np.mean(totals) == pytest.approx(1000, rel=0.05)
    drawn = [set(draw_edges(sizes, 200, seed)[0].tolist()) for seed in range(40)]
    often = np.mean([len(found & set(range(10))) / 10 for found in drawn])
    assert often > np.mean([len(found) / 1000 for found in drawn])


def test_weighted_ranks_are_those_of_a_sample_written_out():
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=30), rng.normal(size=30), rng.integers(1, 6, 30)
    whole = stats.spearmanr(np.repeat(x, weights), np.repeat(y, weights)).statistic
    assert weighted_rank(x, y, weights) == pytest.approx(whole, abs=1e-9)


def test_the_leaderboard_ranks_the_exact_method_first(tmp_path):
    found = experiments.leaderboard(methods=("exact", "random", "eap"), cases=("induction",), n=8)
    medians = [row for row in found.table if row["section"] == "median"]
    assert medians[0]["method"] == "exact" and medians[0]["AUROC"] == 1.0
    assert medians[-1]["method"] != "exact" and len(found.table) == 3 + 3
    assert tmp_path / "auroc.png" in viz.write(found, tmp_path)


def test_an_atlas_goes_on_where_it_stopped(case, tmp_path, monkeypatch):
    monkeypatch.setattr(_atlas, "CHUNK", 16)
    model, prompts = case
    part = experiments.atlas(model, prompts, tmp_path, share=0.4)
    n = part.facts["edges"]
    assert 0.3 < part.facts["share"] < 0.6
    patched = []
    original = patching.patch_edges
    monkeypatch.setattr(
        patching, "patch_edges", lambda *a, **k: patched.append(len(a[2])) or original(*a, **k)
    )
    whole = experiments.atlas(model, prompts, tmp_path)
    assert sum(patched) == n - round(part.facts["share"] * n)
    exact = original(model, prompts, np.arange(n)).importance.mean(axis=0)
    np.testing.assert_allclose(whole.arrays["importance"], exact, atol=1e-5)
    np.testing.assert_array_equal(read_atlas(tmp_path, n), whole.arrays["importance"])
    with pytest.raises(ValueError, match="holds another job"):
        experiments.atlas(model, prompts.take(range(3)), tmp_path)
    with pytest.raises(ValueError, match="share=0.05"):
        experiments.atlas(model, prompts, tmp_path / "new", share=0)
