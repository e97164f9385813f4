"""Norms against numpy; their scale is a denominator that an edit may hold."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.nn import LayerNorm, RMSNorm
from jaxcirc.taps import Set, Sites, Taps

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 16)).astype(np.float32) * 3 + 1
GAIN, BIAS = RNG.standard_normal((2, 16)).astype(np.float32)
UNTAPPED = Taps(Sites())


def call(norm, x=X):
    return np.asarray(norm(jnp.asarray(x), UNTAPPED, "attn_norm_scale"))


def rms(x):
    return np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def centred(x):
    return x - x.mean(-1, keepdims=True)


CASES = {
    "rms": (RMSNorm(jnp.asarray(GAIN), 1e-5), lambda x: x / rms(x) * GAIN),
    "gemma": (RMSNorm(jnp.asarray(GAIN), 1e-5, 1.0), lambda x: x / rms(x) * (1 + GAIN)),
    "layer": (
        LayerNorm(jnp.asarray(GAIN), jnp.asarray(BIAS), 1e-5),
        lambda x: centred(x) / rms(centred(x)) * GAIN + BIAS,
    ),
    "without bias": (
        LayerNorm(jnp.asarray(GAIN), None, 1e-5),
        lambda x: centred(x) / rms(centred(x)) * GAIN,
    ),
}


@pytest.mark.parametrize("norm, expected", CASES.values(), ids=CASES)
def test_norms_equal_their_formula(norm, expected):
    np.testing.assert_allclose(call(norm), expected(X), atol=1e-5)


@pytest.mark.parametrize("norm, _", CASES.values(), ids=CASES)
def test_a_held_scale_makes_the_norm_affine(norm, _):
    held = Taps(Sites(attn_norm_scale=Set(jnp.full((2, 5, 1), 2.0))))
    f = [np.asarray(norm(jnp.asarray(x), held, "attn_norm_scale")) for x in (X, 2 * X, 0 * X)]
    np.testing.assert_allclose(f[1] - f[0], f[0] - f[2], atol=1e-5)


def test_half_precision_is_normed_in_single():
    norm, big = RMSNorm(jnp.ones(16, jnp.float16), 1e-5), jnp.full((1, 1, 16), 3e4, jnp.float16)
    found = norm(big, UNTAPPED, "attn_norm_scale")
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, 1.0)
