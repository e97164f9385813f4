"""`at` and `resolve`: what is said is what is edited, and what cannot be meant is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs, tiny

from jaxcirc.taps import AXES, Edits, Sites, at, resolve, run

MODEL = tiny("grouped")
PROMPTS = pairs(first=4, batch=3, length=7)
SHAPES = {
    "z": (3, 7, 4, 4),
    "k": (3, 7, 2, 4),
    "scores": (3, 4, 7, 7),
    "mlp_post": (3, 7, 32),
    "resid_post": (3, 7, 16),
}


def activation(site: str) -> np.ndarray:
    return np.array(jax.random.normal(jax.random.key(0), SHAPES[site]))


def applied(edits: Edits, site: str, layer: int) -> np.ndarray:
    """What flows on when an activation meets the resolved edits at a layer."""
    edit = getattr(resolve(edits, MODEL, PROMPTS), site)
    return np.asarray(edit.at_layer(jnp.asarray(layer))(jnp.asarray(activation(site)))[0])


SPAN = np.asarray(PROMPTS.spans["changed"])
CELLS = {
    "everything": ("z", {}, np.s_[:]),
    "head": ("z", {"head": 3}, np.s_[:, :, 3]),
    "negative head": ("z", {"head": -1}, np.s_[:, :, 3]),
    "heads": ("z", {"head": [0, 2]}, np.s_[:, :, [0, 2]]),
    "kv head": ("k", {"head": 1}, np.s_[:, :, 1]),
    "coordinate": ("mlp_post", {"index": [5, 31]}, np.s_[:, :, [5, 31]]),
    "last position": ("z", {"pos": -1}, np.s_[:, -1]),
    "positions": ("resid_post", {"pos": [0, 4]}, np.s_[:, [0, 4]]),
    "span": ("resid_post", {"pos": "changed"}, SPAN),
    "mask": ("resid_post", {"pos": SPAN}, SPAN),
    "head at a position": ("z", {"head": 1, "pos": 2}, np.s_[:, 2, 1]),
    "destination": ("scores", {"dest": 6, "head": 0}, np.s_[:, 0, 6]),
    "source": ("scores", {"src": [1, 2]}, np.s_[:, :, :, [1, 2]]),
}


@pytest.mark.parametrize("site, choice, cells", CELLS.values(), ids=CELLS)
def test_the_chosen_cells_change_and_no_others(site, choice, cells):
    expected = activation(site)
    expected[cells] = 9.0
    edits = at(site, layer=1, **choice).set(9.0)
    np.testing.assert_array_equal(applied(edits, site, 1), expected)
    np.testing.assert_array_equal(applied(edits, site, 0), activation(site))


VERBS = {
    "set": (lambda where: where.set(2.0), lambda x: 2.0 + 0 * x),
    "add": (lambda where: where.add(2.0), lambda x: x + 2.0),
    "mix": (lambda where: where.mix(2.0, 0.25), lambda x: 0.75 * x + 0.5),
    "stop": (lambda where: where.stop(), lambda x: x),
    "read": (lambda where: where.read(), lambda x: x),
}


@pytest.mark.parametrize("verb, expected", VERBS.values(), ids=VERBS)
def test_verbs(verb, expected):
    x = activation("z")
    x[:, 2] = expected(x[:, 2])
    np.testing.assert_allclose(applied(verb(at("z", layer=0, pos=2)), "z", 0), x, rtol=1e-6)


def test_a_value_may_differ_by_layer():
    value = np.arange(2.0)[:, None, None, None, None]
    edits = at("z", layer=[2, 0]).set(value)
    assert [applied(edits, "z", layer)[0, 0, 0, 0] for layer in (0, 2)] == [1.0, 0.0]


def test_edits_of_one_site_compose_in_the_order_in_which_they_are_said():
    edits = (
        at("z", layer=1).set(2.0) | at("z", head=0).add(1.0) | at("z", layer=1, pos=3).mix(0.0, 1.0)
    )
    found = applied(edits, "z", 1)
    assert (found[0, 0, 0, 0], found[0, 0, 1, 0], found[0, 3, 0, 0]) == (3.0, 2.0, 0.0)


def test_reads_hold_a_slot_for_each_layer_and_the_positions_asked_for():
    edits = at("z", layer=[2, 0], pos="changed").read() | at("resid_post", pos=[-1, 0]).read()
    edits = edits | at("pattern", layer=-1).read() | at("logits").read()
    _, records = run(MODEL, PROMPTS.clean, resolve(edits, MODEL, PROMPTS))
    reads = at("z").read() | at("resid_post").read() | at("pattern").read()
    logits, full = run(MODEL, PROMPTS.clean, resolve(reads, MODEL))
    np.testing.assert_allclose(records.z[:, :, 0], full.z[jnp.array([2, 0]), :, 4], atol=1e-5)
    np.testing.assert_allclose(
        records.resid_post, full.resid_post[:, :, jnp.array([-1, 0])], atol=1e-5
    )
    np.testing.assert_allclose(records.pattern[0], full.pattern[2], atol=1e-5)
    np.testing.assert_allclose(records.logits, logits, atol=1e-4)


def test_stop_lets_no_gradient_through_its_cells():
    table = resolve(at("z", layer=0, head=2).stop(), MODEL).z.at_layer(jnp.asarray(0))
    gradient = jax.grad(lambda x: table(x)[0].sum())(jnp.asarray(activation("z")))
    np.testing.assert_array_equal(gradient[:, :, 2], 0)
    np.testing.assert_array_equal(gradient[:, :, :2], 1)


def test_transformerlens_strings_name_the_layer():
    plain, theirs = at("z", layer=1).set(0.0), at("blocks.1.attn.hook_z").set(0.0)
    np.testing.assert_array_equal(*(resolve(edits, MODEL).z.layers for edits in (plain, theirs)))
    assert at("blocks.1.attn.hook_z", layer=2).layer == 2


@pytest.mark.parametrize("site", ["embed", "final_resid", "final_norm_scale", "logits"])
def test_sites_outside_the_layers(site):
    table = resolve(at(site, pos=-1).set(0.0), MODEL, PROMPTS)
    assert [name for name, _ in table.items()] == [site]
    with pytest.raises(ValueError, match=r"outside the layers: at\('.*'\) without layer="):
        resolve(at(site, layer=0).set(0.0), MODEL, PROMPTS)


REFUSED = {
    "layer": (at("z", layer=3), "layer 3 of 'z' is out of range: it has 3 .0..2."),
    "negative layer": (at("z", layer=-4), "layer -4 of 'z' is out of range"),
    "layer twice": (at("z", layer=[1, -2]), "names a layer twice"),
    "no layer": (at("z", layer=[]), "out of range"),
    "head": (at("z", head=4), "head 4 of 'z' is out of range: it has 4 .0..3.$"),
    "kv head": (at("k", head=2), r"it has 2 .0..1.; .* use at\('k_at_head', head=2\)"),
    "rotated kv head": (at("rot_k", head=3), r"use at\('k_at_head', head=3\)"),
    "value head": (at("v", head=3), r"use at\('v_at_head', head=3\)"),
    "position": (at("z", pos=7), "pos 7 of 'tokens' is out of range: it has 7"),
    "neuron": (at("mlp_post", index=32), "d_mlp 32 of 'mlp_post' is out of range"),
    "no heads": (at("mlp_out", head=0), r"'mlp_out' has axes .*: at\('mlp_out'\) without head="),
    "no position": (at("pattern", pos=0), r"at\('pattern'\) without pos="),
    "span": (at("z", pos="S2"), "no span 'S2': these prompts have 'changed'"),
}


@pytest.mark.parametrize("where, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(where, message):
    with pytest.raises(ValueError, match=message):
        resolve(where.set(0.0), MODEL, PROMPTS)


def test_a_site_that_the_model_lacks_is_named_before_anything_else():
    with pytest.raises(ValueError, match="toy has no site 'mlp_post'"):
        resolve(at("mlp_post", index=99).set(0.0), tiny("attention"))


def test_a_value_of_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="choose those layers from it"):
        resolve(at("z", layer=[0, 2]).set(np.zeros((3, 1, 1, 1, 1))), MODEL)


@pytest.mark.parametrize("pos", [0, [1, 2], "changed"])
@pytest.mark.parametrize("verb", ["read", "stop"])
def test_positions_need_the_prompts(pos, verb):
    with pytest.raises(ValueError, match=r"the prompts: resolve\(edits, model, prompts\)"):
        resolve(getattr(at("z", pos=pos), verb)(), MODEL)


@pytest.mark.parametrize("choice", [{"head": 1}, {"index": 0}], ids=str)
def test_reading_part_of_a_cell_is_refused(choice):
    with pytest.raises(
        ValueError, match=r"read takes layer and pos only: .* then index the record"
    ):
        resolve(at("z", **choice).read(), MODEL)


def test_reading_a_span_of_unequal_length_is_refused():
    uneven = np.asarray(PROMPTS.spans["changed"]).copy()
    uneven[0] = True
    with pytest.raises(ValueError, match="differs in length between prompts: read all positions"):
        resolve(at("z", pos=uneven).read(), MODEL, PROMPTS)


def test_nothing_said_is_the_empty_table():
    assert resolve(Edits(()), MODEL).items() == Sites().items() == []
    assert set(SHAPES) <= set(AXES)
