"""Rotary positions against complex numbers: each pair turns by position times frequency."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.nn import Rotary

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 3, 8)).astype(np.float32)
POSITIONS = np.array([[0, 1, 2, 3, 4], [0, 0, 0, 1, 7]])
FREQUENCY = np.array([1.0, 0.3, 0.05, 0.01], np.float32)


def turned(first: np.ndarray, second: np.ndarray, n: int):
    """Pairs as complex numbers, turned."""
    angle = POSITIONS[:, :, None, None] * FREQUENCY[:n]
    return (first + 1j * second) * np.exp(1j * angle)


def rotary(x, n=4, **options):
    turn = Rotary(jnp.asarray(FREQUENCY[:n]), **options)
    return np.asarray(turn(jnp.asarray(x), jnp.asarray(POSITIONS)))


def test_halves_are_paired():
    z = turned(X[..., :4], X[..., 4:], 4)
    np.testing.assert_allclose(rotary(X), np.concatenate([z.real, z.imag], -1), atol=1e-5)


def test_neighbours_are_paired_when_interleaved():
    z = turned(X[..., 0::2], X[..., 1::2], 4)
    found = rotary(X, interleaved=True)
    np.testing.assert_allclose(found[..., 0::2], z.real, atol=1e-5)
    np.testing.assert_allclose(found[..., 1::2], z.imag, atol=1e-5)


def test_the_two_layouts_are_one_rotation_of_reordered_coordinates():
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    apart, together = rotary(X)[..., order], rotary(X[..., order], interleaved=True)
    np.testing.assert_allclose(apart, together, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_coordinates_beyond_the_frequencies_pass(interleaved):
    found = rotary(X, n=2, interleaved=interleaved)
    np.testing.assert_array_equal(found[..., 4:], X[..., 4:])
    expected = rotary(X[..., :4], n=2, interleaved=interleaved)
    np.testing.assert_array_equal(found[..., :4], expected)


def test_products_depend_on_the_difference_of_positions_alone():
    q, k = jnp.asarray(X[:1, :1]), jnp.asarray(X[1:, :1])
    turn = Rotary(jnp.asarray(FREQUENCY))

    def product(i, j):
        return (turn(q, jnp.array([[i]])) * turn(k, jnp.array([[j]]))).sum(-1)

    np.testing.assert_allclose(product(9, 4), product(6, 1), atol=1e-4)
