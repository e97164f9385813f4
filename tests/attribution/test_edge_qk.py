"""Edges into queries and keys with the softmax exact."""

import numpy as np
import pytest
from cases import pairs, tiny

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


@pytest.mark.parametrize("name", ["grouped", "gemma"])
def test_small_moves_give_the_first_order(name):
    """Where queries and keys move little, both agree."""
    model, prompts = tiny(name), pairs(first=4)
    wiring = Wiring.of(model)
    plain, fixed = attribution.edges(model, prompts), attribution.edges_qk(model, prompts)
    rows = wiring.kind < 2
    small = rows & (np.abs(plain).max(axis=0) < 0.01) & (np.abs(plain).max(axis=0) > 1e-4)
    assert small.sum() > 3
    assert np.corrcoef(plain[:, small].ravel(), fixed[:, small].ravel())[0, 1] > 0.7
