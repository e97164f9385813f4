r"""`Head`: a linear classifier of a text's mean residual, and its margin as an `Objective`.

$$z = w \cdot (\bar x - \mu) / \sigma + b, \quad m = (2y - 1)\, z$$

Marks et al. 2024 (arXiv 2403.19647), section 4: one logit and a bias, AdamW on the binary
cross-entropy. Means go over real tokens that are no sinks. May import `taps`, `tasks`, `circuits`.
"""

import dataclasses
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ..._types import Mask, Tokens
from ...circuits.features import Objective
from ...taps import At, Chain, Node, Read, Sites, Start, run
from ...tasks import Prompts


class Head(eqx.Module):
    """A linear classifier; `centre` and `scale` bring any model's residuals to one size."""

    weight: Float[Array, "d"]
    bias: Float[Array, ""]
    centre: Float[Array, "d"]
    scale: Float[Array, ""]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The logit of label 1."""
        return ((x - self.centre) / self.scale) @ self.weight + self.bias


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a head is trained: in whole epochs, of as many steps as this or more."""

    rate: float = 1e-2
    decay: float = 1e-2
    steps: int = 400
    batch: int = 32


def fit(
    x: Float[np.ndarray, "text d"],
    y: Int[np.ndarray, "text"],
    seed: int = 0,
    how: Fit = Fit(),  # noqa: B008 (frozen)
) -> Head:
    """Train a head on mean residuals x with labels y, 0 or 1.

    - `seed`: of the first weights and the order of texts.

    >>> accuracy(fit(pooled, label), pooled, label)
    """
    x = np.asarray(x, np.float32)
    centre = x.mean(axis=0)
    scale = np.sqrt(np.square(x - centre).mean()) or np.float32(1)
    ready = jnp.asarray((x - centre) / scale)
    batch = min(how.batch, len(x))
    epochs = -(-how.steps // (len(x) // batch))
    key, labels = jax.random.key(seed), jnp.asarray(y, ready.dtype)
    weight, bias = _trained(ready, labels, key, how.rate, how.decay, epochs, batch)
    return Head(weight, bias, jnp.asarray(centre), jnp.asarray(scale))


@partial(jax.jit, static_argnames=("epochs", "batch"))
def _trained(x, y, key, rate: float, decay: float, epochs: int, batch: int):
    first, rest = jax.random.split(key)
    wide, used = x.shape[1], len(x) // batch * batch
    weights = jax.random.uniform(first, (wide,), x.dtype, -1, 1) / wide**0.5, jnp.zeros((), x.dtype)
    keys = jax.random.split(rest, epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, len(x)))(keys)
    order = order[:, :used].reshape(-1, batch)
    optimiser = optax.adamw(rate, weight_decay=decay)

    def loss(weights, rows) -> Float[Array, ""]:
        z = x[rows] @ weights[0] + weights[1]
        return optax.sigmoid_binary_cross_entropy(z, y[rows]).mean()

    def step(state, rows):
        weights, inner = state
        change, inner = optimiser.update(jax.grad(loss)(weights, rows), inner, weights)
        return (optax.apply_updates(weights, change), inner), None

    (weights, _), _ = jax.lax.scan(step, (weights, optimiser.init(weights)), order)
    return weights


def said(head: Head, x: Float[np.ndarray, "text d"]) -> Int[np.ndarray, "text"]:
    """The labels that a head gives to mean residuals."""
    return np.asarray(head(jnp.asarray(x)) > 0).astype(int)


class Pool(eqx.Module):
    """The mean residual of a text at a place: over tokens that are real, not the first of a causal
    model, and whose norm is at most `sink_norm`."""

    sink_norm: Float[Array, ""]
    place: Node = eqx.field(static=True)

    def __call__(
        self,
        model,
        tokens: Tokens,
        mask: Mask,
        edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
        start: Start | None = None,
    ) -> tuple[Float[Array, "batch d"], Sites]:
        """The means, and what `edits` recorded. No layer above the place is run."""
        site, layer = self.place.site, self.place.layer
        table = edits | Sites(**{site: At(jnp.asarray([layer]), Read())})
        _, records = run(model, tokens, table, mask=mask, layers=layer + 1, start=start)
        found, rest = _parted(getattr(edits, site), getattr(records, site))
        seen = usual(model, mask) & (jnp.linalg.norm(found[0], axis=-1) <= self.sink_norm)
        return mean(found[0], seen), dataclasses.replace(records, **{site: rest})


def _parted(edit: Any, record: Any) -> tuple[Any, Any]:
    """What was read behind an edit of the same site, and what that edit recorded."""
    if edit is None:
        return record, None
    return record[-1], record[:-1] if isinstance(edit, Chain) else record[0]


def usual(model, mask: Mask) -> Bool[Array, "batch pos"]:
    """Tokens that are real, and not the first of a causal model."""
    return mask & ~((jnp.cumsum(mask, axis=1) == 1) & model.causal)


def mean(x: Float[Array, "batch pos d"], seen: Bool[Array, "batch pos"]) -> Float[Array, "batch d"]:
    """The mean over the tokens that are seen."""
    count = jnp.maximum(seen.sum(axis=1, keepdims=True), 1)
    return jnp.where(seen[..., None], x, 0).sum(axis=1) / count.astype(x.dtype)


class Margin(Objective):
    """The logit of the right label less that of the wrong one; `prompts.answers` holds labels.

    >>> nodes(model, prompts, basis, Margin(head, pool), patch="zero", by_position=False)
    """

    head: Head
    pool: Pool

    @property
    def name(self) -> str:
        return "margin"

    @property
    def sign(self) -> float:
        return -1.0

    def __call__(
        self,
        model,
        tokens: Tokens,
        prompts: Prompts,
        edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
        start: Start | None = None,
    ) -> tuple[Float[Array, "batch"], Sites]:
        x, records = self.pool(model, tokens, prompts.mask, edits, start)
        return (2 * prompts.answers[:, 0] - 1) * self.head(x), records
