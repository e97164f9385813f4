"""Verified scores: the top is exact, and the bound holds against every exact effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs, tiny

from jaxcirc import attribution, patching
from jaxcirc.circuits import verify
from jaxcirc.circuits._verify import SHARE, bound
from jaxcirc.models import toy
from jaxcirc.taps import Node, Sites

MODEL = toy(jax.random.key(3), n_layers=6, n_heads=8, n_kv_heads=8)
PROMPTS = pairs(batch=8)


def scores_of(model=MODEL, prompts=PROMPTS, sites=("z", "mlp_out")):
    raw = attribution.nodes(model, prompts, sites=sites).raw
    return jax.tree.map(lambda x: x.mean(axis=0), raw)


def exact_of():
    found = {
        site: np.asarray(patching.sweep(MODEL, PROMPTS, site).mean()) for site in ("z", "mlp_out")
    }
    nodes = {Node("z", *map(int, i)): float(x) for i, x in np.ndenumerate(found["z"])}
    return nodes | {
        Node("mlp_out", int(i)): float(x) for (i,), x in np.ndenumerate(found["mlp_out"])
    }


@pytest.fixture(scope="module")
def verified():
    return verify(MODEL, PROMPTS, scores_of(), top=8, sample=12), exact_of()


def test_the_top_is_exact_and_in_order(verified):
    found, exact = verified
    np.testing.assert_allclose(found.exact, [exact[node] for node in found.top], atol=1e-4)
    assert (np.diff(np.abs(found.exact)) <= 1e-6).all() and len(found.top) == 8
    estimates = scores_of()
    for node, estimate in zip(found.top, found.estimate, strict=True):
        table = getattr(estimates, node.site)
        assert estimate == pytest.approx(
            float(table[node.layer] if node.index is None else table[node.layer, node.index])
        )


def test_thebound_holds_against_the_full_sweep(verified):
    found, exact = verified
    known = set(found.top) | set(found.sample)
    rest = np.asarray([value for node, value in exact.items() if node not in known])
    assert 0 < np.sqrt(np.square(rest).sum()) <= found.missed
    assert found.patched == len(known) + 32


def test_thebound_holds_19_times_in_20_where_effects_add_up():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        effects = rng.standard_t(3, size=60)
        subsets = rng.random((32, 60)) < SHARE
        held += np.sqrt(np.square(effects).sum()) <= bound(subsets @ effects)
    assert held >= 0.92 * 400


def test_errors():
    with pytest.raises(ValueError, match="subsets=1: a spread needs at least two"):
        verify(MODEL, PROMPTS, scores_of(), subsets=1)
    with pytest.raises(ValueError, match=r"scores of 'z' have shape \(8, 6, 8\): average over"):
        verify(MODEL, PROMPTS, Sites(z=jnp.zeros((8, 6, 8))))


def test_models_without_mlps():
    model = tiny("attention")
    found = verify(model, pairs(), scores_of(model, pairs(), ("z",)), top=3, sample=5)
    assert len(found.top) == 3 and all(node.site == "z" for node in found.top)
