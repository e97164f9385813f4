"""Relevance propagation: the same values, and a backward pass that conserves relevance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, close, pairs, tiny, tokens

from jaxcirc.attribution import nodes
from jaxcirc.attribution.gradient import _nudged
from jaxcirc.taps import Read, Sites, cone, run
from jaxcirc.tasks import logit_difference


@pytest.mark.parametrize("name", ["grouped", "learned", "parallel", "attention"])
def test_values_are_the_same(name):
    close(run(tiny(name).relevant(), tokens())[0], run(tiny(name), tokens())[0], 1e-6)


def test_relevance_is_conserved_layer_by_layer():
    """Without biases the held run is homogeneous: x . gradient is the metric at every layer."""
    model = tiny("grouped")
    prompts = answered(model, pairs(batch=4))
    suffix = cone(model, prompts.clean, prompts.mask, 0)
    _, seen = suffix.run(model, Sites(resid_pre=Read()), logits_at=-1)
    zeros = Sites(resid_pre=jnp.zeros_like(seen.resid_pre))

    def relevance(rule):
        def total(nudges):
            logits, _ = _nudged(model, suffix, nudges, "none", rule)
            return logit_difference(logits, prompts).sum()

        gradient = jax.grad(total)(zeros).resid_pre
        return jnp.einsum("lbpd,lbpd->lb", gradient, seen.resid_pre)

    logits, _ = suffix.run(model, logits_at=-1)
    expected = np.tile(logit_difference(logits, prompts), (model.n_layers, 1))
    np.testing.assert_allclose(relevance("relp"), expected, rtol=2e-4, atol=2e-4)
    assert np.abs(np.asarray(relevance("gradient")) - expected).max() > 0.05


def test_it_keeps_to_plain_gradients_where_nothing_is_held():
    """Without norm, MLP or a moving pattern only attention's pattern differs."""
    model = tiny("attention")
    prompts = answered(model, pairs(first=3, batch=4))
    relp, plain = (nodes(model, prompts, sites=("z",), rule=rule) for rule in ("relp", "gradient"))
    close(relp.z[:, -1], plain.z[:, -1], 1e-4)


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="rule='lrp': use rule="):
        nodes(tiny("grouped"), pairs(), rule="lrp")
