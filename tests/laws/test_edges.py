"""Laws of edges: 12 (sums of edges are nodes), and one oracle for engine, scores and patches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, pairs, slow_at, tiny

from jaxcirc import attribution, load_model, patching
from jaxcirc.taps import Node, Wiring, cone, edge_start, resume_edges, run_edges, writes
from jaxcirc.tasks import ioi, kl, logit_difference

NAMES = ("grouped", "parallel", "attention", "gemma")


@partial(jax.jit, static_argnames=("wiring",))
def dropped(model, prompts, drop, wiring):
    """The metric with edges taken from the corrupt run, by the engine, from column 0."""
    here = cone(model, prompts.clean, prompts.mask, 0)
    other, _ = writes(model, here.of(prompts.corrupt), wiring)
    logits = run_edges(model, here, wiring, wiring.wires(drop), other)
    return logit_difference(logits, prompts)


def values(name, drop, prompts=None):
    model = tiny(name)
    prompts = (pairs(pads=1) if prompts is None else prompts).arrays()
    with jax.default_matmul_precision("highest"):
        return dropped(model, prompts, jnp.asarray(drop, jnp.float32), Wiring.of(model))


@pytest.mark.parametrize(
    "wiring, sources, edges",
    [
        (Wiring(12, 12, 12), 157, 32491),
        (Wiring(30, 9, 3), 301, 70651),
        (Wiring(4, 8, 8, mlp=False), 33, 1281),
        (Wiring(12, 12, 12, split=True), 158, 32491 + 445),
    ],
)
def test_known_numbers_of_edges(wiring, sources, edges):
    assert (wiring.n_sources, wiring.n_edges) == (sources, edges)


@pytest.mark.parametrize("heads, kv, mlp, parallel", [(4, 2, 1, 0), (3, 3, 1, 1), (2, 1, 0, 0)])
def test_edges_are_counted_by_formula(heads, kv, mlp, parallel):
    n, wiring = 5, Wiring(5, heads, kv, bool(mlp), bool(parallel))
    before = [1 + layer * (heads + mlp) for layer in range(n)]
    by_hand = sum((heads + 2 * kv) * b + mlp * (b + (1 - parallel) * heads) for b in before)
    assert wiring.n_edges == by_hand + wiring.n_sources
    assert wiring.find(*wiring.edge(7)) == 7
    flags = np.random.default_rng(0).random(wiring.n_edges)
    np.testing.assert_allclose(wiring.flat(wiring.wires(flags)), flags, rtol=1e-6)


def test_an_edge_that_is_none_is_refused():
    with pytest.raises(ValueError, match="the source must write before the reader reads"):
        Wiring(2, 4, 2).find(Node("z", 1, 0), Node("mlp_in", 0))


@pytest.mark.parametrize("name", slow_at(NAMES, "grouped", "parallel"))
def test_without_drops_the_base_and_with_all_the_source(name):
    model, prompts = tiny(name), pairs(pads=1)
    n = Wiring.of(model).n_edges
    ends = patching.patch(model, prompts, [Node("z", 0, 0)])
    np.testing.assert_allclose(values(name, np.zeros(n)), ends.base, atol=2e-5)
    np.testing.assert_allclose(values(name, np.ones(n)), ends.source, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_exact_edges_are_those_of_the_engine(name):
    model, prompts = tiny(name), pairs(pads=1)
    wiring = Wiring.of(model)
    some = np.arange(0, wiring.n_edges, 23)
    found = patching.patch_edges(model, prompts, some[::-1])
    base = values(name, np.zeros(wiring.n_edges))
    for i, edge in enumerate(some[::-1]):
        one = values(name, np.arange(wiring.n_edges) == edge)
        np.testing.assert_allclose(found.raw[:, i], one - base, atol=3e-5)


@pytest.mark.parametrize("name", slow_at(NAMES, "grouped", "parallel"))
def test_eap_is_the_slope_of_the_edge_mask_at_0(name):
    model, prompts = tiny(name), pairs(pads=1)
    scores = attribution.edges(model, prompts)
    slope = jax.grad(lambda drop: values(name, drop).sum())(jnp.zeros(scores.shape[1]))
    close(scores.sum(axis=0), slope, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_sums_of_edges_are_nodes_and_inputs(name):
    """Law 12: over readers, AtP of the source; over sources, delta in_v . gradient in_v."""
    sums_of_edges(tiny(name), pairs(pads=1), 1e-5)


def sums_of_edges(model, prompts, tolerance):
    wiring = Wiring.of(model)
    scores = attribution.edges(model, prompts)
    sites = ("head_out", "mlp_out", "mlp_in") if wiring.mlp else ("head_out",)
    node = attribution.nodes(model, prompts, sites=sites).raw
    by_source = np.zeros((len(scores), wiring.n_sources))
    np.add.at(by_source.T, wiring.source, scores.T)
    heads = np.asarray(node.head_out)  # as they are added to the stream, behind a post-norm
    if wiring.mlp:
        heads = np.concatenate([heads, np.asarray(node.mlp_out)[:, :, None]], axis=2)
    close(by_source[:, 1:], heads.reshape(len(scores), -1), tolerance)
    if wiring.mlp:
        into = [
            scores[:, wiring.reader == wiring.readers.index(Node("mlp_in", layer))].sum(axis=1)
            for layer in range(wiring.n_layers)
        ]
        close(np.stack(into, axis=1), np.asarray(node.mlp_in), tolerance)


@pytest.mark.slow
def test_sums_of_edges_on_smollm2(smollm2):
    model, tokenizer = smollm2
    sums_of_edges(model, ioi(tokenizer, n=2), 1e-4)


@pytest.mark.gemma
def test_sums_of_edges_on_gemma3():
    model, tokenizer = load_model("gemma3-270m")
    sums_of_edges(model, ioi(tokenizer, n=2), 1e-4)


@pytest.mark.slow
def test_averaged_slopes_on_smollm2_are_the_total_effect(smollm2):
    model, tokenizer = smollm2
    prompts = ioi(tokenizer, n=2)
    scores = attribution.edges(model, prompts, along="inputs", steps=64, rule="midpoint")
    ends = patching.patch(model, prompts, [Node("z", 0, 0)])
    found = scores[:, Wiring.of(model).source == 0].sum(axis=1)
    np.testing.assert_allclose(found, ends.source - ends.base, rtol=0.01)


def test_the_engines_slope_is_that_of_finite_differences():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, prompts = tiny("grouped", jnp.float64), pairs(pads=1).arrays()
        wiring = Wiring.of(model)
        at, way = np.random.default_rng(0).random((2, wiring.n_edges))
        here = cone(model, prompts.clean, prompts.mask, 0)
        other, _ = writes(model, here.of(prompts.corrupt), wiring)

        @jax.jit
        def metric(drop, other):
            logits = run_edges(model, here, wiring, wiring.wires(drop), other)
            return logit_difference(logits, prompts).sum()

        on_drop, on_other = jax.grad(metric, argnums=(0, 1))(jnp.asarray(at), other)
        h, move = 1e-6, np.random.default_rng(1).normal(size=other.shape)
        numeric = (metric(at + h * way, other) - metric(at - h * way, other)) / (2 * h)
        np.testing.assert_allclose(on_drop @ way, numeric, rtol=1e-6)
        numeric = (metric(at, other + h * move) - metric(at, other - h * move)) / (2 * h)
        np.testing.assert_allclose((on_other * move).sum(), numeric, rtol=1e-6)


def test_all_edges_out_of_a_source_are_its_activation_patch():
    model, prompts = tiny("grouped"), pairs(pads=1)
    wiring, nodes = Wiring.of(model), [Node("z", 1, 3), Node("mlp_out", 0)]
    exact = patching.patch(model, prompts, nodes)
    for i, node in enumerate(nodes):
        out = wiring.source == wiring.sources.index(node)
        np.testing.assert_allclose(values("grouped", out) - exact.base, exact.raw[:, i], atol=3e-5)


def test_a_resumed_run_is_the_whole_run():
    model, prompts = tiny("grouped"), pairs(pads=1).arrays()
    wiring, rng = Wiring.of(model), np.random.default_rng(0)
    early = rng.random(wiring.n_edges) < 0.3
    drop = np.where(wiring.layer < 2, early, rng.random(wiring.n_edges) < 0.5)
    here = cone(model, prompts.clean, prompts.mask, 4)
    other, _ = writes(model, here.of(prompts.corrupt), wiring)
    start = edge_start(model, here, wiring, wiring.wires(early), other)
    whole = run_edges(model, here, wiring, wiring.wires(drop), other)
    found = resume_edges(model, here, wiring, wiring.wires(drop), other, start, jnp.asarray(2))
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_position_axis_drops_edges_there_alone():
    model, prompts = tiny("grouped"), pairs(first=3).arrays()
    wiring = Wiring.of(model)
    edge = wiring.find(Node("embed", 0), Node("v_in", 1, 0))
    here = cone(model, prompts.clean, prompts.mask, 0)
    other, base = writes(model, here.of(prompts.corrupt), wiring)
    base, _ = here.run(model, logits_at=-1)
    flags = jnp.zeros(wiring.n_edges).at[edge].set(1)

    def at(columns):
        drop = jax.tree.map(lambda w: w[..., None] * columns.astype(w.dtype), wiring.wires(flags))
        return run_edges(model, here, wiring, drop, other)

    whole = run_edges(model, here, wiring, wiring.wires(flags), other)
    np.testing.assert_allclose(at(jnp.arange(7) == 3), whole, atol=1e-5)
    np.testing.assert_allclose(at(jnp.arange(7) != 3), base, atol=1e-5)
    found = patching.patch_edges(model, pairs(first=3), [edge], pos="changed").raw
    whole = patching.patch_edges(model, pairs(first=3), [edge]).raw
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_averaged_slopes_out_of_the_input_are_the_total_effect():
    """Completeness of the path integral at the first cut, here 64 midpoints."""
    model, prompts = tiny("grouped"), pairs(first=2)
    scores = attribution.edges(model, prompts, along="inputs", steps=64, rule="midpoint")
    ends = patching.patch(model, prompts, [Node("z", 0, 0)])
    total = ends.source - ends.base
    found = scores[:, Wiring.of(model).source == 0].sum(axis=1)
    np.testing.assert_allclose(found, total, rtol=0.01)


def test_averaged_paths_are_means_of_their_points():
    model, prompts = tiny("grouped"), pairs()
    at_ends = attribution.edges(model, prompts, along="ends")
    back = attribution.edges(model, prompts, direction="denoise")
    close(at_ends, (attribution.edges(model, prompts) - back) / 2, 1e-5)
    one = attribution.edges(model, prompts, along="inputs", steps=1, rule="left")
    close(one, attribution.edges(model, prompts), 1e-5)
    moving = attribution.edges(model, prompts, along="activations", steps=1, rule="left")
    close(moving, attribution.edges(model, prompts), 1e-4)


def test_kl_at_the_clean_run_is_warned_of():
    with pytest.warns(attribution.VanishingGradient, match="every score will be 0"):
        scores = attribution.edges(tiny("grouped"), pairs(), kl)
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def test_relevance_propagation_gives_queries_and_keys_nothing():
    model, prompts = tiny("grouped"), pairs()
    wiring = Wiring.of(model)
    scores = attribution.edges(model, prompts, backward="relp")
    np.testing.assert_allclose(scores[:, wiring.kind < 2], 0, atol=1e-7)
    node = attribution.nodes(model, prompts, sites=("z",), rule="relp").raw.z
    of_head = scores[:, wiring.source == wiring.sources.index(Node("z", 1, 2))].sum(axis=1)
    np.testing.assert_allclose(of_head, node[:, 1, 2], atol=1e-5)


def test_words_that_edges_do_not_know():
    model, prompts = tiny("grouped"), pairs()
    with pytest.raises(ValueError, match="along='path': use one of \"point\""):
        attribution.edges(model, prompts, along="path")
    with pytest.raises(ValueError, match='use backward="gradient"'):
        attribution.edges(model, prompts, backward="lrp")
    with pytest.raises(ValueError, match="use 0..189"):
        patching.patch_edges(model, prompts, [190])
