r"""The dictionary that all heads share, and the codes it gives: O'Neill & Bui 2024 (arXiv
2405.12522), section 3, after their code.

$$f(x) = \mathrm{relu}((x - b) W_e + b_e), \quad \hat x = f \hat W_d + b, \quad
  L = \overline{(\hat x - x)^2} + \lambda\, \overline{\|f\|_1}, \quad
  \mathrm{code}(x) = \arg\max_j f_j(x)$$

Trials (seeds, examples, penalties) are an axis: all of them train in one compiled call. Imports
nothing of jaxcirc.
"""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

DecoderNorm = Literal["column", "reference"]
FAST = 16  # examples encoded at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a dictionary is trained.

    - `features`: of the dictionary. `penalty`: lambda. `steps`: of full-batch Adam at
      `learning_rate`. `examples`: texts it is trained on, of both classes.
    - `decoder_norm`: "column" gives every direction length 1; "reference" normalises over features
      for every coordinate, as the published code does.

    Raises `ValueError` for another word, or a number that is too small.
    """

    features: int = 200
    penalty: float = 0.02
    steps: int = 500
    learning_rate: float = 1e-3
    examples: int = 10
    decoder_norm: DecoderNorm = "column"

    def __post_init__(self) -> None:
        if self.decoder_norm not in ("column", "reference"):
            raise ValueError(
                f'decoder_norm={self.decoder_norm!r}: use "column" or "reference" (as published)'
            )
        least_of = {"features": 2, "steps": 0, "examples": 1, "penalty": 0}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}={getattr(self, name)}: give at least {least}")


class DiscreteSAE(eqx.Module):
    """A ReLU dictionary; its arrays may lead with an axis of trials.

    - `w_enc`: Float[d_model feature]. `w_dec`: Float[feature d_model], normalised. `b_dec`: tied,
      taken off before encoding.
    """

    w_enc: Float[Array, "*trial d_model feature"]
    b_enc: Float[Array, "*trial feature"]
    w_dec: Float[Array, "*trial feature d_model"]
    b_dec: Float[Array, "*trial d_model"]

    def encode(self, x: Float[Array, "*row d_model"]) -> Float[Array, "*row feature"]:
        """Features of one trial's dictionary."""
        return jax.nn.relu((x - self.b_dec) @ self.w_enc + self.b_enc)

    def decode(self, features: Float[Array, "*row feature"]) -> Float[Array, "*row d_model"]:
        """What one trial's dictionary makes of features."""
        return features @ self.w_dec + self.b_dec


def start(key: PRNGKeyArray, d_model: int, settings: Settings) -> DiscreteSAE:
    """A dictionary before training: normal rows of length 1, biases within 1/sqrt(d_model)."""
    keys = jax.random.split(key, 3)
    w_enc = jax.random.normal(keys[0], (settings.features, d_model))
    w_dec = jax.random.normal(keys[1], (settings.features, d_model))
    bound = d_model**-0.5
    return DiscreteSAE(
        (w_enc / jnp.linalg.norm(w_enc, axis=1, keepdims=True)).T,
        jax.random.uniform(keys[2], (settings.features,), minval=-bound, maxval=bound),
        _normal(w_dec, settings),
        jnp.zeros(d_model),
    )


def loss(
    sae: DiscreteSAE,
    x: Float[Array, "row d_model"],
    weights: Float[Array, "row"],
    penalty: Float[Array, ""],
) -> Float[Array, ""]:
    """The mean squared error over all elements, and the penalty on the mean L1 norm: what training
    lowers."""
    features = sae.encode(x)
    error = jnp.square(sae.decode(features) - x).mean(axis=1)
    return (weights * (error + penalty * features.sum(axis=1))).sum() / weights.sum()


class Rows(NamedTuple):
    """Training rows, each one's share of the loss, and what of the loss needs no dictionary: their
    mean and their mean square."""

    x: Float[Array, "row d_model"]
    share: Float[Array, "row"]
    mean: Float[Array, "d_model"]
    square: Float[Array, ""]

    @classmethod
    def of(cls, x: Float[Array, "row d_model"], weights: Float[Array, "row"]) -> "Rows":
        """The rows with their weights."""
        share = weights / weights.sum()
        return cls(x, share, share @ x, share @ jnp.square(x).sum(axis=1))


def loss_and_slopes(
    sae: DiscreteSAE, rows: Rows, penalty: Float[Array, ""]
) -> tuple[Float[Array, ""], DiscreteSAE]:
    r"""`loss` and its gradient with no table [row d_model] but x itself.

    $$\partial f = s\,(f G - (x - b) \hat W_d^T) + \lambda, \quad
      \partial \hat W_d = (s f)^T f\, \hat W_d - (s f)^T (x - b), \quad G = \hat W_d \hat W_d^T$$

    so that a step is four products with x and two smaller ones, where the plain form has five and
    passes over [row d_model] several times.
    """
    x, share, width = rows.x, rows.share[:, None], rows.x.shape[1]
    pre = x @ sae.w_enc + (sae.b_enc - sae.b_dec @ sae.w_enc)
    along = x @ sae.w_dec.T - sae.w_dec @ sae.b_dec
    features = jax.nn.relu(pre)
    mixed = features @ (sae.w_dec @ sae.w_dec.T)
    into = jnp.where(pre > 0, share * ((2 / width) * (mixed - along) + penalty), 0.0)
    scaled = (2 / width) * share * features
    into_sum, scaled_sum = into.sum(axis=0), scaled.sum(axis=0)
    left = (2 / width) * (rows.mean - sae.b_dec)
    slopes = DiscreteSAE(
        (into.T @ x).T - jnp.outer(sae.b_dec, into_sum),  # a third faster than x.T @ into on a CPU
        into_sum,
        (scaled.T @ features) @ sae.w_dec - (scaled.T @ x - jnp.outer(scaled_sum, sae.b_dec)),
        scaled_sum @ sae.w_dec - left - sae.w_enc @ into_sum,
    )
    centred = rows.square + (sae.b_dec - 2 * rows.mean) @ sae.b_dec
    error = (rows.share * ((mixed - 2 * along) * features).sum(axis=1)).sum() + centred
    return error / width + penalty * (share * features).sum(), slopes


@partial(jax.jit, static_argnames=("settings",))
def fit(
    x: Float[Array, "example unit d_model"],
    seen: Bool[Array, "example unit"],
    picks: Int[Array, "trial pick"],
    keys: PRNGKeyArray,
    penalties: Float[Array, "trial"],
    *,
    settings: Settings,
) -> tuple[DiscreteSAE, Float[Array, "trial step"]]:
    """Train one dictionary a trial, every (example, unit) being a row.

    - `seen`: rows that count (False: padding). `picks`: each trial's training examples.
    - `penalties`: lambda by trial (`settings.penalty` is not read, so that one program serves all).

    Returns (dictionaries, losses).

    >>> sae, losses = fit(x, seen, picks, keys, penalties, settings=Settings())
    """

    def trial(picks, key, penalty):
        rows = x[picks].reshape(-1, x.shape[-1])
        weights = seen[picks].reshape(-1).astype(x.dtype)
        first = start(key, x.shape[-1], settings)
        return _train(first, Rows.of(rows, weights), penalty, settings)

    trials = picks, keys, penalties
    if jax.default_backend() == "cpu":  # where products of many small batches are slower
        return jax.lax.map(lambda own: trial(*own), trials)
    return jax.vmap(trial)(*trials)


def _train(sae: DiscreteSAE, rows: Rows, penalty, settings: Settings):
    optimiser: Any = optax.adam(settings.learning_rate)

    def step(state, _):
        sae, memory = state
        value, slopes = loss_and_slopes(sae, rows, penalty)
        along = _unit_part(slopes.w_dec, sae.w_dec, settings)
        slopes = eqx.tree_at(lambda s: s.w_dec, slopes, slopes.w_dec - along)
        updates, memory = optimiser.update(slopes, memory)
        sae = eqx.apply_updates(sae, updates)
        sae = eqx.tree_at(lambda s: s.w_dec, sae, _normal(sae.w_dec, settings))
        return (sae, memory), value

    (sae, _), losses = jax.lax.scan(step, (sae, optimiser.init(sae)), length=settings.steps)
    return sae, losses


def _axis(settings: Settings) -> int:
    return 1 if settings.decoder_norm == "column" else 0


def _normal(w_dec: Array, settings: Settings) -> Array:
    return w_dec / jnp.linalg.norm(w_dec, axis=_axis(settings), keepdims=True)


def _unit_part(slope: Array, w_dec: Array, settings: Settings) -> Array:
    """The part of the slope along the normalised vectors, which normalising takes back."""
    return (slope * w_dec).sum(axis=_axis(settings), keepdims=True) * w_dec


@jax.jit
def codes_of(
    sae: DiscreteSAE, x: Float[Array, "example unit d_model"]
) -> Int[Array, "trial example unit"]:
    """The most active feature of every row: the first of equals, and 0 where none is active.

    >>> codes_of(sae, x)
    """

    def one(sae: DiscreteSAE):
        encode = lambda rows: jnp.argmax(sae.encode(rows), axis=-1).astype(jnp.int32)  # noqa: E731
        return jax.lax.map(encode, x, batch_size=min(FAST, x.shape[0]))

    return jax.lax.map(one, sae)


def picked(
    seeds: int, examples: int, of: int, seed: int = 0
) -> tuple[Int[np.ndarray, "trial pick"], PRNGKeyArray]:
    """Each trial's training examples, drawn without regard to class, and its key.

    Raises `ValueError` for more than there are, or no seed.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: train at least one dictionary, seeds=3")
    if examples > of:
        raise ValueError(f"examples={examples} of {of} texts: train on at most {of}")
    rows = [np.random.default_rng((seed, t)).permutation(of)[:examples] for t in range(seeds)]
    keys = jax.random.split(jax.random.key(seed), seeds)
    return np.stack(rows), keys
