"""A small transformer trained from scratch on IOI-like prompts, where attributes are independent by
construction and the strength of each is set by hand.

Prompts are "A and B ; S gave", names only and markers; the answer is the name that S is not. With
every pair of names drawn alike, codes by means and by least squares agree up to sampling, and a
share of one attribute's code can be taken away or added: the knob of occlusion on a trained model.
May import `models`, `taps`.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ...models import LM, toy
from ...taps import Read, Sites, run

MARKERS = 4
"""Tokens that are no names: start, and, then, gave."""


@dataclasses.dataclass(frozen=True)
class Small:
    """How large the model is, and how long it learns.

    - `names`: in its vocabulary.
    """

    names: int = 24
    d_model: int = 48
    steps: int = 1200
    batch: int = 256
    learning_rate: float = 3e-3


def prompts(
    rng: np.random.Generator, names: int, n: int
) -> tuple[Int[np.ndarray, "row pos"], dict[str, Int[np.ndarray, "row"]]]:
    """Tokens and labels: names come first in the vocabulary, then the markers."""
    io = rng.integers(0, names, n)
    subject = (io + rng.integers(1, names, n)) % names
    order = rng.integers(0, 2, n)
    first, second = np.where(order == 0, io, subject), np.where(order == 0, subject, io)
    start, joint, then, gave = (np.full(n, names + i) for i in range(MARKERS))
    tokens = np.stack([start, first, joint, second, then, subject, gave], axis=1)
    return tokens, {"IO": io, "S": subject, "Pos": order}


def fresh(small: Small, seed: int = 0) -> LM:
    """The model before training."""
    return toy(
        jax.random.key(seed),
        n_layers=2,
        d_model=small.d_model,
        n_heads=4,
        n_kv_heads=4,
        d_head=small.d_model // 4,
        d_mlp=2 * small.d_model,
        vocab=small.names + MARKERS,
        positions="learned",
        gated=False,
        activation="gelu_tanh",
    )


def trained_small(small: Small, seed: int = 0) -> tuple[LM, list[float]]:
    """The model after training, and its losses."""
    model = fresh(small, seed)
    model = eqx.tree_at(lambda m: m.embed, model, model.embed * 0.3)
    adam = optax.adam(optax.cosine_decay_schedule(small.learning_rate, small.steps))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    state, rng, losses = adam.init(arrays), np.random.default_rng(seed), []

    @jax.jit
    def step(arrays, state, tokens, answers):
        def loss(arrays):
            logits, _ = run(eqx.combine(arrays, static), tokens, logits_at=-1)
            return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()

        value, slope = jax.value_and_grad(loss)(arrays)
        update, state = adam.update(slope, state)
        return optax.apply_updates(arrays, update), state, value

    for _ in range(small.steps):
        tokens, labels = prompts(rng, small.names, small.batch)
        arrays, state, value = step(arrays, state, jnp.asarray(tokens), jnp.asarray(labels["IO"]))
        losses.append(value)
    return eqx.combine(arrays, static), [float(x) for x in losses]


def accuracy(model: LM, small: Small, n: int = 512, seed: int = 1) -> float:
    """How often the answer is the name that S is not."""
    tokens, labels = prompts(np.random.default_rng(seed), small.names, n)
    logits, _ = run(model, jnp.asarray(tokens), logits_at=-1)
    return float((np.asarray(logits.argmax(axis=1)) == labels["IO"]).mean())


def at_the_end(
    model: LM, small: Small, layer: int, n: int, seed: int = 2
) -> tuple[Float[Array, "row d"], dict[str, Int[np.ndarray, "row"]]]:
    """The residual stream at the last token behind a block, with labels."""
    tokens, labels = prompts(np.random.default_rng(seed), small.names, n)
    _, records = run(model, jnp.asarray(tokens), Sites(resid_post=Read()), logits_at=-1)
    return records.resid_post[layer, :, -1], labels
