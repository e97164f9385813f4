"""Selection, evaluation and searches over edges, each against a plain version of itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, pairs, slow_at, tiny

from jaxcirc import circuits, patching, zoo
from jaxcirc.circuits import Graph, _methods, pruned, select
from jaxcirc.circuits._hisp import _slopes
from jaxcirc.circuits._masks import HIGH, LOW, keep_probability, sample_mask
from jaxcirc.models import toy
from jaxcirc.taps import KINDS, Add, Node, Read, Sites, Wiring, run
from jaxcirc.tasks import kl, logit_difference

SMALL = Wiring(3, 2, 1)


def drawn(seed=0, wiring=SMALL):
    return np.random.default_rng(seed).normal(size=wiring.n_edges)


def reaches(graph):
    """Which sources reach the logits, and which are reached, by walking edge by edge."""
    wiring, group = graph.wiring, graph.wiring.n_heads // graph.wiring.n_kv_heads

    def heads(node):
        if node.site in ("k_in", "v_in"):
            return [Node("z", node.layer, node.index * group + i) for i in range(group)]
        return [circuits.component(node)]

    edges = graph.edges
    ahead, behind = {Node("final_resid", wiring.n_layers)}, set(wiring.sources[: wiring.first])
    for _ in range(len(wiring.readers)):
        ahead |= {u for u, v in edges if v in ahead or any(h in ahead for h in heads(v))}
        behind |= {h for u, v in edges if u in behind for h in heads(v)}
    return [
        u in behind and (v.site == "final_resid" or any(h in ahead for h in heads(v)))
        for u, v in edges
    ]


@pytest.mark.parametrize("seed", range(5))
def test_pruning_leaves_what_lies_between_input_and_logits(seed):
    graph = Graph(SMALL, drawn(seed) > 0.9)
    found = pruned(graph)
    expected = [edge for edge, kept in zip(graph.edges, reaches(graph), strict=True) if kept]
    assert found.edges == expected
    assert pruned(found).n_edges == found.n_edges


def test_pruning_takes_more_than_one_pass():
    chain = [(Node("embed", 0), Node("q_in", 0, 0)), (Node("z", 0, 0), Node("mlp_in", 1))]
    assert pruned(Graph.of(SMALL, chain)).n_edges == 0
    whole = [*chain, (Node("mlp_out", 1), Node("final_resid", 3))]
    assert pruned(Graph.of(SMALL, whole)).n_edges == 3


def test_the_best_edges_signed_and_by_size():
    importance = drawn()
    signed = select(SMALL, importance, 10, prune=False)
    assert set(np.flatnonzero(signed.kept)) == set(np.argsort(-importance)[:10])
    size = select(SMALL, importance, 10, signed=False, prune=False)
    assert set(np.flatnonzero(size.kept)) == set(np.argsort(-np.abs(importance))[:10])
    above = select(SMALL, importance, threshold=1.0, prune=False)
    np.testing.assert_array_equal(above.kept, importance >= 1)


def test_edges_without_a_score_are_never_kept():
    importance = drawn()
    importance[::2] = np.nan
    for how in ("top", "greedy"):
        kept = select(SMALL, importance, SMALL.n_edges, how=how, prune=False).kept
        assert not kept[::2].any()
    assert select(SMALL, importance, SMALL.n_edges, prune=False).n_edges == SMALL.n_edges // 2


def test_greedy_grows_from_the_logits():
    importance = drawn(3)
    graph = select(SMALL, importance, 12, how="greedy", prune=False)
    assert graph.n_edges == 12
    ahead = {Node("final_resid", 3)}
    for _ in range(12):
        fed = {n.layer for n in ahead if n.site == "z"}  # one key/value head feeds both heads

        def leads(reader, fed=fed, ahead=ahead):
            group = reader.site in ("k_in", "v_in") and reader.layer in fed
            return group or reader in ahead or circuits.component(reader) in ahead

        ahead |= {source for source, reader in graph.edges if leads(reader)}
    assert all(u in ahead for u, _ in graph.edges)
    first = np.flatnonzero(SMALL.kind == KINDS.index("logits"))
    best = first[np.argmax(importance[first])]
    assert select(SMALL, importance, 1, how="greedy", prune=False).kept[best]


def test_greedy_takes_each_edge_once():
    """Its key/value edges lead into both heads of a group; each still counts once."""
    for n in range(1, SMALL.n_edges + 1):
        assert select(SMALL, drawn(1), n, how="greedy", prune=False).n_edges == n


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: select(SMALL, drawn()), "and not both"),
        (lambda: select(SMALL, drawn()[:-1], 5), "scores of shape"),
        (lambda: select(SMALL, drawn(), 5, how="best"), 'how="top" or how="greedy"'),
        (lambda: circuits.acdc(None, None, 0.0), "give a positive number"),
        (lambda: circuits.learn_masks(None, None, level="head"), 'level="edge" or level="node"'),
    ],
)
def test_wrong_calls_name_the_right_one(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.fixture(scope="module")
def case():
    model = tiny("grouped")
    return model, answered(model, pairs(batch=4)), Wiring.of(model)


def test_values_of_circuits_lie_between_the_ends(case):
    model, prompts, wiring = case
    full, empty = circuits.edge_ends(model, prompts, wiring)
    ends = patching.patch(model, prompts, [Node("z", 0, 0)])
    np.testing.assert_allclose(full, ends.base, atol=2e-5)
    np.testing.assert_allclose(empty, ends.source, atol=2e-5)
    graphs = [select(wiring, drawn(0, wiring), n, prune=False) for n in (20, 90)]
    whole = circuits.circuit_values(model, prompts, graphs)
    cut = circuits.circuit_values(model, prompts, [pruned(g) for g in graphs], memory=1)
    np.testing.assert_allclose(whole, cut, atol=3e-5)


def test_zero_ablation_of_everything_leaves_nothing():
    """In a model without norms, which would blow rounding up, or biases."""
    model, prompts = tiny("attention"), pairs(batch=4)
    wiring = Wiring.of(model)
    none = np.zeros((1, wiring.n_edges), bool)
    (found,) = circuits.circuit_values(model, prompts, none, wiring=wiring, value="zero")
    np.testing.assert_allclose(found, 0, atol=1e-4)
    full, _ = circuits.circuit_values(model, prompts, [Graph(wiring, ~none[0])] * 2, value="zero")
    assert np.abs(full).min() > 0.1


def test_mean_ablation_uses_the_means_of_the_corrupt_writes(case):
    model, prompts, wiring = case
    sites = ("resid_pre", "head_out", "mlp_out")
    own = patching.means(model, prompts, sites)
    graphs = [select(wiring, drawn(1, wiring), 60, prune=False)]
    named = circuits.circuit_values(model, prompts, graphs, value="mean")
    given = circuits.circuit_values(model, prompts, graphs, value=own)
    np.testing.assert_allclose(named, given, atol=1e-6)
    with pytest.raises(ValueError, match='use "source", "zero", "mean"'):
        circuits.circuit_values(model, prompts, graphs, value="noise")


def test_areas_are_those_of_the_curve(case):
    model, prompts, wiring = case
    curve = circuits.edge_curve(model, prompts, wiring, drawn(2, wiring), grid=(0.1, 0.5, 1.0))
    f = (curve.values.mean(axis=1) - curve.empty.mean()) / (curve.full.mean() - curve.empty.mean())
    by_hand = 0.4 * (f[0] + f[1]) / 2 + 0.5 * (f[1] + f[2]) / 2
    assert curve.area.value == pytest.approx(by_hand, rel=1e-5)
    assert f[2] == pytest.approx(1, abs=1e-5)


def plain_acdc(model, prompts, threshold, wiring):
    """One edge at a time, one whole run each."""
    kept = np.ones(wiring.n_edges, bool)

    def loss(kept):
        return circuits.circuit_values(model, prompts, kept[None], kl, wiring=wiring).mean()

    current = loss(kept)
    for edge in sorted(range(wiring.n_edges), key=lambda e: (-wiring.reader[e], -wiring.source[e])):
        without = kept.copy()
        without[edge] = False
        new = loss(without)
        if new - current < threshold:
            kept, current = without, new
    return kept


def test_acdc_in_chunks_is_acdc_one_by_one():
    model = toy(jax.random.key(1), n_layers=2, n_heads=2, n_kv_heads=1)
    prompts = answered(model, pairs(batch=3))
    wiring = Wiring.of(model)
    found = circuits.acdc(model, prompts, 0.03)
    np.testing.assert_array_equal(found.graph.kept, plain_acdc(model, prompts, 0.03, wiring))
    assert 0 < found.graph.n_edges < wiring.n_edges
    scores, several = circuits.acdc_scores(model, prompts, [0.03, 0.003])
    np.testing.assert_array_equal(several[1].graph.kept, found.graph.kept)
    assert several[1].runs < found.runs and set(np.unique(scores)) <= {0, 0.003, 0.03}


def test_acdc_that_sees_every_edge_leaves_its_ties(monkeypatch):
    model = toy(jax.random.key(1), n_layers=2, n_heads=2, n_kv_heads=1)
    found = np.where(np.arange(Wiring.of(model).n_edges) == 3, 0.1, 0.0)
    monkeypatch.setattr(_methods, "acdc_scores", lambda *_, **__: (found, []))
    scores = circuits.score(model, pairs(batch=3), "acdc").importance
    np.testing.assert_allclose(scores, found, rtol=1e-6)


TRUE_BY_EXCHANGE = {"xproportion": 3, "reverse": 2}


@pytest.mark.parametrize("name", slow_at(TRUE_BY_EXCHANGE, "reverse"))
def test_acdc_finds_compiled_circuits(name):
    """Zero ablation finds every edge but those that are constant; exchange only what varies."""
    case = zoo.load(name)
    prompts = case.prompts(12, length=3)
    options = {"wiring": case.wiring, "everywhere": True}
    zero, _ = circuits.acdc_scores(case.model, prompts, [1e-6, 1e-3], value="zero", **options)
    counted = np.ones(case.wiring.n_edges, bool)
    if name == "reverse":  # what attention to everything, or by position, reads of the tokens
        channel = [Node(site, layer, 0) for site in ("q_in", "k_in") for layer in (0, 3)]
        counted[[case.wiring.find(Node("embed", 0), reader) for reader in channel]] = False
    assert circuits.auroc(zero[counted], case.true[counted]) == 1.0
    assert not (zero[~case.true] > 0).any()
    assert case.true[counted].sum() == {"xproportion": 7, "reverse": 11}[name]
    found = circuits.acdc(case.model, prompts, 1e-6, **options).graph
    assert found.n_edges == TRUE_BY_EXCHANGE[name] and (found.kept <= case.true).all()


def test_hard_concrete_masks_are_not_0_as_often_as_they_say():
    logit = jnp.asarray([-3.0, 0.0, 1.0, 4.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    masks = jax.vmap(lambda key: sample_mask(key, logit))(keys)
    np.testing.assert_allclose((masks > 0).mean(axis=0), keep_probability(logit), atol=0.03)
    assert float(masks.min()) == 0 and float(masks.max()) == 1 and LOW < 0 < 1 < HIGH


@pytest.mark.slow
def test_masks_learn_the_edges_of_a_trained_circuit():
    case = zoo.load("induction")
    prompts = case.prompts(16)
    found = circuits.learn_masks(case.model, prompts, penalty=2.0, steps=80, wiring=case.wiring)
    counted = case.scored & ~case.constant
    assert circuits.auroc(found.logit[counted], case.true[counted]) > 0.8
    assert found.size[-1] < 0.5 * case.wiring.n_edges and len(found.loss) == 80
    few = circuits.learn_masks(case.model, prompts, budget=20, steps=80, wiring=case.wiring)
    assert few.size[-1] < 40


def test_heads_are_as_important_as_their_slope():
    """By a finite difference of a mask on one head's queries."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, prompts, h = tiny("grouped", jnp.float64), pairs().arrays(), 1e-5
        found = _slopes(model, prompts, metric=logit_difference)
        _, seen = run(model, prompts.clean, Sites(q=Read()), mask=prompts.mask)
        one = np.zeros(seen.q.shape)
        one[1, :, :, 2] = 1
        ends = [
            logit_difference(
                run(
                    model,
                    prompts.clean,
                    Sites(q=Add(s * h * one * seen.q)),
                    mask=prompts.mask,
                    logits_at=-1,
                )[0],
                prompts,
            )
            for s in (1, -1)
        ]
        np.testing.assert_allclose(found.q[1, :, 2], (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def test_hisp_scores_edges_by_their_smaller_end(case):
    model, prompts, wiring = case
    scores = circuits.head_importance(model, prompts)
    assert scores.shape == (4, wiring.n_edges) and (scores >= 0).all()
    to_logits = scores[:, wiring.kind == KINDS.index("logits")]
    node = wiring.find(Node("z", 2, 1), Node("final_resid", 3))
    out = wiring.source == wiring.sources.index(Node("z", 2, 1))
    assert (scores[:, out] <= scores[:, [node]]).all()
    assert (to_logits[:, 0] == scores.max(axis=1)).all()


def test_methods_by_name_and_ones_own(case):
    model, prompts, wiring = case

    def mine(model, prompts, *, metric, wiring):
        return np.arange(wiring.n_edges)

    scores = circuits.score(model, prompts, mine)
    assert scores.method == "mine" and scores.importance[5] == 5
    exact = circuits.score(model, prompts, "exact").importance
    by_hand = patching.patch_edges(model, prompts, np.arange(wiring.n_edges)).importance
    np.testing.assert_allclose(exact, by_hand.mean(axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="unknown method 'best': use one of eap"):
        circuits.score(model, prompts, "best")
    with pytest.raises(ValueError, match="one number an edge"):
        circuits.score(model, prompts, lambda *_, **__: np.zeros(3))
