"""Edges split by place: their parts add up, and each is what the engine says of it there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, pairs, slow_at, tiny

from jaxcirc import attribution, patching
from jaxcirc.circuits import Graph, circuit_values, formats, pruned, select
from jaxcirc.taps import Node, Wiring, cone, run_edges, writes
from jaxcirc.tasks import logit_difference

PLACES = ("first", "changed")
WHOLE = Wiring(3, 2, 1)
SPLIT = Wiring(3, 2, 1, places=("S", "end"))


def placed_pairs(**options):
    """Pairs whose first real token, and the first that differs, are spans."""
    prompts = pairs(**options)
    first = prompts.mask & (jnp.cumsum(prompts.mask, axis=1) == 1)
    spans = {**prompts.spans, "first": first}
    return type(prompts)(**{**vars(prompts), "spans": spans})


def test_the_table_repeats_every_edge_at_every_place():
    assert SPLIT.n_edges == 3 * WHOLE.n_edges
    assert SPLIT.every_place == ("S", "end", "elsewhere")
    for name in ("source", "kind", "layer", "index", "reader"):
        np.testing.assert_array_equal(getattr(SPLIT, name)[1::3], getattr(WHOLE, name))
    source, reader = SPLIT.edge(4)
    assert (source.pos, reader.pos) == ("end", "end")
    assert SPLIT.find(source, reader) == 4
    values = jnp.arange(SPLIT.n_edges, dtype=jnp.float32)
    np.testing.assert_array_equal(SPLIT.flat(SPLIT.wires(values)), values)


@pytest.mark.parametrize("name", slow_at(["grouped", "learned"], "grouped"))
def test_slopes_by_place_add_up(name):
    model, prompts = tiny(name), placed_pairs(pads=1)
    whole = attribution.edges(model, prompts)
    parts = attribution.edges(model, prompts, wiring=Wiring.of(model, places=PLACES))
    parts = parts.reshape(*whole.shape, 3)
    close(parts.sum(axis=2), whole)
    assert np.abs(parts[..., 1]).max() > 0 and np.abs(parts[..., 2]).max() > 0
    np.testing.assert_allclose(parts[..., 0], 0, atol=1e-7)  # both prompts begin alike


def test_exact_edges_by_place_are_those_of_the_engine():
    model, prompts = tiny("grouped"), placed_pairs(first=3)
    wiring, whole = Wiring.of(model, places=PLACES), Wiring.of(model)
    chosen = np.asarray([wiring.n_edges // 2 + 1, wiring.n_edges - 1])
    found = patching.patch_edges(model, prompts, chosen, wiring=wiring).raw
    here = cone(model, prompts.clean, prompts.mask, 0)
    other, _ = writes(model, here.of(prompts.corrupt), whole)
    base, _ = here.run(model, logits_at=-1)
    at = prompts.places(PLACES)
    for i, number in enumerate(chosen):
        flags = jnp.zeros(whole.n_edges).at[number // 3].set(1)
        columns = jnp.asarray(at == number % 3, jnp.float32)
        drop = jax.tree.map(lambda w, c=columns: w[..., None, None] * c, whole.wires(flags))
        moved = run_edges(model, here, whole, drop, other)
        want = logit_difference(moved, prompts) - logit_difference(base, prompts)
        np.testing.assert_allclose(found[:, i], want, atol=2e-5)


def test_circuits_by_place_lie_between_nothing_and_everything():
    model, prompts = tiny("grouped"), placed_pairs(pads=1)
    wiring, whole = Wiring.of(model, places=PLACES), Wiring.of(model)
    rng = np.random.default_rng(0)
    some = rng.random(whole.n_edges) < 0.5
    masks = np.stack([np.ones_like(some), np.zeros_like(some), some])
    alike = circuit_values(model, prompts, np.repeat(masks, 3, axis=1), wiring=wiring)
    close(alike, circuit_values(model, prompts, masks, wiring=whole))
    changed = np.tile(np.arange(3) == 0, whole.n_edges)  # what both runs share may go
    everything = circuit_values(model, prompts, ~changed[None], wiring=wiring)
    close(everything[0], alike[0])


def test_what_is_read_as_a_key_serves_every_place():
    def at(node: Node, pos: str) -> Node:
        return Node(node.site, node.layer, node.index, pos)

    key = (at(Node("embed", 0), "S"), at(Node("k_in", 0, 0), "S"))
    out = (at(Node("z", 0, 1), "end"), at(Node("final_resid", 3), "end"))
    assert pruned(Graph.of(SPLIT, [key, out])).n_edges == 2
    query = (at(Node("embed", 0), "S"), at(Node("q_in", 0, 1), "S"))
    assert pruned(Graph.of(SPLIT, [query, out])).n_edges == 0


def test_selection_and_merging():
    importance = np.random.default_rng(0).normal(size=SPLIT.n_edges)
    graph = select(SPLIT, importance, 9, prune=False)
    assert graph.n_edges == 9 and graph.edges[0][0].pos in SPLIT.every_place
    merged = graph.merged()
    assert merged.wiring == WHOLE and set(np.flatnonzero(merged.kept)) == set(
        np.flatnonzero(graph.kept) // 3
    )
    np.testing.assert_allclose(merged.importance, importance.reshape(-1, 3).sum(axis=1))
    grown = select(SPLIT, importance, 20, how="greedy", prune=False)
    assert grown.n_edges == 20 and pruned(grown).n_edges <= 20


def test_what_cannot_be_split_says_so(tmp_path):
    model, prompts = tiny("grouped"), placed_pairs()
    wiring = Wiring.of(model, places=PLACES)
    for scored in (attribution.flow, attribution.edges_qk):
        with pytest.raises(ValueError, match="does not split edges by place"):
            scored(model, prompts, wiring=wiring)
    with pytest.raises(ValueError, match="overlap"):
        attribution.edges(model, prompts, wiring=Wiring.of(model, places=("changed", "changed")))
    with pytest.raises(ValueError, match="there is no span"):
        attribution.edges(model, prompts, wiring=Wiring.of(model, places=("S7",)))
    kept = np.zeros(wiring.n_edges, bool)
    with pytest.raises(ValueError, match="merged"):
        formats.write_dot(Graph(wiring, kept), tmp_path / "x.dot")
