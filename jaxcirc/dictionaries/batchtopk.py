r"""`BatchTopK`: k features a token on average, shared out over the batch; a threshold afterwards.

Bussmann, Leask & Nanda 2024 (arXiv 2412.06410), eqs. 4-6: in training the n k largest activations
of n tokens are kept; at inference those above $\theta$, the mean of the smallest activation kept,
here over the last batches. May import `_coder`, `_coded`, `_trained`, `topk`.
"""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ._coded import Coded
from ._coder import Coder
from ._trained import Seen, Stage, seen, squared
from .topk import ALPHA, revived

Kind = TypeVar("Kind", bound="ByBatch")

DECAY = 0.99
"""Of the running mean of the threshold: the last hundred batches have two thirds of the weight. A
longer memory would keep the minima of a dictionary that was still learning."""


class Threshold(eqx.Module):
    """A running mean of the smallest activations kept: `total` over `weight`.

    The weight makes the mean exact from the first batch on, where a plain average from 0 or from
    the first value would be wrong for hundreds of steps.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The threshold; 0 before training."""
        return lax.stop_gradient(self.total / jnp.maximum(self.weight, 1e-12))

    def updated(self, least: Float[Array, ""]) -> "Threshold":
        """With one more batch; a batch that kept nothing (NaN) does not count."""
        least = least.astype(self.total.dtype)
        none = jnp.isnan(least)
        total = DECAY * self.total + (1 - DECAY) * jnp.where(none, 0.0, least)
        weight = DECAY * self.weight + (1 - DECAY)
        keep = Threshold(total, weight)
        return jax.tree.map(lambda new, old: jnp.where(none, old, new), keep, self)


def no_threshold() -> Threshold:
    """Before training."""
    return Threshold(jnp.zeros(()), jnp.zeros(()))


class ByBatch(Coded):
    """Dictionaries whose features compete over the batch in training, and afterwards with a
    threshold that training finds."""

    coder: eqx.AbstractVar[Coder]
    k: eqx.AbstractVar[int]
    threshold: eqx.AbstractVar[Threshold]

    def __check_init__(self):
        if not 0 < self.k <= self.coder.d_dict:
            raise ValueError(f"k={self.k}: give 1..{self.coder.d_dict}, as in k=32")

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch feature"]:
        pre = jax.nn.relu(self.coder.pre(x))
        return jnp.where(pre > self.threshold.value.astype(pre.dtype), pre, 0.0)

    def trained(self, x: Float[Array, "token d_in"], at: Stage) -> Float[Array, "token feature"]:
        return of_batch(jax.nn.relu(self.coder.pre(x)), at.k)[0]

    def settled(self: Kind, seen: Seen) -> Kind:
        new = self.coder.settled(), self.threshold.updated(seen.least)
        return eqx.tree_at(lambda d: (d.coder, d.threshold), self, new)


class BatchTopK(ByBatch):
    """Activations above a threshold that training finds.

    >>> BatchTopK(init_coder(key, 576, 2048), k=32).encode(x)
    """

    coder: Coder
    k: int = eqx.field(static=True)
    threshold: Threshold = eqx.field(default_factory=no_threshold)

    def loss(
        self, x: Float[Array, "token d_in"], y: Float[Array, "token d_out"], at: Stage
    ) -> tuple[Float[Array, ""], Seen]:
        pre = self.coder.pre(x)
        features, least = of_batch(jax.nn.relu(pre), at.k)
        left = y - self.decode(features)
        error, auxiliary = squared(left), revived(self.coder, lambda: pre, left, at.dead)
        return error + ALPHA * auxiliary, seen(features, error, 0.0, auxiliary, least)


def of_batch(
    values: Float[Array, "token feature"], k: Int[Array, ""]
) -> tuple[Float[Array, "token feature"], Float[Array, ""]]:
    """The token * k largest of all values that are positive, others 0, and the smallest kept (NaN
    if none is positive). Of equals at the cut the first are kept, so that there are never more.

    The cut is found by bisection on the bits of the numbers, which order as positive floats do: no
    sort of token * feature numbers.
    """
    still = lax.stop_gradient(values)
    n = values.shape[0] * k
    cut = kth_largest(still, n)
    kept = jnp.where((still > cut) | _first_equal(still, cut, n), values, 0.0)
    kept = jnp.where(values > 0, kept, 0.0)
    least = jnp.where(kept > 0, kept, jnp.inf).min()
    return kept, lax.stop_gradient(jnp.where(jnp.isinf(least), jnp.nan, least))


def _first_equal(
    values: Float[Array, "token feature"], cut: Float[Array, ""], n: Int[Array, ""]
) -> Bool[Array, "token feature"]:
    """Which of the values at the cut make up n with those above: row after row, and within the one
    row that is taken in part from the left."""
    equal = values == cut
    counts = equal.sum(axis=1)
    room = jnp.maximum(n - (values > cut).sum(), 0)
    allowed = jnp.clip(room - (jnp.cumsum(counts) - counts), 0, counts)
    part = (allowed > 0) & (allowed < counts)  # one row at most; no gather, which would move all
    first = jnp.cumsum((equal & part[:, None]).any(axis=0)) <= (allowed * part).sum()
    return equal & jnp.where(part[:, None], first, (allowed == counts)[:, None])


def kth_largest(values: Float[Array, "..."], k: Int[Array, ""]) -> Float[Array, ""]:
    """The k-th largest of some numbers that are not negative: exactly, in 31 counts (63 for
    float64).

    >>> float(kth_largest(jnp.asarray([3.0, 1.0, 2.0]), jnp.asarray(2)))
    2.0
    """
    double = values.dtype == jnp.float64
    kind, whole = (jnp.float64, jnp.int64) if double else (jnp.float32, jnp.int32)
    bits = lax.bitcast_convert_type(values.astype(kind), whole)

    def halve(_, bounds):
        low, high = bounds  # count(bits >= low) >= k > count(bits >= high)
        middle = low + (high - low) // 2
        enough = at_least((bits >= middle).sum(axis=-1), k)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    above = lax.bitcast_convert_type(jnp.asarray(jnp.inf, kind), whole) + 1
    ends = jnp.zeros((), whole), above
    low, _ = lax.fori_loop(0, 63 if double else 31, halve, ends)
    return lax.bitcast_convert_type(low, kind).astype(values.dtype)


def at_least(counts: Int[Array, "*row"], k: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether counts add up to k, where their sum may exceed an int32 (8,192 tokens of a million
    features each)."""
    high, low = (counts >> LIMB).sum(), (counts & (2**LIMB - 1)).sum()
    high, low = high + (low >> LIMB), low & (2**LIMB - 1)
    k_high, k_low = k >> LIMB, k & (2**LIMB - 1)
    return (high > k_high) | ((high == k_high) & (low >= k_low))


LIMB = 12
"""Bits of the lower half of a count."""
