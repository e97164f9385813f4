"""The end of prompts run again on cached keys and values: equal to the whole forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, pairs, slow_at, tiny

from jaxcirc.patching import Component, activations, first_column, narrow, tail
from jaxcirc.taps import At, Read, Set, Sites, run


def prompts(pads=2):
    found = pairs(pads=pads)
    length = found.clean.shape[1]
    spans = {"end": length - 1, "middle": 4}
    columns = {
        name: jnp.broadcast_to(jnp.arange(length) == at, found.clean.shape)
        for name, at in spans.items()
    }
    return dataclasses.replace(found, spans=columns)


def whole(model, found, component, values):
    """The same edit in a full forward pass."""
    where = found.span(component.pos)
    value = values[:, None]
    if component.head is not None:
        n = model.axis_size("head")
        where = where[:, :, None] & (jnp.arange(n) == component.head)
        value = value[:, :, None]
    edit = At(jnp.asarray([component.layer]), Set(value[None], where[None, ..., None]))
    edits = Sites(**{component.site: edit})
    return run(model, found.clean, edits, mask=found.mask, logits_at=-1)[0]


@pytest.mark.parametrize("name", slow_at(["grouped", "gemma"], "gemma"))
def test_the_last_token_alone_gives_what_the_full_forward_gives(name):
    model, found = tiny(name), prompts()
    ends = tail(model, found)
    rng = np.random.default_rng(0)
    component = Component("z", 1, "end", 3)
    values = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    exact = whole(model, found, component, values)
    close(ends.logits(model, [component], [values]), exact, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("component", ["resid_post.0@end", "resid_post.2@end", "mlp_out.1@end"])
def test_so_it_does_for_components_of_the_stream(component):
    model, found, at = tiny("grouped"), prompts(), Component.parse(component)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)
    exact = whole(model, found, at, values)
    close(tail(model, found).logits(model, [at], [values]), exact, 1e-5)


@pytest.mark.slow
def test_an_earlier_tail_edits_earlier_spans_and_several_components_at_once():
    model, found = tiny("grouped"), prompts()
    components = [Component("z", 1, "middle", 0), Component("z", 1, "middle", 2)]
    components += [Component("resid_mid", 2, "end")]
    first = first_column(found, components)
    assert first == 4
    ends = tail(model, found, first)
    rng = np.random.default_rng(1)
    values = [jnp.asarray(rng.normal(size=(3, w)), jnp.float32) for w in (4, 4, 16)]
    one = whole(model, found, components[0], values[0])
    np.testing.assert_allclose(ends.logits(model, components[:1], values[:1]), one, atol=2e-5)
    both = ends.logits(model, components, values)
    assert np.abs(both - one).max() > 1e-3
    with pytest.raises(ValueError, match="begin it earlier"):
        tail(model, found).logits(model, components[:1], values[:1])


@pytest.mark.slow
def test_setting_what_was_there_changes_nothing_and_slopes_are_those_of_differences():
    model, found = tiny("grouped"), prompts()
    component = Component("resid_post", 0)
    ends = tail(model, found)
    (x,) = activations(model, found, [component], batch=2)
    clean, _ = run(model, found.clean, mask=found.mask, logits_at=-1)
    np.testing.assert_allclose(ends.logits(model, [component], [x]), clean, atol=2e-5)
    np.testing.assert_allclose(ends.logits(model, [], []), clean, atol=2e-5)

    def f(values):
        return ends.logits(model, [component], [values])[:, 7].sum()

    way = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), jnp.float32)
    slope = float((jax.grad(f)(x) * way).sum())
    step = (float(f(x + 1e-2 * way)) - float(f(x - 1e-2 * way))) / 2e-2
    assert abs(slope - step) < 2e-2 * max(1.0, abs(step))


@pytest.mark.slow
def test_activations_are_those_of_the_run_at_their_span():
    model, found = tiny("grouped"), prompts()
    _, records = run(model, found.clean, Sites(z=Read(), resid_post=Read()), mask=found.mask)
    asked = [
        Component("z", 2, "middle", 1),
        Component("resid_post", 0),
        Component("z", 0, "end", 0),
    ]
    got = activations(model, found, asked, batch=2)
    want = [records.z[2, :, 4, 1], records.resid_post[0, :, -1], records.z[0, :, -1, 0]]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_narrow_model_gives_some_of_the_logits():
    for name in ("learned",):
        model, found = tiny(name), prompts()
        ids = np.asarray([3, 17, 40])
        exact, _ = run(model, found.clean, mask=found.mask, logits_at=-1)
        some, _ = run(narrow(model, ids), found.clean, mask=found.mask, logits_at=-1)
        np.testing.assert_allclose(some, exact[:, ids], atol=1e-5)


def test_names_of_components():
    for name in ("z.23.3@end", "resid_post.12@S2"):
        assert str(Component.parse(name)) == name
    with pytest.raises(ValueError, match="write resid_post.12@end"):
        Component.parse("resid_post.12")
    with pytest.raises(ValueError, match="give its head"):
        Component("z", 3)


def test_a_head_that_is_not_there_is_not_the_last_one():
    model, found = tiny("grouped"), prompts()
    with pytest.raises(ValueError, match="this model has the heads 0.."):
        activations(model, found, [Component("z", 0, "end", 99)])
