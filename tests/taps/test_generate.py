"""Drawing tokens: the frequencies are the softmax's, and what has no probability never comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxcirc.taps._generate import drawn

DRAWS = 20_000


@pytest.mark.parametrize("vocab", [1, 2, 7, 50])
def test_frequencies_are_the_softmax(vocab):
    logits = jax.random.normal(jax.random.key(vocab), (vocab,))
    found = drawn(jax.random.key(0), jnp.broadcast_to(logits, (DRAWS, vocab)))
    counts = np.bincount(found, minlength=vocab)
    assert len(counts) == vocab
    wanted = np.asarray(jax.nn.softmax(logits), np.float64)
    assert vocab == 1 or chisquare(counts, DRAWS * wanted / wanted.sum()).pvalue > 1e-3


@pytest.mark.parametrize("only", [0, 3, 9])
def test_a_token_without_probability_is_never_drawn(only):
    logits = jnp.full((DRAWS, 10), -jnp.inf).at[:, only].set(0.0)
    assert set(np.asarray(drawn(jax.random.key(1), logits)).tolist()) == {only}
