"""Laws of patching: 4 (AtP is the slope), 8 (causality), 10 (batching and the cone), 11
(traces)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import here, pairs, tiny

from jaxcirc import attribution, patching
from jaxcirc.models import toy
from jaxcirc.patching import Cell
from jaxcirc.patching._patch import pair, patched
from jaxcirc.taps import AXES, Add, Node, Read, Set, Sites, head_axis, run
from jaxcirc.tasks import Prompts, kl, logit_difference, probability

SWEPT = ("resid_pre", "k", "v_at_head", "pattern", "z", "mlp_post", "mlp_out")


def cells_of(model, site):
    """The first cell of the first layer and the last cell of the last layer."""
    axis = head_axis(site)
    last = 0 if axis is None else model.axis_size(axis) - 1
    choices = [((axis, i),) if axis else () for i in (last, 0)]
    return [Cell(site, 0, choices[0]), Cell(site, model.n_layers - 1, choices[1])]


def by_hand(model, prompts, cells, direction="noise"):
    """The oracle: whole runs, one patch at a time, no cone, no batching of patches."""
    base, source = prompts.clean, prompts.corrupt
    if direction == "denoise":
        base, source = source, base
    sites = sorted({cell.site for cell in cells})
    _, there = run(model, source, Sites(**{site: Read() for site in sites}), mask=prompts.mask)

    def edit(site, cell):
        value = getattr(there, site)
        where = np.zeros(value.shape, bool)
        index = [cell.layer] + [dict(cell.choice).get(axis, slice(None)) for axis in AXES[site]]
        where[tuple(index)] = cell.site == site
        return Set(value, where)

    def value(cell):
        edits = Sites(**{site: edit(site, cell) for site in sites})
        logits, _ = run(model, base, edits, mask=prompts.mask, logits_at=-1)
        return logit_difference(logits, prompts)

    nothing = Cell("", 0)
    return np.stack([value(cell) - value(nothing) for cell in cells], axis=1)


@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("name", ["grouped", "learned", "gemma"])
def test_patches_equal_whole_runs_one_at_a_time(name, direction):
    model, prompts = tiny(name), pairs(pads=2)
    cells = [cell for site in here(model, SWEPT) for cell in cells_of(model, site)]
    found = patching.patch(model, prompts, cells, direction=direction).raw
    np.testing.assert_allclose(found, by_hand(model, prompts, cells, direction), atol=2e-4)


@pytest.mark.parametrize("site", SWEPT)
def test_a_sweep_holds_the_effects_of_its_cells(site):
    model, prompts = tiny("grouped"), pairs(pads=2)
    effects, cells = patching.sweep(model, prompts, site), cells_of(model, site)
    first, last = ((c.layer, *[i for _, i in c.choice]) for c in cells)
    found = np.stack([effects.raw[:, *first], effects.raw[:, *last]], axis=1)
    np.testing.assert_allclose(found, by_hand(model, prompts, cells), atol=2e-4)


def test_a_source_equal_to_the_base_has_no_effect_bitwise():
    prompts = pairs()
    same = jax.tree.map(lambda x: x, prompts)
    same = Prompts(**{**vars(same), "corrupt": same.clean})
    effects = patching.sweep(tiny("grouped"), same, "z")
    np.testing.assert_array_equal(effects.raw, 0)


@pytest.mark.parametrize("name", ["grouped", "parallel", "capped"])
def test_positions_before_the_first_difference_have_effect_exactly_0(name):
    """Within one executable: the cone is made to begin at column 0, so that nothing is left out."""
    model, prompts = tiny(name), pairs(first=4)
    metrics = (("metric", logit_difference),)
    runs = pair(model, prompts, first=0, sites=("resid_pre",), metrics=metrics, direction="noise")
    cells = [Cell("resid_pre", 1, (("pos", column),)) for column in range(7)]
    picks = patching._patch.picks_of([(cell,) for cell in cells], 7, runs, None, 0)
    effects = np.asarray(patched(model, runs, picks, metrics=metrics)["metric"])
    np.testing.assert_array_equal(effects[:4], 0)
    assert (effects[4:] != 0).all()


def test_cells_before_every_difference_still_come_with_base_and_source():
    model, prompts = tiny("grouped"), pairs(first=4)
    told = []
    cells = [Cell("resid_pre", 1, (("pos", 2),))]
    effects = patching.patch(model, prompts, cells, progress=lambda *now: told.append(now))
    whole = patching.patch(model, prompts, [Node("mlp_out", 0)])
    np.testing.assert_array_equal(effects.raw, 0)
    np.testing.assert_allclose(effects.base, whole.base, atol=1e-5)
    np.testing.assert_allclose(effects.source, whole.source, atol=1e-5)
    assert told[-1] == (len(prompts), len(prompts))


def test_by_position_finds_the_same_as_whole_runs():
    model, prompts = tiny("grouped"), pairs(first=2)
    effects = patching.sweep(model, prompts, "resid_post", by=("pos",))
    assert effects.axes == ("example", "layer", "pos")
    np.testing.assert_array_equal(effects.raw[:, :, :2], 0)
    places = ((0, 2), (1, 4), (2, 6))
    cells = [Cell("resid_post", layer, (("pos", column),)) for layer, column in places]
    found = np.stack([effects.raw[:, *place] for place in places], axis=1)
    np.testing.assert_allclose(found, by_hand(model, prompts, cells), atol=2e-4)


def test_the_whole_stream_restores_the_source():
    """Patching resid_pre at every position recovers 1, at any layer."""
    effects = patching.sweep(tiny("grouped"), pairs(pads=1), "resid_pre", direction="denoise")
    for layer in range(3):
        np.testing.assert_allclose(effects.raw[:, layer], effects.source - effects.base, atol=1e-4)


def test_denoising_is_noising_the_other_way_round():
    prompts = pairs()
    swapped = Prompts(**{**vars(prompts), "clean": prompts.corrupt, "corrupt": prompts.clean})
    forth = patching.sweep(tiny("grouped"), prompts, "z", direction="denoise")
    back = patching.sweep(tiny("grouped"), swapped, "z", direction="noise")
    np.testing.assert_allclose(forth.raw, back.raw, atol=1e-5)
    np.testing.assert_allclose(forth.importance, -back.importance, atol=1e-5)


def test_all_heads_together_are_the_attention_output():
    model, prompts = tiny("grouped"), pairs()
    together = patching.sweep(model, prompts, "z", by=())
    np.testing.assert_allclose(
        together.raw, patching.sweep(model, prompts, "attn_out").raw, atol=1e-4
    )


def test_small_chunks_and_single_examples_give_the_same_effects():
    model, prompts = tiny("grouped"), pairs(batch=5)
    whole = patching.sweep(model, prompts, "z").raw
    np.testing.assert_allclose(patching.sweep(model, prompts, "z", memory=1).raw, whole, atol=1e-4)
    apart = jnp.concatenate([patching.sweep(model, prompts.take([i]), "z").raw for i in range(5)])
    np.testing.assert_allclose(apart, whole, atol=1e-4)


def test_prompts_of_several_suffixes_keep_their_order():
    model = tiny("grouped")
    parts = [pairs(first=first, batch=2) for first in (1, 5, 3, 6, 2)]
    mixed = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    expected = jnp.concatenate([patching.sweep(model, part, "z").raw for part in parts])
    np.testing.assert_allclose(patching.sweep(model, mixed, "z").raw, expected, atol=1e-4)


def test_chosen_nodes_have_the_effects_of_the_sweep():
    model, prompts = tiny("grouped"), pairs()
    nodes = [Node("mlp_out", 2), Node("z", 0, 3), Node("z", 2, 1), Node("mlp_out", 0)]
    found = patching.patch(model, prompts, nodes).raw
    heads, mlps = (patching.sweep(model, prompts, site).raw for site in ("z", "mlp_out"))
    expected = jnp.stack([mlps[:, 2], heads[:, 0, 3], heads[:, 2, 1], mlps[:, 0]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_node_at_a_position_is_that_cell_of_the_sweep():
    model, prompts = tiny("grouped"), pairs(first=4)
    nodes = [Node("z", 1, 3, pos=5), Node("resid_mid", 2, pos=6), Node("pattern", 1, 0, pos=5)]
    found = patching.patch(model, prompts, nodes).raw
    np.testing.assert_allclose(found[:2], by_hand(model, prompts, cells_at(5, 6))[:2], atol=2e-4)


def cells_at(one, other):
    head = ("head", 3), ("head", 0)
    return [
        Cell("z", 1, (head[0], ("pos", one))),
        Cell("resid_mid", 2, (("pos", other),)),
        Cell("pattern", 1, (head[1], ("dest", one))),
    ]


def test_a_span_is_the_same_as_its_position():
    model, prompts = tiny("grouped"), pairs(first=4)
    span = patching.sweep(model, prompts, "resid_mid", pos="changed").raw
    column = patching.sweep(model, prompts, "resid_mid", by=("pos",)).raw[:, :, 4]
    np.testing.assert_allclose(span, column, atol=1e-4)


def test_several_metrics_share_a_sweep():
    model, prompts = tiny("grouped"), pairs()
    both = patching.sweep(model, prompts, "z", {"p": probability, "ld": logit_difference, "kl": kl})
    np.testing.assert_allclose(both["ld"].raw, patching.sweep(model, prompts, "z").raw, atol=1e-5)
    np.testing.assert_allclose(both["kl"].base, 0, atol=1e-6)
    assert both["kl"].sign == 1.0 and both["p"].sign == -1.0


@pytest.mark.parametrize("name", ["grouped", "learned", "parallel", "gemma", "attention"])
def test_attribution_is_the_slope_of_the_exact_dial(name):
    """In float64: a central difference of whole runs, a step h of the way to the source."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, prompts, h = tiny(name, jnp.float64), pairs(pads=1), 1e-5
        sites = here(model, ("z", "mlp_out", "k", "pattern"))
        table = attribution.nodes(model, prompts, sites=sites).raw
        ways = {
            s: r - recorded(model, prompts.clean, sites)[s]
            for s, r in recorded(model, prompts.corrupt, sites).items()
        }
        for site, way in ways.items():
            scores = getattr(table, site)
            for layer in (0, model.n_layers - 1):
                cell = first_cell(site, layer, way.shape)
                steps = {s: np.zeros(w.shape) for s, w in ways.items()}
                ends = [
                    moved(model, prompts, steps | {site: sign * h * way * cell}) for sign in (1, -1)
                ]
                found = scores[:, layer, 0] if scores.ndim == 3 else scores[:, layer]
                np.testing.assert_allclose(
                    found, (ends[0] - ends[1]) / (2 * h), rtol=1e-4, atol=1e-7
                )


def recorded(model, tokens, sites):
    edits = Sites(**{site: Read() for site in sites})
    return dict(run(model, tokens, edits, mask=pairs(pads=1).mask)[1].items())


def moved(model, prompts, steps):
    """The metric with `steps` added at the sites."""
    edits = Sites(**{site: Add(jnp.asarray(step)) for site, step in steps.items()})
    logits, _ = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
    return logit_difference(logits, prompts)


def first_cell(site, layer, shape):
    """1 at one layer, and at the first head of a site that has heads."""
    cell = np.zeros(shape)
    heads = [i for i, axis in enumerate(AXES[site]) if "head" in axis]
    index = [layer] + [slice(None)] * (len(shape) - 1)
    if heads:
        index[1 + heads[0]] = 0
    cell[tuple(index)] = 1
    return cell


@pytest.mark.parametrize("name", ["grouped", "gemma", "learned"])
def test_attribution_is_the_same_with_and_without_the_cone(name):
    model, prompts = tiny(name), pairs(pads=2)
    sites = here(model, ("z", "mlp_out", "k", "resid_pre"))
    options = {"sites": sites, "by": ("head", "pos")}
    cone = attribution.nodes(model, prompts, **options)
    full = attribution.nodes(model, prompts, causal_cone=False, **options)
    for site in sites:
        assert getattr(cone.raw, site).shape == getattr(full.raw, site).shape
        np.testing.assert_allclose(getattr(cone.raw, site), getattr(full.raw, site), atol=1e-4)


def test_attribution_of_the_last_layer_is_exact_for_a_metric_linear_in_logits():
    """Without a final norm nothing between the last MLP and the logits bends."""
    model, prompts = tiny("attention"), pairs()
    scores = attribution.nodes(model, prompts, sites=("attn_out",)).raw.attn_out
    exact = patching.sweep(model, prompts, "attn_out").raw
    np.testing.assert_allclose(scores[:, -1], exact[:, -1], atol=1e-4)


def test_one_trace_per_suffix():
    """Layers, heads, chunks and other prompts of the same shape reuse one executable."""
    model = toy(jax.random.key(0), n_layers=5)  # a shape that no other test has
    patching.sweep(model, pairs(first=4), "z")
    before = patched._cache_size(), pair._cache_size()
    patching.sweep(model, pairs(first=4).swap(), "z")
    assert (patched._cache_size(), pair._cache_size()) == before
    patching.sweep(model, pairs(first=2), "z")
    assert (patched._cache_size(), pair._cache_size()) == (before[0] + 1, before[1] + 1)


def test_position_sweeps_take_at_most_four_traces():
    model = tiny("grouped")
    before = patched._cache_size()
    patching.sweep(model, pairs(first=0), "resid_post", by=("pos",))
    assert patched._cache_size() - before <= 4
