"""Sampling with edits, on the key-value cache that `run` takes. May import the run."""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._types import Mask, Tokens
from ._edit import Read
from ._run import Cache, Model, run
from ._sites import Sites


@partial(jax.jit, static_argnames=("n", "during"))
def generate(
    model: Model,
    tokens: Tokens,
    edits: Sites = Sites(),  # noqa: B008
    n: int = 20,
    key: PRNGKeyArray | None = None,
    *,
    temperature: float | Float[Array, ""] | None = None,
    mask: Mask | None = None,
    during: Literal["all", "prompt"] = "all",
) -> Int[Array, "batch n"]:
    """Continue prompts by n tokens with activations rewritten.

    - `tokens`: Int[batch pos], padded on the left where `mask` (Bool[batch pos]) is False.
    - `edits`: act on the prompt and on every new token, or with `during="prompt"` on the prompt
      alone (edits with a position axis of the prompt's length need that).
    - `key`: samples, at `temperature` (default 1); greedy without a key.

    Returns the new tokens, Int[batch n]. The keys and values kept are those *after* the edits.
    Raises `ValueError` for n < 1, or a temperature without a key.

    >>> generate(model, tokens, resolve(at("resid_post", layer=9).add(direction), model), n=8)
    """
    if n < 1 or (key is None and temperature is not None):
        raise ValueError(
            "generate(..., n=20, key=jax.random.key(0), temperature=1.0): n from 1, and a key"
        )
    mask = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    keep = Sites(rot_k=Read(), v=Read())
    logits, records = run(model, tokens, edits | keep, mask=mask, logits_at=last)
    cache = _room(_kept(records, edits), mask, n)
    later = edits if during == "all" else Sites()
    keys = None if key is None else jax.random.split(key, n)
    heat = jnp.asarray(0.0 if key is None else 1.0 if temperature is None else temperature)
    first = _pick(logits, None if keys is None else keys[0], heat)

    def step(carry, key):
        token, cache, length = carry
        logits, records = run(model, token[:, None], later | keep, cache=cache, logits_at=-1)
        cache = _append(cache, _kept(records, later), length)
        token = _pick(logits, key, heat)
        return (token, cache, length + 1), token

    start = first, cache, jnp.asarray(tokens.shape[1])
    _, rest = lax.scan(step, start, None if keys is None else keys[1:], length=n - 1)
    return jnp.concatenate([first[:, None], rest.T], axis=1)


def _kept(records: Sites, edits: Sites) -> tuple[Array, Array]:
    """Keys and values as they flowed on: the last record of a chain, if the caller edits them
    too."""
    keys = records.rot_k if edits.rot_k is None else records.rot_k[-1]
    values = records.v if edits.v is None else records.v[-1]
    return keys, values


def _room(kept: tuple[Array, Array], mask: Mask, n: int) -> Cache:
    """The prompt's cache with n masked places behind it."""
    keys, values = (jnp.pad(x, ((0, 0), (0, 0), (0, n), (0, 0), (0, 0))) for x in kept)
    mask = jnp.pad(mask, ((0, 0), (0, n)))
    return Cache(keys, values, jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), mask)


def _append(cache: Cache, kept: tuple[Array, Array], length: Int[Array, ""]) -> Cache:
    position = jnp.sum(cache.mask, axis=1, keepdims=True)
    put = lax.dynamic_update_slice_in_dim
    return Cache(
        put(cache.keys, kept[0], length, 2),
        put(cache.values, kept[1], length, 2),
        put(cache.positions, position.astype(cache.positions.dtype), length, 1),
        put(cache.mask, jnp.ones_like(position, bool), length, 1),
    )


def _pick(
    logits: Float[Array, "batch vocab"], key: PRNGKeyArray | None, temperature: Float[Array, ""]
) -> Int[Array, "batch"]:
    greedy = jnp.argmax(logits, axis=-1)
    if key is None:
        return greedy
    safe = jnp.where(temperature > 0, temperature, 1.0)
    return jnp.where(temperature > 0, drawn(key, logits / safe), greedy)


def drawn(key: PRNGKeyArray, logits: Float[Array, "batch vocab"]) -> Int[Array, "batch"]:
    """One of softmax(logits) a row: a block of the vocabulary, then one of the block.

    Two random numbers a row, where `jax.random.categorical` takes one a token of the vocabulary: on
    a CPU that is as dear as a small model's step.
    """
    vocab = logits.shape[-1]
    width = math.isqrt(vocab)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab % width))).reshape(len(weights), -1, width)
    which, within = jax.random.split(key)
    block = _inverted(which, blocks.sum(axis=-1))
    return block * width + _inverted(within, blocks[jnp.arange(len(blocks)), block])


def _inverted(key: PRNGKeyArray, weights: Float[Array, "batch n"]) -> Int[Array, "batch"]:
    """By inversion of the distribution function: the first index whose sum so far is larger."""
    sums = jnp.cumsum(weights, axis=-1)
    whole = sums[:, -1:]
    at = jnp.minimum(jax.random.uniform(key, whole.shape) * whole, jnp.nextafter(whole, 0.0))
    return (sums <= at).sum(axis=-1)
