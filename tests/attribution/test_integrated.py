"""Law 5: integrated gradients err at the order of their rule and add up to the total effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, pairs, tiny

from jaxcirc import patching
from jaxcirc.attribution import integrated, nodes, quadrature
from jaxcirc.taps import At, Mix, Read, Sites, run
from jaxcirc.tasks import kl, logit_difference, probability

ORDERS = {"left": 1, "right": 1, "midpoint": 2}


@pytest.mark.parametrize("rule", [*ORDERS, "gauss"])
def test_points_and_weights(rule):
    points, weights = quadrature(4, rule)
    assert ((0 <= points) & (points <= 1)).all() and weights.sum() == pytest.approx(1)
    mean = {"left": 0.375, "right": 0.625}.get(rule, 0.5)
    assert (points * weights).sum() == pytest.approx(mean, abs=1e-12)


def test_gauss_is_exact_for_polynomials():
    points, weights = quadrature(3, "gauss")
    for power in range(6):
        assert (points**power * weights).sum() == pytest.approx(1 / (power + 1), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learned", "grouped"])
def test_the_error_falls_at_the_order_of_the_rule(name):
    with jax.enable_x64(True):
        model = tiny(name, jnp.float64)
        prompts = answered(model, pairs(first=2, batch=4))
        cut = {"sites": ("resid_pre",), "along": "site"}
        total = patching.sweep(model, prompts, "resid_pre", probability, layers=[-1]).raw[:, 0]

        def error(rule: str, steps: int) -> float:
            raw = integrated(model, prompts, probability, steps=steps, rule=rule, **cut).resid_pre
            return float(jnp.abs(raw[:, -1] - total).mean())

        for rule, order in ORDERS.items():
            fell = np.log2(error(rule, 16) / error(rule, 32))
            assert fell == pytest.approx(order, abs=0.35), rule
        assert error("gauss", 128) < 1e-6 * error("midpoint", 128)


def test_a_cut_of_the_stream_adds_up_to_the_total_effect():
    """At every layer, to rounding, once the rule has converged."""
    with jax.enable_x64(True):
        model = tiny("learned", jnp.float64)
        prompts = answered(model, pairs(first=3, batch=4, pads=1))
        cut = {"sites": ("resid_pre",), "along": "site", "by": ("pos",)}
        found = integrated(model, prompts, steps=128, rule="gauss", **cut).resid_pre
        exact = patching.sweep(model, prompts, "resid_pre").raw
        np.testing.assert_allclose(found.sum(axis=2), exact, atol=1e-10)
        assert not np.asarray(found[:, :, :3]).any()


def test_along_the_inputs_equals_a_plain_loop():
    model = tiny("gemma")
    prompts = answered(model, pairs(first=2, batch=3))
    points, weights = quadrature(3, "midpoint")
    ends = [
        run(model, tokens, Sites(z=Read(), resid_pre=Read()), mask=prompts.mask)[1]
        for tokens in (prompts.clean, prompts.corrupt)
    ]
    mean = 0
    for alpha, weight in zip(points, weights, strict=True):
        moved = At(jnp.array([0]), Mix(ends[1].resid_pre[:1], jnp.full(1, alpha, jnp.float32)))

        def loss(nudge, moved=moved):
            from jaxcirc.taps import Add

            edits = Sites(resid_pre=moved, z=Add(nudge))
            logits, _ = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
            return logit_difference(logits, prompts).sum()

        mean += weight * jax.grad(loss)(jnp.zeros_like(ends[0].z))
    expected = ((ends[1].z - ends[0].z) * mean).sum(axis=(2, 4)).swapaxes(0, 1)
    found = integrated(model, prompts, sites=("z",), steps=3)
    np.testing.assert_allclose(found.z, expected, atol=2e-4)


def test_one_left_step_along_the_inputs_is_attribution_patching():
    model = tiny("grouped")
    prompts = answered(model, pairs(first=3, batch=4))
    one = integrated(model, prompts, {"ld": logit_difference}, steps=1, rule="left")["ld"]
    plain = nodes(model, prompts)
    np.testing.assert_allclose(one.z, plain.z, atol=1e-4)
    np.testing.assert_allclose(one.mlp_out, plain.mlp_out, atol=1e-4)


def test_kl_has_a_slope_on_the_way():
    model = tiny("grouped")
    prompts = answered(model, pairs(first=3, batch=4))
    found = integrated(model, prompts, kl, sites=("mlp_out",), steps=4)
    assert found.sign == 1 and np.abs(found.mlp_out).max() > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rule": "simpson"}, "rule='simpson': use one of left, midpoint, right, gauss"),
        ({"steps": 0}, "steps=0: use at least 1"),
        ({"along": "layers"}, "along='layers': use along="),
        ({"sites": ("zz",)}, "unknown site 'zz'"),
        ({"sites": ("logits",)}, "lies outside the layers"),
    ],
)
def test_errors(options, message):
    model = tiny("grouped")
    with pytest.raises(ValueError, match=message):
        integrated(model, pairs(), **options)
