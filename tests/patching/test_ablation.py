"""What a cell is set to: every kind of ablation against whole runs, windows, unions, noise."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs, slow_at, tiny

from jaxcirc import attribution, patching
from jaxcirc.patching import (
    Cell,
    DegeneratePatch,
    complement,
    constant,
    means,
    noised,
    optimal,
    patch,
    resampled,
    sweep,
)
from jaxcirc.taps import Add, Node, Read, Set, Sites, run
from jaxcirc.tasks import kl, logit_difference

MODEL = tiny("grouped")
PROMPTS = pairs(first=3, batch=6, pads=2)


def metric_of(edits=None):
    edits = Sites() if edits is None else edits
    logits, _ = run(MODEL, PROMPTS.clean, edits, mask=PROMPTS.mask, logits_at=-1)
    return np.asarray(logit_difference(logits, PROMPTS))


def kept():
    """True at padding and at each prompt's first token."""
    mask = np.asarray(PROMPTS.mask)
    return ~mask | (np.cumsum(mask, axis=1) == 1)


def whole_run(site, layer, value):
    """The effect of setting one layer of a site, by hand."""
    layers = (np.arange(MODEL.n_layers) == layer)[:, None, None]
    where = (layers & ~kept()[None]).reshape(MODEL.n_layers, *kept().shape, *[1] * (value.ndim - 2))
    value = jnp.broadcast_to(value, (MODEL.n_layers, *value.shape))
    return metric_of(Sites(**{site: Set(value, where)})) - metric_of()


def records(site, prompts=PROMPTS):
    _, seen = run(MODEL, prompts.corrupt, Sites(**{site: Read()}), mask=prompts.mask)
    return np.asarray(getattr(seen, site))


@pytest.mark.parametrize("site", ["mlp_out", "z", "resid_mid"])
def test_zero_and_means_equal_whole_runs(site):
    there = records(site)[1]
    free = ~kept()
    pooled = there[free].mean(axis=0)
    by_position = np.empty_like(there)
    for row in range(len(PROMPTS)):
        own = PROMPTS.templates == PROMPTS.templates[row]
        same = np.asarray(own & (PROMPTS.lengths == PROMPTS.lengths[row]))
        same = same if same.sum() > 1 else PROMPTS.lengths == PROMPTS.lengths[row]
        by_position[row] = there[same].mean(axis=0)
    expected = {"zero": there * 0, "mean_pooled": there * 0 + pooled, "mean": by_position}
    for kind, value in expected.items():
        found = sweep(MODEL, PROMPTS, site, by=(), layers=[1], value=kind).raw[:, 0]
        np.testing.assert_allclose(found, whole_run(site, 1, value), atol=1e-4, err_msg=kind)


def test_constants_by_number_and_by_array():
    by_number = sweep(MODEL, PROMPTS, "z", value=constant(MODEL, PROMPTS, {"z": 0.0}))
    np.testing.assert_array_equal(by_number.raw, sweep(MODEL, PROMPTS, "z", value="zero").raw)
    vector = jnp.linspace(-1, 1, 16)
    found = sweep(MODEL, PROMPTS, "mlp_out", value=constant(MODEL, PROMPTS, {"mlp_out": vector}))
    value = np.broadcast_to(vector, (*PROMPTS.clean.shape, 16))
    np.testing.assert_allclose(found.raw[:, 2], whole_run("mlp_out", 2, value), atol=1e-4)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 'z': it must broadcast to"):
        constant(MODEL, PROMPTS, {"z": jnp.ones(3)})
    with pytest.raises(ValueError, match="no values for 'z'"):
        sweep(MODEL, PROMPTS, "z", value=constant(MODEL, PROMPTS, {"mlp_out": 0.0}))


def test_a_constant_at_a_position_behind_the_cone():
    found = sweep(MODEL, PROMPTS, "resid_mid", by=("pos",), layers=[1], value="zero").raw[:, 0]
    assert not found[kept()].any() and (np.asarray(found)[~kept()] != 0).all()


def test_resampling_takes_another_prompt_of_the_template():
    drawn = resampled(PROMPTS.take([1, 2, 3, 4, 5]))
    rows = np.asarray(drawn.corrupt)
    before = np.asarray(PROMPTS.corrupt)[1:]
    for row, template in zip(rows, np.asarray(drawn.templates), strict=True):
        (match,) = np.nonzero((before == row).all(axis=1))[0]
        assert drawn.templates[match] == template
    assert not (rows == before).all(axis=1).any()
    with pytest.raises(ValueError, match="single prompt of 5 tokens: draw more prompts"):
        resampled(PROMPTS)


@pytest.mark.parametrize("site, choice", [("mlp_out", ()), ("z", (("head", 1),))])
def test_the_optimal_constant_is_no_worse_than_the_mean_and_near_the_best(site, choice):
    cell = Cell(site, 1, choice)
    best = optimal(MODEL, PROMPTS, [cell], steps=60)
    pooled = means(MODEL, PROMPTS, [site], pooled=True)
    losses = [
        float(patch(MODEL, PROMPTS, [cell], kl, value=value).raw.mean()) for value in (best, pooled)
    ]
    assert losses[0] < 0.9 * losses[1]
    table = np.asarray(getattr(best.values, site))
    rest = np.asarray(getattr(pooled.values, site))
    np.testing.assert_array_equal(table[[0, 2]], rest[[0, 2]])
    rng = np.random.default_rng(0)
    for _ in range(5):
        noise = 0.05 * rng.normal(size=table.shape) * rest.std()
        near = patching.Ablation(
            Sites(**{site: jnp.asarray(table + noise, jnp.float32)}), best.group, best.sizes
        )
        assert float(patch(MODEL, PROMPTS, [cell], kl, value=near).raw.mean()) > losses[0] * 0.98


def test_windows_are_unions_of_neighbours():
    wide = sweep(MODEL, PROMPTS, "mlp_out", window=3)
    nodes = [[Node("mlp_out", i) for i in near] for near in ((0, 1), (0, 1, 2), (1, 2))]
    np.testing.assert_allclose(wide.raw, patch(MODEL, PROMPTS, nodes).raw, atol=1e-5)
    value = records("mlp_out")
    both = np.array([True, True, False])[:, None, None, None]
    by_hand = metric_of(Sites(mlp_out=Set(value, both))) - metric_of()
    np.testing.assert_allclose(wide.raw[:, 0], by_hand, atol=1e-4)
    single = sweep(MODEL, PROMPTS, "mlp_out")
    np.testing.assert_allclose(single.summed(3).raw[:, 2], single.raw[:, 1:].sum(axis=1), atol=1e-6)
    with pytest.raises(ValueError, match="window=4: this model has 3 layers; use 1..3"):
        sweep(MODEL, PROMPTS, "mlp_out", window=4)


def test_unions_over_sites_and_complements():
    heads = [Node("z", 0, 1), Node("z", 2, 3)]
    rest = complement(MODEL, heads)
    assert len(rest) == 10 and not set(rest) & set(heads)
    found = patch(MODEL, PROMPTS, [[*heads, Node("mlp_out", 1)], rest]).raw
    off = np.zeros((3, 1, 1, 4, 1), bool)
    off[0, ..., 1, :] = off[2, ..., 3, :] = True
    mlp = np.array([False, True, False])[:, None, None, None]
    edits = Sites(z=Set(records("z"), off), mlp_out=Set(records("mlp_out"), mlp))
    np.testing.assert_allclose(found[:, 0], metric_of(edits) - metric_of(), atol=1e-4)
    others = metric_of(Sites(z=Set(records("z"), ~off))) - metric_of()
    np.testing.assert_allclose(found[:, 1], others, atol=1e-4)


def test_all_attention_at_the_last_position_is_named_as_degenerate():
    """And recovers 1: nothing else reaches the scored position."""
    every = [Cell("attn_out", layer, (("pos", 6),)) for layer in range(3)]
    with pytest.warns(DegeneratePatch, match="share the last token"):
        found = patch(MODEL, PROMPTS, [every], direction="denoise")
    np.testing.assert_allclose(found.raw[:, 0], found.source - found.base, atol=1e-4)
    by_head = [Node("z", layer, head) for layer in range(3) for head in range(4)]
    with pytest.warns(DegeneratePatch):
        patch(MODEL, PROMPTS, [by_head])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch(MODEL, PROMPTS, [every[:2], by_head[1:]])
        patch(MODEL, pairs(first=6), [every])


def test_noise_goes_on_the_span_with_three_standard_deviations():
    found = noised(MODEL, PROMPTS, "changed", draws=200)
    assert len(found) == 1200 and (found.clean == found.corrupt).all()
    noise, span = np.asarray(found.noise), np.asarray(found.span("changed"))
    assert not noise[~span].any()
    embedded = np.asarray(MODEL.embed)[np.asarray(PROMPTS.clean)][
        np.asarray(PROMPTS.span("changed"))
    ]
    assert noise[span].std() == pytest.approx(3 * embedded.std(), rel=0.02)
    assert np.abs(noise[span].mean()) < 0.05
    again = noised(MODEL, PROMPTS, "changed", draws=200)
    np.testing.assert_array_equal(again.noise, found.noise)
    assert again.hash() == found.hash() != noised(MODEL, PROMPTS, "changed", seed=1).hash()


@pytest.mark.parametrize(
    "name, direction",
    slow_at(
        [("grouped", "noise"), ("grouped", "denoise"), ("learned", "noise"), ("gemma", "denoise")],
        ("grouped", "noise"),
        ("grouped", "denoise"),
        ("gemma", "denoise"),
    ),
)
def test_patching_under_noise_equals_whole_runs(name, direction):
    model = tiny(name)
    prompts = noised(model, pairs(first=3, batch=3, pads=1), "changed", draws=2)
    found = sweep(model, prompts, "mlp_out", direction=direction)
    loud, still = Sites(embed=Add(prompts.noise)), Sites()
    base, source = (still, loud) if direction == "noise" else (loud, still)
    tokens, mask = prompts.clean, prompts.mask
    _, there = run(model, tokens, source | Sites(mlp_out=Read()), mask=mask)
    where = (np.arange(3) == 1)[:, None, None, None]
    edited = base | Sites(mlp_out=Set(there.mlp_out, where))
    after, before = (run(model, tokens, e, mask=mask, logits_at=-1)[0] for e in (edited, base))
    expected = logit_difference(after, prompts) - logit_difference(before, prompts)
    np.testing.assert_allclose(found.raw[:, 1], expected, atol=2e-4)
    by_column = sweep(model, prompts, "resid_mid", direction=direction, by=("pos",)).raw
    np.testing.assert_array_equal(by_column[:, :, :3], 0)
    np.testing.assert_allclose(by_column[:, 0, 3:].sum(axis=1) != 0, np.ones(len(prompts), bool))


def test_attribution_under_noise_is_the_slope():
    model = tiny("attention")
    prompts = noised(model, pairs(), "changed", draws=2)
    scores = attribution.nodes(model, prompts, sites=("attn_out",)).attn_out
    exact = sweep(model, prompts, "attn_out").raw
    np.testing.assert_allclose(scores[:, -1], exact[:, -1], atol=1e-4)


def test_a_patch_of_noise_by_itself_changes_nothing_bitwise():
    quiet = noised(MODEL, PROMPTS, "changed", scale=0.0, draws=1)
    np.testing.assert_array_equal(sweep(MODEL, quiet, "z").raw, 0)


def test_errors():
    with pytest.raises(ValueError, match="noise needs a span: .*these prompts have 'changed'"):
        noised(MODEL, PROMPTS)
    with pytest.raises(ValueError, match="draws=0"):
        noised(MODEL, PROMPTS, "changed", draws=0)
    with pytest.raises(ValueError, match="noise has no other way round"):
        noised(MODEL, PROMPTS, "changed").swap()
    with pytest.raises(ValueError, match="value='ones': use an Ablation, or one of 'source'"):
        sweep(MODEL, PROMPTS, "z", value="ones")
    with pytest.raises(ValueError, match='an ablation changes the clean run: direction="noise"'):
        sweep(MODEL, PROMPTS, "z", value="zero", direction="denoise")
    with pytest.raises(ValueError, match="serves all positions of a site or head"):
        optimal(MODEL, PROMPTS, [Cell("z", 0, (("pos", 3),))])
    with pytest.raises(ValueError, match="no nodes to patch"):
        patch(MODEL, PROMPTS, [[]])
