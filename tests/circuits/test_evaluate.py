"""Ablation against plain loops, and what faithfulness must be at its ends."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, close, pairs, tiny

from jaxcirc.circuits import ablated_values, all_nodes, bounds, evaluate
from jaxcirc.patching import Ablation, means
from jaxcirc.taps import Node, Read, Set, Sites, run
from jaxcirc.tasks import kl, logit_difference

MODEL = tiny("learned")
PROMPTS = answered(MODEL, pairs(first=3, batch=8, length=7, pads=2))
"""Two templates, and one prompt shorter than the others: three groups."""
CIRCUIT = [Node("z", 0, 1), Node("z", 2, 3), Node("mlp_out", 1)]


@pytest.fixture(scope="module")
def ablation():
    return means(MODEL, PROMPTS)


@pytest.fixture(scope="module")
def corrupt():
    reads = Sites(z=Read(), mlp_out=Read())
    return run(MODEL, PROMPTS.corrupt, reads, mask=PROMPTS.mask)[1]


def group(i: int) -> list[int]:
    """The prompts whose mean prompt i is ablated with: same template, same length."""
    key = [(int(t), int(m.sum())) for t, m in zip(PROMPTS.templates, PROMPTS.mask, strict=True)]
    return [j for j in range(len(PROMPTS)) if key[j] == key[i]]


def by_hand(circuit, corrupt, metric=logit_difference) -> np.ndarray:
    """The oracle: every prompt by itself, its values made by plain loops."""
    found = []
    for i in range(len(PROMPTS)):
        edits, free = {}, ~np.asarray(PROMPTS.mask)[i]
        free[np.argmax(np.asarray(PROMPTS.mask)[i])] = True
        for site in ("z", "mlp_out"):
            value = np.mean([np.asarray(getattr(corrupt, site))[:, j] for j in group(i)], axis=0)
            off = np.ones(value.shape, bool)
            off[:, free] = False
            for node in circuit:
                cell = node.layer if node.index is None else (node.layer, slice(None), node.index)
                if node.site == site:
                    off[cell] = False
            edits[site] = Set(jnp.asarray(value)[:, None], jnp.asarray(off)[:, None])
        one = PROMPTS.take([i])
        logits, _ = run(MODEL, one.clean, Sites(**edits), mask=one.mask, logits_at=-1)
        found.append(float(metric(logits, one)[0]))
    return np.asarray(found)


def test_means_are_those_of_the_group_position_by_position(ablation, corrupt):
    assert len(set(np.asarray(ablation.group).tolist())) == 3
    for site in ("z", "mlp_out"):
        value = np.asarray(getattr(ablation.values, site))[:, np.asarray(ablation.group)]
        for i in range(len(PROMPTS)):
            close(value[:, i], np.asarray(getattr(corrupt, site))[:, group(i)].mean(axis=1))


@pytest.mark.parametrize("circuit", [[], CIRCUIT], ids=["empty", "three nodes"])
def test_ablation_equals_plain_loops(ablation, corrupt, circuit):
    close(ablated_values(MODEL, PROMPTS, [circuit], ablation)[0], by_hand(circuit, corrupt), 1e-4)


def test_ablating_nothing_is_the_clean_run(ablation):
    logits, _ = run(MODEL, PROMPTS.clean, mask=PROMPTS.mask, logits_at=-1)
    nothing = ablated_values(MODEL, PROMPTS, [all_nodes(MODEL)], ablation)[0]
    close(nothing, logit_difference(logits, PROMPTS))
    close(ablated_values(MODEL, PROMPTS, [all_nodes(MODEL)], ablation, kl)[0], 0 * nothing, 1e-1)


def test_first_tokens_and_padding_keep_their_value(ablation):
    """Whatever stands there in the means is never used."""
    columns = {int(g): np.asarray(m) for g, m in zip(ablation.group, PROMPTS.mask, strict=True)}
    kept = np.stack([~m | (m.cumsum() == 1) for _, m in sorted(columns.items())])

    def spoil(value):
        return jnp.where(kept.reshape(1, *kept.shape, *[1] * (value.ndim - 3)), jnp.nan, value)

    values = Sites(**{site: spoil(value) for site, value in ablation.values.items()})
    spoilt = Ablation(values, ablation.group, ablation.sizes)
    found, expected = (ablated_values(MODEL, PROMPTS, [[]], m) for m in (spoilt, ablation))
    np.testing.assert_array_equal(found, expected)


def test_faithfulness_at_its_ends(ablation):
    ranked = all_nodes(MODEL)
    options = {"ablation": ablation, "draws": 2}
    curve = evaluate(MODEL, PROMPTS, ranked, (0, 4, len(ranked)), **options)
    assert curve.sizes == (0, 4, len(ranked)) and curve.random.shape == (3, 2)
    assert [curve.faithfulness[i].value for i in (0, 2)] == pytest.approx([0, 1], abs=1e-5)
    assert [curve.complement[i].value for i in (0, 2)] == pytest.approx([1, 0], abs=1e-5)
    np.testing.assert_allclose(curve.random[[0, 2]], [[0, 0], [1, 1]], atol=1e-5)
    middle = ablated_values(MODEL, PROMPTS, [ranked[:4]], ablation)[0].mean()
    expected = (middle - curve.empty.mean()) / (curve.full.mean() - curve.empty.mean())
    assert curve.faithfulness[1].value == pytest.approx(expected, rel=1e-3)


def test_random_sets_depend_on_the_seed(ablation):
    curves = [
        evaluate(MODEL, PROMPTS, CIRCUIT, (3,), ablation=ablation, draws=3, seed=seed).random
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert (curves[0] != curves[2]).any()


def test_many_circuits_are_taken_a_few_at_a_time(ablation):
    circuits = [all_nodes(MODEL)[: 2 * i] for i in range(7)]
    told = []
    found = ablated_values(
        MODEL, PROMPTS, circuits, ablation, progress=lambda *now: told.append(now), at_once=3
    )
    assert found.shape == (7, 8) and told == [(3, 7), (6, 7), (7, 7)]
    close(found, ablated_values(MODEL, PROMPTS, circuits, ablation))


def test_a_reference_may_be_longer_and_is_averaged_by_template(ablation):
    wider = PROMPTS.padded_to(9)
    found = means(MODEL, PROMPTS, reference=wider)
    for site, value in found.values.items():
        close(value, getattr(ablation.values, site), 1e-4)


def test_templates_of_one_prompt_each_are_averaged_by_length(corrupt):
    alone = dataclasses.replace(PROMPTS, templates=jnp.arange(len(PROMPTS)))
    found, lengths = means(MODEL, alone), PROMPTS.lengths
    for i in range(len(PROMPTS)):
        same = np.nonzero(lengths == lengths[i])[0]
        assert found.sizes[found.group[i]] == len(same)
        close(found.values.z[:, found.group[i]], corrupt.z[:, same].mean(axis=1), 1e-4)


def test_prompts_in_batches_are_the_same_prompts(ablation, corrupt):
    circuits = [CIRCUIT, [], all_nodes(MODEL)]
    whole = ablated_values(MODEL, PROMPTS, circuits, ablation)
    close(ablated_values(MODEL, PROMPTS, circuits, ablation, batch=3), whole, 1e-4)
    for site, value in means(MODEL, PROMPTS, batch=3).values.items():
        close(value, getattr(ablation.values, site), 1e-4)


def test_nothing_to_explain_is_an_error(ablation):
    with pytest.raises(ValueError, match="too near 0 to divide by"):
        bounds(MODEL, PROMPTS, ablation, lambda logits, prompts: logits[:, 0] * 0)


def test_a_template_without_reference_is_an_error():
    other = dataclasses.replace(PROMPTS, templates=PROMPTS.templates + 5)
    with pytest.raises(
        ValueError, match="no reference prompt has template 0 at 5 tokens: draw more"
    ):
        means(MODEL, PROMPTS, reference=other)


def test_other_sites_cannot_be_in_a_node_circuit(ablation):
    with pytest.raises(ValueError, match="a node circuit holds the sites z, mlp_out"):
        ablated_values(MODEL, PROMPTS, [[Node("attn_out", 1)]], ablation)


def test_a_model_without_mlps_has_heads_alone():
    nodes = all_nodes(tiny("attention"))
    assert len(nodes) == 12 and {node.site for node in nodes} == {"z"}
