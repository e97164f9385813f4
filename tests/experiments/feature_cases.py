"""A tiny model that reads SmolLM2's tokens, with random dictionaries: what studies run on."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from cases import answered

from jaxcirc.circuits.features import Basis
from jaxcirc.dictionaries import TopK, init_coder
from jaxcirc.dictionaries.train import Contexts
from jaxcirc.experiments.feature_circuits import Split, split_of
from jaxcirc.models import toy

PLACES = ("resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1")
WIDTH, FEATURES, K = 16, 24, 4


def model():
    build = eqx.filter_jit(lambda key: toy(key, n_layers=2, vocab=49152, d_model=WIDTH, d_mlp=12))
    return build(jax.random.key(0))


def dictionaries(places=PLACES):
    keys = jax.random.split(jax.random.key(1), len(places))
    return {
        place: TopK(init_coder(key, WIDTH, FEATURES), K)
        for place, key in zip(places, keys, strict=True)
    }


def basis(model) -> Basis:
    return Basis.of(model, dictionaries())


def contexts(vocab: int = 60, rows: int = 24, length: int = 16) -> Contexts:
    """Random text of few words, so that each comes often."""
    tokens = np.random.default_rng(0).integers(0, vocab, (rows, length))
    numbers = np.arange(rows)
    real = np.ones(tokens.shape, bool)
    return Contexts(tokens, real, numbers, np.zeros(rows, int), ("made",))


def _one(prompts):
    """One answer and one wrong each."""
    ones = jnp.ones(prompts.answers.shape)
    return dataclasses.replace(prompts, answer_weights=ones, wrong_weights=ones)


def split(model, tokenizer, n: int = 6) -> Split:
    """Prompts whose answers are what the model says."""
    found = split_of(model, tokenizer, "agreement_simple", n, known=False)
    discovery, evaluation = (_one(answered(model, x)) for x in (found.discovery, found.evaluation))
    return Split(found.name, discovery, evaluation)
