"""Edges into queries and keys with the softmax exact."""

import dataclasses

import jax
import numpy as np
from cases import close, pairs, tiny

from jaxcirc import attribution, patching
from jaxcirc.taps import Wiring


def test_edges_into_the_last_attention_are_exact():
    """Behind the last pattern, without norms, the metric is linear."""
    model, prompts = tiny("attention"), pairs(pads=1)
    wiring = Wiring.of(model)
    last = np.flatnonzero((wiring.layer == model.n_layers - 1) & (wiring.kind < 2))
    found = attribution.edges_qk(model, prompts)
    exact = patching.patch_edges(model, prompts, last).raw
    np.testing.assert_allclose(found[:, last], exact, atol=5e-5)
    plain = attribution.edges(model, prompts)
    assert np.abs(plain[:, last] - exact).max() > 0.05  # which first order is not
    np.testing.assert_array_equal(found[:, wiring.kind >= 2], plain[:, wiring.kind >= 2])


def test_small_moves_give_the_first_order():
    """Where the source differs by a little noise, softmax is straight."""
    model, prompts = tiny("gemma"), pairs()
    noise = 1e-3 * jax.random.normal(jax.random.key(0), (*prompts.clean.shape, 16))
    prompts = dataclasses.replace(prompts, corrupt=prompts.clean, noise=noise)
    rows = Wiring.of(model).kind < 2
    plain = attribution.edges(model, prompts)[:, rows]
    close(attribution.edges_qk(model, prompts)[:, rows], plain, 0.03)
