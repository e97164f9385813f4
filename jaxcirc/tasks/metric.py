"""Metrics: functions of the last logits, `metric(logits [batch vocab], prompts) -> [batch]`.

Zhang & Nanda 2023 (arXiv 2309.16042), section 2.2: probability, logit difference and KL divergence;
only the logit difference is linear in the logits. Imports `prompt`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import Logits
from .prompt import Prompts

Metric = Callable[[Logits, Prompts], Float[Array, "batch"]]
Metrics = tuple[tuple[str, Metric], ...]
"""Metrics by name, hashable, so that jitted functions take them as static."""


def less_is_better(metric: Metric) -> Metric:
    """Mark a metric that falls as the behaviour gets better, so that `importance` keeps its sign.

    >>> @less_is_better
    ... def surprise(logits, prompts): return -log_probability(logits, prompts)
    """
    setattr(metric, "less_is_better", True)  # noqa: B010 (a function's own attribute)
    return metric


def logit_difference(logits: Logits, prompts: Prompts) -> Float[Array, "batch"]:
    r"""Mean logit of the answers minus mean logit of the wrongs.

    $$\sum_a w_a \ell_a - \sum_b w_b \ell_b$$

    - `logits`: Float[batch vocab] behind the prompts.

    Returns Float[batch], in logits. Linear: its gradient is `logit_functional`.

    >>> logits, _ = jaxcirc.run(model, prompts.clean, mask=prompts.mask, logits_at=-1)
    >>> logit_difference(logits, prompts).mean()
    """
    right = _weighted_mean(logits, prompts.answers, prompts.answer_weights)
    return right - _weighted_mean(logits, prompts.wrongs, prompts.wrong_weights)


def logit_functional(prompts: Prompts, vocab: int) -> Float[Array, "batch vocab"]:
    """The vector whose product with the logits is `logit_difference`.

    >>> (logit_functional(prompts, logits.shape[1]) * logits).sum(axis=1)
    """
    rows = jnp.arange(prompts.answers.shape[0])[:, None]
    zero = jnp.zeros((prompts.answers.shape[0], vocab), prompts.answer_weights.dtype)
    right = zero.at[rows, prompts.answers].add(prompts.answer_weights)
    return right.at[rows, prompts.wrongs].add(-prompts.wrong_weights)


def log_probability(logits: Logits, prompts: Prompts) -> Float[Array, "batch"]:
    r"""Log of the probability that the next token is one of the answers: $\log \sum_a p_a$.

    In nats. Weights do not enter. Takes logits Float[batch vocab], returns Float[batch].

    >>> log_probability(logits, prompts).mean()
    """
    logits = _wide(logits)
    picked = jnp.take_along_axis(logits, prompts.answers, axis=1)
    counted = prompts.answer_weights > 0
    total = jax.nn.logsumexp(logits, axis=1)
    return jax.nn.logsumexp(picked, axis=1, where=counted) - total


def probability(logits: Logits, prompts: Prompts) -> Float[Array, "batch"]:
    r"""Probability that the next token is one of the answers: $\sum_a p_a$.

    Weights do not enter. Takes logits Float[batch vocab], returns Float[batch].

    >>> probability(logits, prompts).mean()
    """
    return jnp.exp(log_probability(logits, prompts))


@less_is_better
def kl(logits: Logits, prompts: Prompts) -> Float[Array, "batch"]:
    r"""Divergence from the reference: $D(P_\mathrm{reference} \,\|\, P)$, in nats.

    The reference is the clean run, whose logits sweeps put into `prompts.reference`; 0 means that
    nothing changed, so helpful parts make it *rise* under noise. Raises `ValueError` without one.

    >>> kl(patched, with_reference(prompts, clean_logits)).mean()
    """
    if prompts.reference is None:
        raise ValueError(
            "kl needs the clean run's logits: sweeps fill them in; by hand, "
            "kl(logits, with_reference(prompts, clean_logits))"
        )
    reference = jax.nn.log_softmax(_wide(prompts.reference), axis=1)
    found = jax.nn.log_softmax(_wide(logits), axis=1)
    return (jnp.exp(reference) * (reference - found)).sum(axis=1)


def accuracy(logits: Logits, prompts: Prompts) -> Float[Array, "batch"]:
    """1 where the best answer scores above the best wrong, else 0.

    Takes logits Float[batch vocab], returns Float[batch]; its gradient is 0 everywhere.

    >>> accuracy(logits, prompts).mean()
    """
    right = _best(logits, prompts.answers, prompts.answer_weights > 0)
    wrong = _best(logits, prompts.wrongs, prompts.wrong_weights > 0)
    return (right > wrong).astype(logits.dtype)


METRICS: dict[str, Metric] = {
    "logit_difference": logit_difference,
    "probability": probability,
    "log_probability": log_probability,
    "kl": kl,
    "accuracy": accuracy,
}
"""Every metric by name."""


def name_metrics(metric: Metric | str | Mapping[str, Metric | str]) -> Metrics:
    """Metrics with names, from a function, the name of one, or a dictionary of several.

    Raises `ValueError` for an unknown name or an empty dictionary.

    >>> name_metrics({"ld": logit_difference, "p": "probability"})
    """
    if isinstance(metric, Mapping):
        if not metric:
            raise ValueError('no metric: give one, as in metric={"ld": logit_difference}')
        return tuple((name, _metric(one)) for name, one in metric.items())
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    return ((name, _metric(metric)),)


def _metric(metric: Metric | str) -> Metric:
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    return METRICS[metric]


def _wide(logits: Logits) -> Logits:
    """Exponentials of half-precision logits are taken in float32."""
    return logits.astype(np.promote_types(logits.dtype, np.float32))


def _weighted_mean(
    logits: Logits, ids: Int[Array, "batch n"], weights: Float[Array, "batch n"]
) -> Float[Array, "batch"]:
    picked = jnp.take_along_axis(logits, ids, axis=1)
    return (picked * weights.astype(logits.dtype)).sum(axis=1)


def _best(
    logits: Logits, ids: Int[Array, "batch n"], counted: Bool[Array, "batch n"]
) -> Float[Array, "batch"]:
    picked = jnp.take_along_axis(logits, ids, axis=1)
    return jnp.where(counted, picked, -jnp.inf).max(axis=1)
