"""The table of cases that the tests share: models, dictionaries, and prompts for them."""

import dataclasses
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jaxcirc.models import toy
from jaxcirc.taps import AbstractDictionary, run
from jaxcirc.tasks import Prompts

SHAPES = {
    "grouped": {},
    "learned": {
        "norm": "layer",
        "positions": "learned",
        "gated": False,
        "activation": "gelu_tanh",
        "biases": True,
        "n_kv_heads": 4,
        "tied": False,
    },
    "parallel": {"parallel": True, "norm": "layer", "biases": True},
    "attention": {"d_mlp": None, "norm": None, "positions": "learned", "n_kv_heads": 4},
    "gemma": {"qk_norm": True, "post_norm": True, "window": 3, "n_kv_heads": 1},
    "capped": {"soft_cap": 5.0, "window": 4, "biases": True},
}
"""Every kind of part that a model can have, in six small random models."""

UNLIKE = ("learned", "gemma")
"""Two that share no part, for laws that do not depend on the part and cost many compiles."""


def slow_at(cases, *slow):
    """The same cases, some of them for `-m slow` alone: laws that hold at every part and cost many
    compiles stay in the default run at the parts that differ most."""

    def late(case):
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [late(case) if case in slow else case for case in cases]


SITES = (
    "resid_pre",
    "attn_in",
    "attn_normed",
    "q",
    "k",
    "v",
    "rot_q",
    "rot_k",
    "k_at_head",
    "v_at_head",
    "scores",
    "pattern",
    "z",
    "head_out",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_normed",
    "mlp_pre",
    "mlp_up",
    "mlp_post",
    "mlp_out",
    "resid_post",
)

LENGTH = 8


@cache
def tiny(name: str, dtype: jnp.dtype = jnp.float32):
    """A model of the table, in the given dtype."""
    return toy(jax.random.key(len(name)), dtype=dtype, **SHAPES[name])


def tokens(key: int = 0, batch: int = 3, length: int = LENGTH, vocab: int = 50) -> Array:
    """Random tokens: Int[batch pos]."""
    return jax.random.randint(jax.random.key(key), (batch, length), 0, vocab)


def here(model, sites=SITES) -> list[str]:
    """Those of the sites that a model has."""
    return [site for site in sites if site in model.sites()]


def pairs(first: int = 4, batch: int = 3, length: int = 7, pads: int = 0) -> Prompts:
    """Random pairs that differ at column `first`, the first prompt padded by `pads` columns."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 50, (batch, length))
    corrupt, mask = clean.copy(), np.ones((batch, length), bool)
    corrupt[:, first] = (corrupt[:, first] + rng.integers(1, 50, batch)) % 50
    mask[0, :pads] = False
    one = jnp.ones((batch, 1))
    return Prompts(
        clean=jnp.asarray(clean),
        corrupt=jnp.asarray(corrupt),
        mask=jnp.asarray(mask),
        answers=jnp.asarray(rng.integers(0, 25, (batch, 1))),
        answer_weights=one,
        wrongs=jnp.asarray(rng.integers(25, 50, (batch, 1))),
        wrong_weights=one,
        spans={"changed": jnp.arange(length)[None] == jnp.full((batch, 1), first)},
        templates=jnp.arange(batch) % 2,
    )


def answered(model, prompts: Prompts) -> Prompts:
    """The pairs with what this model says of the clean prompts as answers, and its last choice as
    wrongs: a behaviour that it surely has."""
    logits, _ = run(model, prompts.clean, mask=prompts.mask, logits_at=-1)
    answers, wrongs = logits.argmax(axis=1)[:, None], logits.argmin(axis=1)[:, None]
    return dataclasses.replace(prompts, answers=answers, wrongs=wrongs)


def close(a, b, tolerance: float = 1e-5) -> None:
    """Equal to rounding, relative to the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-6)


class ReLUDictionary(AbstractDictionary):
    """A random dictionary: nothing about it makes the error vanish."""

    w: Float[Array, "d_in feature"]
    b: Float[Array, "feature"]
    d_in = property(lambda self: self.w.shape[0])
    d_dict = property(lambda self: self.w.shape[1])
    directions = property(lambda self: self.w.T * 0.1)

    def encode(self, x):
        return jax.nn.relu(x @ self.w + self.b)

    def decode(self, features):
        return features @ self.w.T * 0.1 + 0.05


class TopKDictionary(AbstractDictionary):
    """Random directions, the two largest pre-activations kept."""

    w: Float[Array, "d_in feature"]
    d_in = property(lambda self: self.w.shape[0])
    d_dict = property(lambda self: self.w.shape[1])
    directions = property(lambda self: self.w.T)
    k: int = eqx.field(static=True, default=2)

    def encode(self, x):
        pre = jax.nn.relu(x @ self.w)
        values, _ = jax.lax.top_k(pre, self.k)
        return jnp.where(pre >= values[..., -1:], pre, 0.0)

    def decode(self, features):
        return features @ self.w.T


def dictionaries(d_in: int, dtype: jnp.dtype = jnp.float32) -> dict[str, AbstractDictionary]:
    """Random dictionaries of 24 features by name."""
    w, b = jax.random.split(jax.random.key(7))
    weight = jax.random.normal(w, (d_in, 24), dtype) / d_in**0.5
    return {
        "relu": ReLUDictionary(weight, 0.1 * jax.random.normal(b, (24,), dtype)),
        "topk": TopKDictionary(weight),
    }
