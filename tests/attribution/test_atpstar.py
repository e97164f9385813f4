"""AtP*: exact where only the softmax is not linear, and plain loops as the oracle of GradDrop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, pairs, tiny

from jaxcirc import patching
from jaxcirc.attribution import atp_star, nodes
from jaxcirc.models import toy
from jaxcirc.taps import Add, Read, Sites, Stop, run
from jaxcirc.tasks import logit_difference


@pytest.fixture(scope="module")
def linear():
    """Attention only, without norms, grouped queries: behind the pattern everything is linear."""
    model = toy(jax.random.key(5), d_mlp=None, norm=None, positions="learned", n_kv_heads=2)
    return model, answered(model, pairs(first=2, batch=4, pads=1))


@pytest.mark.parametrize("site", ["q", "k"])
def test_the_fix_is_exact_in_the_last_layer(linear, site):
    model, prompts = linear
    last = model.n_layers - 1
    exact = patching.sweep(model, prompts, site, layers=[last]).raw[:, 0]
    fixed = getattr(atp_star(model, prompts, sites=(site,), drop=False).scores, site)[:, last]
    plain = getattr(nodes(model, prompts, sites=(site,)), site)[:, last]
    np.testing.assert_allclose(fixed, exact, atol=1e-3 * np.abs(exact).max())
    assert np.abs(plain - exact).max() > 1e-2 * np.abs(exact).max()


def test_other_sites_keep_their_scores():
    model = tiny("grouped")
    prompts = answered(model, pairs(first=3, batch=3))
    star, plain = atp_star(model, prompts, drop=False), nodes(model, prompts)
    np.testing.assert_allclose(star.scores.z, plain.z, atol=1e-4)
    np.testing.assert_allclose(star.scores.mlp_out, plain.mlp_out, atol=1e-4)
    np.testing.assert_array_equal(star.magnitude.z, np.abs(star.scores.z))


def test_dropping_layers_equals_a_plain_loop():
    model = tiny("learned")
    prompts = answered(model, pairs(first=3, batch=3))
    read = Sites(z=Read(), mlp_out=Read())
    _, here = run(model, prompts.clean, read, mask=prompts.mask)
    _, there = run(model, prompts.corrupt, read, mask=prompts.mask)
    total = {"z": 0, "mlp_out": 0}
    for layer in range(model.n_layers):
        stop = Stop((jnp.arange(model.n_layers) == layer)[:, None, None, None])

        def loss(nudges, stop=stop):
            edits = Sites(z=Add(nudges.z), mlp_out=Add(nudges.mlp_out))
            edits = edits | Sites(attn_out=stop, mlp_out=stop)
            logits, _ = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
            return logit_difference(logits, prompts).sum()

        gradient = jax.grad(loss)(jax.tree.map(jnp.zeros_like, here))
        product = jax.tree.map(lambda a, b, g: (a - b) * g, there, here, gradient)
        total["z"] += np.abs(product.z.sum(axis=(2, 4)))
        total["mlp_out"] += np.abs(product.mlp_out.sum(axis=(2, 3)))
    magnitude = atp_star(model, prompts, sites=("z", "mlp_out")).magnitude
    for site, expected in total.items():
        mean = expected.swapaxes(0, 1) / (model.n_layers - 1)
        np.testing.assert_allclose(getattr(magnitude, site), mean, atol=2e-4)


@pytest.mark.parametrize("site", ["q", "k"])
def test_what_saturated_attention_hides_from_the_gradient_is_found(site):
    """Scores a hundred times as large: every pattern is one-hot and its slope is 0, yet another
    query or key moves it. The heads that matter most are exact in AtP* and nearly 0 in AtP."""
    model = tiny("attention")
    sharp = model.blocks.attn.w_q.at[-1].multiply(100)
    model = eqx.tree_at(lambda m: m.blocks.attn.w_q, model, sharp)
    prompts = pairs(first=6, batch=8)
    exact = np.asarray(patching.sweep(model, prompts, site).raw)[:, -1]
    plain = np.asarray(getattr(nodes(model, prompts, sites=(site,)), site))[:, -1]
    star = np.asarray(getattr(atp_star(model, prompts, sites=(site,)).scores, site))
    moved = np.abs(exact) > 0.5
    assert moved.sum() >= 5
    assert (np.abs(plain[moved]) < 0.05 * np.abs(exact[moved])).mean() > 0.8
    np.testing.assert_allclose(star[:, -1], exact, atol=1e-3)
