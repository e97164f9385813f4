"""What circuits of features are worth, against plain loops; random sets, and files."""

import dataclasses

import numpy as np
import pytest
from cases import close
from feature_ablation import ablated, pruned
from feature_oracle import Case, case

from jaxcirc.circuits.features import (
    FeatureCircuit,
    circuit_values,
    edge_values,
    edges,
    errors_of,
    faithfulness,
    nodes,
    random_like,
    select,
    select_edges,
)
from jaxcirc.tasks import recovered


@pytest.fixture(scope="module")
def scores(double_fixtures):
    at = case()
    return nodes(at.model, at.prompts, at.basis)


def values(at, scores, circuits, **options):
    return circuit_values(at.model, at.prompts, at.basis, scores.layout, circuits, **options)


def test_sets_of_nodes_against_a_plain_loop(scores):
    at, best = case(), select(scores, 60)
    sets = [best, best[:7], np.zeros(0, int)]
    found = values(at, scores, sets)
    for row, columns in zip(found, sets, strict=True):
        close(row, ablated(at, scores.layout.masks(columns)), 1e-9)
    outside = values(at, scores, sets[:1], outside=True)[0]
    close(outside, ablated(at, [~m for m in scores.layout.masks(best)]), 1e-9)
    close(values(at, scores, [np.zeros(0, int)], outside=True)[0], scores.base, 1e-9)


def test_errors_and_free_layers(scores):
    at, best = case(), select(scores, 60)
    masks = scores.layout.masks(best)

    def by_hand(change):
        kept = [mask.copy() for mask in masks]
        for place, mask in zip(at.basis.places, kept, strict=True):
            change(place, mask)
        return ablated(at, kept)

    def errors(flag, sites):
        def change(place, mask):
            if place.site in sites:
                mask[:, -1] = flag

        return change

    every = {place.site for place in at.basis.places}
    close(values(at, scores, [best], errors="removed")[0], by_hand(errors(False, every)), 1e-9)
    close(values(at, scores, [best], errors="kept")[0], by_hand(errors(True, every)), 1e-9)
    some = ("attn_out", "mlp_out")
    close(values(at, scores, [best], errors=some)[0], by_hand(errors(False, some)), 1e-9)

    def free(place, mask):
        mask[:] |= place.layer < 1

    close(values(at, scores, [best], start=1)[0], by_hand(free), 1e-9)
    with pytest.raises(ValueError, match="errors='none': use \"default\""):
        values(at, scores, [best], errors="none")


def test_faithfulness_and_what_it_costs(scores):
    at, sets = case(), [select(scores, n) for n in (5, 40, 10**6)]
    every = np.arange(scores.layout.size)
    found = faithfulness(
        at.model, at.prompts, at.basis, scores.layout, [*sets, every], value="zero", at_once=4
    )
    assert found.sizes[:2] == (5, 40) and found.sizes[3] == scores.layout.size
    assert found.scalars[1] == 40 + 7 * int(scores.layout.errors(sets[1]).sum())
    assert found.faithful[3].value == pytest.approx(1, abs=1e-9)
    assert found.complement[3].value == pytest.approx(0, abs=1e-9)
    clusters = np.asarray(at.prompts.templates)
    expected = recovered(found.values[1], found.empty, found.full, clusters)
    assert found.faithful[1] == expected
    removed = faithfulness(
        at.model,
        at.prompts,
        at.basis,
        scores.layout,
        sets[1:2],
        errors="removed",
        start=1,
        value="zero",
    )
    layers = [at.basis.places[p].layer for p in scores.layout.split(sets[1])[0]]
    features = ~scores.layout.errors(sets[1]) & (np.asarray(layers) >= 1)
    assert removed.sizes == removed.scalars == (int(features.sum()),)


def test_the_size_at_a_level():
    from jaxcirc.circuits.features import Faithfulness
    from jaxcirc.tasks import Interval

    f = tuple(Interval(x, 0, 0, 3, 3) for x in (0.9, 0.2, 0.4))
    none = np.zeros((3, 1))
    found = Faithfulness((100, 10, 30), (1, 1, 1), f, (), none, none, none[0], none[0])
    assert found.size_at(0.3) == pytest.approx(20) and found.size_at(0.1) == pytest.approx(5)
    assert np.isnan(found.size_at(0.95))


@pytest.mark.parametrize("value", ["counterfactual", "zero", "resample"])
def test_other_values(scores, value):
    at = case()
    everything = [np.arange(scores.layout.size), np.zeros(0, int)]
    full, empty = values(at, scores, everything, value=value)
    close(full, scores.base, 1e-9)
    assert np.abs(full - empty).max() > 1e-3
    if value == "counterfactual":
        last = scores.joint[:, -1]
        close(empty, scores.base + last, 1e-9)


def test_kept_edges_against_a_plain_loop(scores):
    at = case()
    some = [*select(scores, 9), errors_of(scores.layout)[6 + 4], errors_of(scores.layout)[23]]
    columns = np.unique(some)
    found = edges(at.model, at.prompts, at.basis, scores.nodes(columns))
    rng = np.random.default_rng(1)
    kept = rng.random((3, len(found))) < np.asarray([[0.5], [0.8], [0.2]])
    kept = np.concatenate([kept, np.ones_like(kept[:1])])
    cells = np.stack(scores.layout.split(columns), axis=1)
    result = edge_values(at.model, at.prompts, at.basis, found, kept, chunk=4)
    for row, flags in zip(result, kept, strict=True):
        heard = np.zeros((len(columns) + 1, len(columns)), bool)
        heard[found.reader[flags], found.source[flags]] = True
        close(row, pruned(at, cells, heard), 1e-9)
    close(result[-1], values(at, scores, [columns])[0], 1e-9)


def test_edges_with_free_layers(scores):
    """All edges among some nodes, those below the start free: what the nodes alone give."""
    at = case()
    columns = select(scores, 30)
    found = edges(at.model, at.prompts, at.basis, scores.nodes(columns))
    every = np.ones((1, len(found)), bool)
    options = {"start": 1, "chunk": 4}
    free = edge_values(at.model, at.prompts, at.basis, found, every, **options)[0]
    close(free, values(at, scores, [columns], start=1)[0], 1e-9)
    assert np.abs(free - values(at, scores, [columns])[0]).max() > 1e-3
    low = np.asarray([node.layer < 1 for node in found.nodes])[found.source]
    assert low.any() and not low.all()
    close(free, edge_values(at.model, at.prompts, at.basis, found, ~low[None], **options)[0], 1e-12)
    with pytest.raises(ValueError, match="no place lies at layer 9"):
        edge_values(at.model, at.prompts, at.basis, found, every, start=9)


def test_random_sets_keep_errors_and_numbers(scores):
    best = select(scores, 80)
    drawn = random_like(scores, best, seed=1)
    errors = scores.layout.errors(best)
    assert len(set(drawn)) == 80 and set(best[errors]) <= set(drawn)
    assert scores.layout.errors(drawn).sum() == errors.sum()
    assert set(drawn) <= set(scores.active) and set(drawn) != set(best)
    assert scores.layout.errors(errors_of(scores.layout)).all()
    assert len(errors_of(scores.layout)) == 4 * 6


def test_prompts_and_bases_that_do_not_fit(scores):
    at, best = case(), select(scores, 5)
    mask = np.array(at.prompts.mask)
    mask[:, 0] = False
    prompts = dataclasses.replace(at.prompts, mask=mask).padded_to(5)
    short = Case(at.model, prompts, at.basis)
    with pytest.raises(ValueError, match="nodes at 6 positions, prompts of 5 tokens"):
        values(short, scores, [best])
    with pytest.raises(ValueError, match="another basis's"):
        values(Case(at.model, at.prompts, at.basis.since(1)), scores, [best])
    with pytest.raises(ValueError, match="no place lies at layer 9"):
        at.basis.since(9)
    assert at.basis.since(1).places == at.basis.places[1:]


def test_a_circuit_is_read_as_it_was_written(scores, tmp_path):
    at = case()
    found = edges(at.model, at.prompts, at.basis, scores.nodes(select(scores, 12)))
    kept = select_edges(found, 15)
    facts = {"nodes": {"n": 12}, "edges_kept": {"n": 15}}
    circuit = FeatureCircuit.of(scores, found, kept, facts)
    back = FeatureCircuit.load(circuit.save(tmp_path / "circuit.json"))
    assert back.nodes == circuit.nodes and back.facts == circuit.facts
    assert back.facts["edges_kept"] == {"n": 15} and back.gaps == circuit.gaps
    for name in ("importance", "source", "reader", "weight"):
        np.testing.assert_array_equal(getattr(back, name), getattr(circuit, name))
    assert back.importance[0] == scores.importance[select(scores, 1)[0]]
    assert back.error_share == scores.error_share and len(back.weight) == 15
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no feature circuit"):
        FeatureCircuit.load(tmp_path / "other.json")
