"""Law 7: with patterns, norm scales and MLP gates held the run is affine, predicted = measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SHAPES, here, pairs, slow_at, tiny

from jaxcirc.taps import Add, Read, Set, Sites, run

HELD = (
    "pattern",
    "attn_norm_scale",
    "attn_post_scale",
    "mlp_norm_scale",
    "mlp_pre",
    "mlp_post_scale",
    "final_norm_scale",
)


def held(model, prompts):
    """Edits that keep what bends as it is on the clean prompts; a plain MLP's hidden layer, which
    is all gate, is held whole."""
    sites = [*here(model, HELD)]
    if "mlp_pre" in sites and "mlp_up" not in model.sites():
        sites[sites.index("mlp_pre")] = "mlp_post"
    reads = Sites(**{site: Read() for site in sites})
    _, seen = run(model, prompts.clean, reads, mask=prompts.mask)
    return Sites(**{site: Set(getattr(seen, site)) for site in sites})


@pytest.mark.parametrize("name", slow_at(SHAPES, "grouped", "parallel"))
def test_a_held_run_is_affine_and_its_slope_predicts_any_step(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, prompts = tiny(name, jnp.float64), pairs(pads=1)
        frozen = held(model, prompts)
        rng = np.random.default_rng(0)
        steps = [jnp.asarray(rng.normal(size=(*prompts.clean.shape, 16))) for _ in range(2)]

        def logits(step):
            edits = frozen | Sites(embed=Add(step))
            return run(model, prompts.clean, edits, mask=prompts.mask)[0]

        still = jnp.zeros_like(steps[0])
        base, slope = jax.linearize(logits, still)
        np.testing.assert_allclose(base, run(model, prompts.clean, mask=prompts.mask)[0])
        for step in (steps[0], 100 * steps[0], steps[0] + steps[1]):
            measured = logits(step) - base
            scale = np.abs(measured).max()
            assert scale > 0.1
            np.testing.assert_allclose(slope(step), measured, atol=1e-11 * scale)
        apart = sum(logits(step) - base for step in steps)
        np.testing.assert_allclose(logits(steps[0] + steps[1]) - base, apart, atol=1e-10)


@pytest.mark.parametrize("name", ["grouped", "learned"])
@pytest.mark.parametrize("loose", ["pattern", "attn_norm_scale"])
def test_each_of_them_is_needed(name, loose):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, prompts = tiny(name, jnp.float64), pairs()
        kept = {site: edit for site, edit in held(model, prompts).items() if site != loose}
        step = jnp.asarray(np.random.default_rng(0).normal(size=(*prompts.clean.shape, 16)))

        def logits(step):
            edits = Sites(**kept) | Sites(embed=Add(step))
            return run(model, prompts.clean, edits, mask=prompts.mask)[0]

        base, slope = jax.linearize(logits, jnp.zeros_like(step))
        assert np.abs(slope(step) - (logits(step) - base)).max() > 1e-3
