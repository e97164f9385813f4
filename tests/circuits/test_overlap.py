"""Recovery of a reference: areas against brute force, published curves, and one real ranking."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxcirc.circuits._graph import Graph
from jaxcirc.circuits._overlap import (
    auc,
    auroc,
    node_scores,
    overlap,
    precision_recall,
    recall_at,
    roc,
    roc_points,
    without_mlps,
)
from jaxcirc.circuits._truth import truth
from jaxcirc.circuits.formats import write_graph
from jaxcirc.cli._overlap import Overlap
from jaxcirc.experiments.overlap import overlap_file
from jaxcirc.taps import Wiring

ACDC_IOI_KL = """
    0,0 0,2 0,6 0,10 0,14 0,16 1,21 5,38 14,74 37,131 82,178 105,225 127,253 152,265 186,293
    224,332 312,386 417,433 565,490 688,539 913,583 1285,663 1663,704 2306,767 2909,793 8149,858
    9625,886 13694,932 13882,948 16928,981 19473,994 22241,1011 31882,1041
"""
"""False and true edges that ACDC keeps at 33 thresholds: IOI, KL, random ablation, trained model;
its graph has 31,882 other edges and 1,041 of the circuit. From the rates in
experiments/results/plots_data/acdc-ioi-kl_div-False-0.json of
ArthurConmy/Automatic-Circuit-Discovery @bc99ace (MIT)."""


def ranking(seed: int, n: int = 40, values: int = 12):
    """Scores with many ties, infinities among them, and a random circuit of some of the parts."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, n).astype(float)
    scores[rng.random(n) < 0.1] = np.inf
    mask = rng.random(n) < 0.3
    mask[:2] = True, False
    return scores, mask


SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_counts_pairs(seed):
    scores, mask = ranking(seed)
    inside, outside = scores[mask][:, None], scores[~mask][None, :]
    pairs = (inside > outside) + 0.5 * (inside == outside)
    assert auroc(scores, mask) == pytest.approx(pairs.mean())
    assert auc(roc(scores, mask)) == pytest.approx(pairs.mean())
    assert auc(roc(scores, mask), "pessimistic") == pytest.approx((inside > outside).mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_areas_without_ties_agree_and_mirror(seed):
    rng = np.random.default_rng(seed)
    scores, mask = rng.permutation(30).astype(float), rng.random(30) < 0.5
    mask[:2] = True, False
    curve = roc(scores, mask)
    assert auc(curve, "pessimistic") == pytest.approx(auc(curve)) == auroc(scores, mask)
    assert auroc(-scores, mask) == pytest.approx(1 - auroc(scores, mask))
    assert auroc(np.exp(scores / 9), mask) == auroc(scores, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_roc_is_every_threshold_once(seed):
    scores, mask = ranking(seed)
    curve = roc(scores, mask)
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    np.testing.assert_array_equal(curve.threshold[1:], np.unique(scores)[::-1])
    for fpr, tpr, least in zip(curve.fpr[1:], curve.tpr[1:], curve.threshold[1:], strict=True):
        found = precision_recall(scores >= least, mask)
        assert (tpr, fpr) == pytest.approx((found.sensitivity, 1 - found.specificity))


@pytest.mark.parametrize("seed", SEEDS)
def test_given_points_become_their_pareto_front(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (12, 2)) / 5
    curve = roc_points(*rng.permutation(points).T)
    every = {(0.0, 0.0), (1.0, 1.0), *map(tuple, points.tolist())}
    front = {(x, y) for x, y in every if not any(a < x and b > y for a, b in every)}
    assert set(zip(curve.fpr.tolist(), curve.tpr.tolist(), strict=True)) == front
    assert (np.diff(curve.fpr) >= 0).all() and (np.diff(curve.tpr) >= 0).all()
    assert auc(curve, "pessimistic") <= auc(curve) + 1e-12


def test_fewer_points_never_raise_the_pessimistic_area():
    scores, mask = ranking(0, n=200, values=60)
    curve = roc(scores, mask)
    areas = [auc(roc_points(curve.fpr[::n], curve.tpr[::n]), "pessimistic") for n in (1, 2, 4, 16)]
    assert areas == sorted(areas, reverse=True) and areas[0] > areas[-1]
    assert auc(roc_points([], []), "pessimistic") == 0 and auc(roc_points([], [])) == 0.5


def test_published_points_give_the_published_areas():
    points = np.asarray([pair.split(",") for pair in ACDC_IOI_KL.split()], float)
    curve = roc_points(points[:, 0] / 31882, points[:, 1] / 1041)
    assert len(curve.fpr) == 33
    assert round(auc(curve, "pessimistic"), 3) == 0.869
    assert round(auc(curve, "trapezoid"), 3) == 0.886


@pytest.mark.parametrize("seed", SEEDS)
def test_means_of_a_chosen_set(seed):
    rng = np.random.default_rng(seed)
    chosen, mask = rng.random((2, 4, 9)) < 0.4
    found = precision_recall(chosen, mask)
    hits = sum(bool(c and m) for c, m in zip(chosen.flat, mask.flat, strict=True))
    passed = sum(not (c or m) for c, m in zip(chosen.flat, mask.flat, strict=True))
    assert found.precision == hits / chosen.sum()
    assert found.recall == found.sensitivity == hits / mask.sum()
    assert found.specificity == passed / (~mask).sum()
    assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    assert found.balanced == pytest.approx(2 / (1 / found.sensitivity + 1 / found.specificity))


def test_the_mean_of_the_discrete_sae_paper_is_not_f1():
    mask = np.arange(1000) < 10
    found = precision_recall(np.arange(1000) < 100, mask)  # all of it, among ten times as many
    assert found.f1 == pytest.approx(2 / 11) and found.balanced == pytest.approx(20 / 21)


def test_an_empty_choice_has_no_precision():
    found = precision_recall(np.zeros(5, bool), np.arange(5) < 2)
    assert np.isnan(found.precision)
    assert (found.recall, found.f1, found.specificity, found.balanced) == (0, 0, 1, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_recall_at_k_is_the_mean_over_orders_of_equal_scores(seed):
    scores, mask = ranking(seed, n=30, values=5)
    rng = np.random.default_rng(seed)
    for k in (1, 7, 30):
        orders = [np.lexsort((rng.random(30), -scores))[:k] for _ in range(3000)]
        drawn = mask[np.stack(orders)].sum(axis=1) / mask.sum()
        assert recall_at(scores, mask, k) == pytest.approx(drawn.mean(), abs=0.02)


@pytest.mark.parametrize(
    "wiring",
    [
        Wiring(12, 12, 12),
        Wiring(3, 4, 2),
        Wiring(3, 4, 4, mlp=False),
        Wiring(2, 3, 1, parallel=True),
        Wiring(2, 3, 3, split=True),
    ],
    ids=str,
)
def test_heads_get_what_leaves_them(wiring):
    scores = np.random.default_rng(0).normal(size=wiring.n_edges)
    found = node_scores(scores, wiring)
    sums = dict.fromkeys(wiring.sources, 0.0)
    outside = 0
    for number in range(wiring.n_edges):
        source, reader = wiring.edge(number)
        sums[source] += abs(scores[number])
        outside += source.site != "mlp_out" and reader.site != "mlp_in"
    heads = [value for node, value in sums.items() if node.site == "z"]
    np.testing.assert_allclose(found.ravel(), heads)
    assert without_mlps(wiring).sum() == outside
    assert outside == 29089 or wiring.n_layers != 12


def scored(name: str, seed: int = 0) -> Graph:
    """Random scores that prefer the circuit by its name."""
    known, rng = truth(name), np.random.default_rng(seed)
    kept = known.edges.kept
    signs = rng.choice([-1, 1], kept.size)
    return Graph(known.wiring, kept, signs * (rng.normal(size=kept.size) + 3 * kept))


def test_overlap_has_a_row_for_each_kind_of_part():
    graph, known = scored("docstring/acdc"), truth("docstring/acdc")
    rows = overlap(graph, known)
    assert [(row.parts, row.n, row.in_circuit) for row in rows] == [
        ("all edges", 1281, 24),
        ("edges without MLPs", 1281, 24),
        ("heads", 32, 6),
    ]
    assert rows[0].auroc == auroc(np.abs(graph.importance), known.edges.kept) > 0.9
    signed = overlap(graph, known, "importance")
    assert signed[0].auroc == auroc(graph.importance, known.edges.kept) < 0.8
    assert signed[2] == rows[2]
    (heads,) = overlap(graph, truth("docstring/discrete_sae"))
    assert heads.parts == "heads" and heads.auroc < rows[2].auroc


def test_the_command_prints_a_table(tmp_path, capsys):
    path = write_graph(scored("docstring/acdc"), tmp_path / "made.json", d_model=512)
    Overlap(path, "docstring/acdc")()
    said = capsys.readouterr().out
    assert "made.json against docstring/acdc" in said and "1,281" in said
    for row in overlap_file(path, "docstring/acdc").rows:
        assert f"{row['auroc']:.4f}" in said


@pytest.mark.skipif(
    "JAXCIRC_GROUND_TRUTH" not in os.environ,
    reason="JAXCIRC_GROUND_TRUTH names no folder with ioi-eap-ig.json",
)
def test_eap_ig_on_ioi():
    path = Path(os.environ["JAXCIRC_GROUND_TRUTH"]) / "ioi-eap-ig.json"
    rows = overlap_file(path, helpful="negative").rows
    assert [round(row["auroc"], 4) for row in rows] == [0.8677, 0.8567, 0.9156]
    assert [(row["n"], row["in_circuit"]) for row in rows] == [
        (32491, 963),
        (29089, 183),
        (144, 26),
    ]


def test_errors():
    scores, mask = ranking(0)
    graph, known = scored("docstring/acdc"), truth("docstring/acdc")
    for function in (roc, auroc, lambda s, m: recall_at(s, m, 1)):
        with pytest.raises(ValueError, match="1 scores are NaN: leave those parts out"):
            function(np.append(scores, np.nan), np.append(mask, True))
        with pytest.raises(ValueError, match="0 of 40 parts are in the circuit"):
            function(scores, np.zeros(40, bool))
        with pytest.raises(ValueError, match=r"scores of shape \(40,\) against .* \(39,\)"):
            function(scores, mask[1:])
    with pytest.raises(ValueError, match="rates lie between 0 and 1"):
        roc_points([0.1, np.nan], [0.2, 0.3])
    with pytest.raises(ValueError, match="k=41: there are 40 scores"):
        recall_at(scores, mask, 41)
    with pytest.raises(ValueError, match=r"chosen has shape \(40,\) and truth \(39,\)"):
        precision_recall(mask, mask[1:])
    with pytest.raises(ValueError, match=r"scores of shape \(2, 1281\) for 1281 edges: average"):
        node_scores(np.ones((2, 1281)), known.wiring)
    with pytest.raises(ValueError, match="against ioi/acdc, whose model gpt2-small is Wiring"):
        overlap(graph, truth("ioi/acdc"))
    with pytest.raises(ValueError, match="the graph has no importance to rank by"):
        overlap(known.edges, known)


@pytest.fixture
def untyped(request):
    """For arguments of a wrong type, which `--beartype` stops before our own message can."""
    if request.config.getoption("--beartype"):
        pytest.skip("the type checker refuses this first")


def test_other_words(untyped):
    with pytest.raises(ValueError, match="rule='optimistic': use one of 'trapezoid', 'pess"):
        auc(roc(*ranking(0)), "optimistic")
    with pytest.raises(ValueError, match='rank=\'sign\': use "size" or "importance"'):
        overlap(scored("docstring/acdc"), truth("docstring/acdc"), "sign")
