"""What trained dictionaries are set beside: principal directions, and pursuit as in numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.dictionaries import Pursuit, pca, random_directions

D, F = 12, 30


@eqx.filter_jit
def encoded(dictionary, x):
    return dictionary.encode(x)


def pursued(x, rows, k):
    """Orthogonal matching pursuit of one token, by least squares at every round."""
    ways, chosen, left = rows / np.linalg.norm(rows, axis=1, keepdims=True), [], x
    for _ in range(k):
        along = np.abs(ways @ left)
        along[chosen] = -1
        chosen.append(int(along.argmax()))
        sizes = np.linalg.lstsq(rows[chosen].T, x, rcond=None)[0]
        left = x - sizes @ rows[chosen]
    code = np.zeros(len(rows))
    code[chosen] = sizes
    return code


@pytest.mark.parametrize("k", [1, 5, D])
def test_pursuit_is_that_of_least_squares_at_every_round(k):
    rng = np.random.default_rng(k)
    rows, mean = rng.normal(size=(F, D)), rng.normal(size=D)
    x = rng.normal(size=(3, 7, D))
    with jax.enable_x64(True):
        dictionary = Pursuit(jnp.asarray(mean), jnp.asarray(rows), k)
        found = np.asarray(encoded(dictionary, jnp.asarray(x)))
    wanted = [[pursued(token - mean, rows, k) for token in row] for row in x]
    assert found.shape == (3, 7, F) and ((found != 0).sum(axis=-1) == k).all()
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_sums_of_few_directions_are_found_whole():
    """Fewer are there than may be spent, and a direction that repeats adds nothing."""
    dictionary = random_directions(jax.random.key(0), 64, 40, 5, jnp.zeros(64))
    twice = Pursuit(dictionary.mean, dictionary.rows.at[7].set(dictionary.rows[3]), 5)
    codes = jnp.zeros((1, 40)).at[0, jnp.asarray([3, 20])].set(jnp.asarray([2.0, -1.0]))
    for each in (dictionary, twice):
        x = each.decode(codes)
        found = encoded(each, x)
        assert np.isfinite(np.asarray(found)).all()
        np.testing.assert_allclose(each.decode(found), x, atol=1e-4)


def test_pursuit_calls_no_lapack():
    """Batches of LAPACK calls can wait for each other for ever inside a loop on two cores."""
    dictionary = random_directions(jax.random.key(0), D, F, 5, jnp.zeros(D))
    compiled = encoded.lower(dictionary, jnp.ones((4, D))).as_text()
    assert "lapack" not in compiled and "getrf" not in compiled


def test_principal_directions_explain_most():
    x = np.random.default_rng(0).normal(size=(200, D)) * np.arange(1, D + 1) + 5
    found = pca(jnp.asarray(x, jnp.float32), 3)
    back = np.asarray(found.decode(found.encode(jnp.asarray(x, jnp.float32))))
    values = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1]
    error = np.square(x - back).sum(axis=1).mean()
    np.testing.assert_allclose(error, values[3:].sum(), rtol=1e-4)
    np.testing.assert_allclose(found.rows @ found.rows.T, np.eye(3), atol=1e-5)
    with pytest.raises(ValueError, match="have fewer"):
        pca(jnp.zeros((4, D)), 5)
