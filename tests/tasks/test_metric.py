"""Metrics against values worked out by hand, their gradients, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.tasks import (
    METRICS,
    accuracy,
    from_texts,
    kl,
    log_probability,
    logit_difference,
    logit_functional,
    name_metrics,
    probability,
    with_reference,
)

VOCAB = 5
PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.15, 0.25], [0.5, 0.1, 0.1, 0.2, 0.1]])
LOGITS = jnp.asarray(np.log(PROBABILITIES) + np.array([[2.0], [-1.0]]), jnp.float32)


class Letters:
    """Letters a to e are tokens 0 to 4."""

    bos_id, pad_id, adds_bos = None, 0, False

    def encode(self, text):
        return ["abcde".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abcde"[i] for i in ids)


@pytest.fixture
def prompts():
    # Padding of a set has id 0, which is the wrong of the first pair and likely in the second.
    return from_texts(Letters(), ["ab", "cd"], ["ac", "ca"], [["b", "c"], "d"], ["a", ["b", "e"]])


def test_logit_difference_by_hand(prompts):
    log = np.log(PROBABILITIES)
    by_hand = [
        (log[0, 1] + log[0, 2]) / 2 - log[0, 0],
        log[1, 3] - (log[1, 1] + log[1, 4]) / 2,
    ]
    np.testing.assert_allclose(logit_difference(LOGITS, prompts), by_hand, rtol=1e-5)


def test_the_gradient_of_logit_difference_is_the_weights(prompts):
    weights = [[-1, 0.5, 0.5, 0, 0], [0, -0.5, 0, 1, -0.5]]
    gradient = jax.grad(lambda logits: logit_difference(logits, prompts).sum())(LOGITS)
    assert gradient.tolist() == weights
    assert logit_functional(prompts, VOCAB).tolist() == weights


def test_probability_is_that_of_the_set(prompts):
    np.testing.assert_allclose(probability(LOGITS, prompts), [0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(log_probability(LOGITS, prompts), np.log([0.5, 0.2]), rtol=1e-6)


def test_the_gradient_of_probability_is_finite_and_right(prompts):
    gradient = jax.grad(lambda logits: probability(logits, prompts)[1])(LOGITS)
    by_hand = PROBABILITIES[1, 3] * (np.eye(VOCAB)[3] - PROBABILITIES[1])
    np.testing.assert_allclose(gradient[1], by_hand, atol=1e-7)
    assert not gradient[0].any()


def test_kl_by_hand(prompts):
    reference = jnp.asarray(np.log(PROBABILITIES[::-1]), jnp.float32)
    found = kl(LOGITS, with_reference(prompts, reference))
    p, q = PROBABILITIES[::-1], PROBABILITIES
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(kl(LOGITS, with_reference(prompts, LOGITS)), 0, atol=1e-7)


def test_kl_says_who_fills_its_reference(prompts):
    with pytest.raises(ValueError, match="sweeps fill them in; by hand, kl"):
        kl(LOGITS, prompts)


def test_accuracy_compares_the_best(prompts):
    assert accuracy(LOGITS, prompts).tolist() == [1, 1]
    assert accuracy(-LOGITS, prompts).tolist() == [0, 0]
    assert accuracy(jnp.zeros_like(LOGITS), prompts).tolist() == [0, 0]


def test_padding_of_the_sets_does_not_count(prompts):
    for row in range(2):
        alone = prompts.take([row])
        n, m = int((alone.answer_weights > 0).sum()), int((alone.wrong_weights > 0).sum())
        bare = from_texts(
            Letters(),
            *([text] for text in alone.texts[0]),
            [[Letters().decode([i]) for i in alone.answers[0, :n]]],
            [[Letters().decode([i]) for i in alone.wrongs[0, :m]]],
        )
        for name, metric in METRICS.items():
            together = metric(LOGITS, with_reference(prompts, LOGITS[::-1]))[row]
            apart = metric(LOGITS[row : row + 1], with_reference(bare, LOGITS[::-1][row : row + 1]))
            assert float(apart[0]) == pytest.approx(float(together), rel=1e-6), name


@pytest.mark.parametrize("name", METRICS)
def test_only_differences_of_logits_count(name, prompts):
    prompts = with_reference(prompts, LOGITS[::-1])
    shifted = METRICS[name](LOGITS + 7, prompts)
    np.testing.assert_allclose(shifted, METRICS[name](LOGITS, prompts), atol=3e-6)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_in_half_precision_and_strict_promotion(name, prompts):
    with jax.numpy_dtype_promotion("strict"):
        half = METRICS[name](LOGITS.astype(jnp.bfloat16), with_reference(prompts, LOGITS))
    exact = METRICS[name](LOGITS, with_reference(prompts, LOGITS))
    np.testing.assert_allclose(np.asarray(half, np.float32), exact, atol=0.02)


def test_metrics_have_names():
    assert name_metrics(kl) == (("kl", kl),)
    assert name_metrics("probability") == (("probability", probability),)
    assert name_metrics({"a": kl, "b": "accuracy"}) == (("a", kl), ("b", accuracy))
    with pytest.raises(ValueError, match="unknown metric 'ld': use one of logit_difference, "):
        name_metrics("ld")
    with pytest.raises(ValueError, match="no metric: give one, as in metric="):
        name_metrics({})
