"""`Config`: everything that decides a training run besides its data, and the dictionary it begins
with. May import the architectures.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._coded import Coded
from .._coder import Coder, init_coder
from .._trained import Stage, Trainable
from ..batchtopk import BatchTopK
from ..crosscoder import Crosscoder, init_crosscoder
from ..gated import Gated
from ..jumprelu import JumpReLU
from ..l1 import L1
from ..matryoshka import Matryoshka
from ..topk import TopK
from ..transcoder import Transcoder
from ._settings import BY_K, check_numbers, check_read

Architecture = Literal[
    "topk",
    "batchtopk",
    "l1",
    "l1_unit",
    "p_anneal",
    "gated",
    "jumprelu",
    "matryoshka",
    "crosscoder",
]
Optimiser = Literal["adam", "adamw", "muon"]

LONG, FASTEST = 20_000, 3e-3
"""Shorter runs learn faster: of 570 steps on SmolLM2-135M's resid_post.12 (2,048 features, k = 32)
the dictionary cost 0.33 nats at 5.7e-4, 0.24 at 1.2e-3 and 0.20 at 3e-3."""

K = 32
"""Active features a token, where nothing else is said."""

LIFE = 10_000_000
"""In long runs, a feature that is silent for so many tokens is dead."""


@dataclasses.dataclass(frozen=True)
class Config:
    """How to train a dictionary. Activations are brought to unit mean square first (see `fit`), so
    coefficients and learning rates carry over between sites.

    - `k`: active features a token (the TopK family; for "jumprelu" the L0 aimed at; others do not
      read it), default 32; a "crosscoder" is BatchTopK with k given, and has a penalty without.
      `sparsity`: the coefficient of the penalty (all but the TopK family). `widths`: nested widths
      of "matryoshka" (default: an eighth, a quarter, a half and the whole).
    - `batch`: tokens in a step. `tokens`: of the whole run. `learning_rate`: default 3e-4; for the
      TopK family 2e-4 sqrt(16,384 / d_dict), and in runs of fewer than `LONG` steps more, by
      sqrt(LONG / steps), up to `FASTEST`.
    - `warmup`, `decay`, `sparsity_warmup`, `anneal`: shares of the run in which the learning rate
      rises at first and falls at last, the penalty rises, and k comes down from `k_start`. The
      power of "p_anneal" falls from 1 to `power` over the whole run.
    - `dead_after`: tokens without firing after which a feature counts as dead (default: a tenth of
      the run, at most ten million). `resample`: how many times in the run dead features are drawn
      anew (families with a penalty).
    - `skip`: a transcoder's linear path. `frozen`: random directions that stay.
    - `dtype`: of the arithmetic; parameters and their optimiser stay float32.

    Raises `ValueError` for what is out of range, and for settings that the architecture has not.
    """

    architecture: Architecture = "topk"
    d_dict: int = 2048
    k: int | None = None
    sparsity: float = 1.0
    widths: tuple[int, ...] = ()
    batch: int = 2048
    tokens: int = 1_000_000
    learning_rate: float | None = None
    optimiser: Optimiser = "adam"
    weight_decay: float = 0.0
    warmup: float = 0.02
    decay: float = 0.2
    sparsity_warmup: float = 0.05
    anneal: float = 0.1
    k_start: int | None = None
    power: float = 0.2
    dead_after: int | None = None
    resample: int = 0
    skip: bool = False
    frozen: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self):
        for name, words in (("architecture", Architecture), ("optimiser", Optimiser)):
            if getattr(self, name) not in get_args(words):
                known = ", ".join(get_args(words))
                raise ValueError(f"{name}={getattr(self, name)!r}: use one of {known}")
        if self.k is None and self.architecture in (*BY_K, "jumprelu"):
            object.__setattr__(self, "k", K)
        if self.dead_after is None:
            object.__setattr__(self, "dead_after", max(1, min(LIFE, self.tokens // 10)))
        check_read(self, self.kind)
        check_numbers(self)
        if not 0 < self.active <= self.d_dict:
            raise ValueError(f"k={self.k}: give 1..{self.d_dict} (d_dict), as in k=32")
        if self.k_start is not None and not self.active <= self.k_start <= self.d_dict:
            raise ValueError(f"k_start={self.k_start}: give {self.k} (k) or more, as in k_start=64")

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return max(1, math.ceil(self.tokens / self.batch))

    @property
    def by_k(self) -> bool:
        """Whether sparsity is a number of features, not a coefficient."""
        return self.kind in (*BY_K, "crosscoder by k")

    @property
    def kind(self) -> str:
        """The architecture; a crosscoder with k apart from one without."""
        crossed = self.architecture == "crosscoder" and self.k is not None
        return "crosscoder by k" if crossed else self.architecture

    @property
    def life(self) -> int:
        """`dead_after`, which is a number by now."""
        assert self.dead_after is not None
        return self.dead_after

    @property
    def active(self) -> int:
        """k; where there is none, all features."""
        return self.d_dict if self.k is None else self.k

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        if not self.by_k:
            return 3e-4
        hurry = max(1.0, math.sqrt(LONG / self.steps))
        return min(FASTEST, 2e-4 * math.sqrt(2**14 / self.d_dict) * hurry)


def build(
    config: Config,
    key: PRNGKeyArray,
    d_in: int,
    d_out: int | None = None,
    start: Array | None = None,
    sites: int | None = None,
) -> Trainable:
    """A fresh dictionary; with `d_out`, a transcoder's; with `sites`, a crosscoder over so many.

    - `start`: the decoder's bias at first, best the mean of the targets.

    Raises `ValueError` where one of architecture and place has several sites and the other has not,
    or where there is no transcoder to have a skip.
    """
    if (config.architecture == "crosscoder") != (sites is not None):
        raise ValueError(
            'Config("crosscoder") and places of several sites, as "resid_post.10+resid_post.14", go'
            f' together: this is Config("{config.architecture}") on {sites or "one"}'
        )
    if sites is not None:
        return _crosscoder(config, key, sites, d_in, start)
    return _of_one_site(config, key, d_in, d_out, start)


def _crosscoder(
    config: Config, key: PRNGKeyArray, sites: int, d_in: int, start: Array | None
) -> Crosscoder:
    """Short directions where there is a penalty; the encoder's bias takes the mean off at first."""
    length = 1.0 if config.by_k else 0.1
    found = init_crosscoder(key, sites, d_in, config.d_dict, config.k, length=length)
    if start is None:
        return found
    mean = jnp.asarray(start, jnp.float32)
    offset = -jnp.einsum("sd,sdf->f", mean, found.w_enc)
    return dataclasses.replace(found, b_enc=offset, b_dec=mean)


def _of_one_site(
    config: Config, key: PRNGKeyArray, d_in: int, d_out: int | None, start: Array | None
) -> Coded | Transcoder:
    if config.skip and d_out is None:
        raise ValueError(
            "skip=True: only transcoders have it, at a place such as mlp_normed.12>mlp_out.12"
        )
    unit = config.architecture in ("l1_unit", "gated")
    length = 0.1 if config.architecture in ("l1", "p_anneal") else 1.0
    coder = init_coder(
        key,
        d_in,
        config.d_dict,
        d_out,
        length=length,
        centred=d_out is None,
        norm="unit" if unit else "free",
        frozen=config.frozen,
    )
    if unit:  # from a small encoder directions come out apart that otherwise stay mixed
        coder = dataclasses.replace(coder, w_enc=0.1 * coder.w_enc)
    if start is not None:
        coder = dataclasses.replace(coder, b_dec=jnp.asarray(start, jnp.float32))
    inner = fresh(config, coder)
    if d_out is None:
        return inner
    return Transcoder(inner, jnp.zeros((d_in, d_out)) if config.skip else None)


def fresh(config: Config, coder: Coder) -> Coded:
    """A dictionary of the config's architecture with this coder, all else as it begins."""
    d, k = config.d_dict, config.active
    match config.architecture:
        case "topk":
            return TopK(coder, k, most=config.k_start)
        case "batchtopk":
            return BatchTopK(coder, k)
        case "matryoshka":
            widths = config.widths or tuple(sorted({max(1, d // 8), d // 4 or 1, d // 2 or 1, d}))
            return Matryoshka(coder, k, widths=widths)
        case "gated":
            return Gated(coder, jnp.zeros(d), jnp.zeros(d))
        case "jumprelu":
            return JumpReLU(coder, jnp.full(d, _level(k / d)), target=float(k), width=0.5)
    return L1(coder)


def _level(share: float) -> float:
    """The threshold above which this share of pre-activations lies at first, so that JumpReLU
    begins at the L0 it aims at. Rows of length 1 give them a variance of 1 on scaled activations;
    at 0.001 with a window as narrow (the paper's, for activations of length 1) none is ever near.
    """
    return NormalDist().inv_cdf(1 - min(share, 0.5))


def stage(config: Config, step: Array, sparsity: Float[Array, ""], dead: Array) -> Stage:
    """Where the run stands after `step` steps."""
    done = step / config.steps
    warm = jnp.clip(done / max(config.sparsity_warmup, 1e-9), 0, 1)
    down = jnp.clip(done / max(config.anneal, 1e-9), 0, 1)
    start = config.active if config.k_start is None else config.k_start
    k = jnp.round(start + (config.active - start) * down).astype(jnp.int32)
    falls = config.architecture == "p_anneal"
    power = 1 + (config.power - 1) * done if falls else jnp.ones(())
    return Stage((sparsity * warm).astype(jnp.float32), k, power.astype(jnp.float32), dead)


def peak(config: Config) -> np.ndarray:
    """The learning rate's share of its peak at every step: up, level, down to 0."""
    at = np.arange(config.steps)
    rise = (at + 1) / max(1, round(config.warmup * config.steps))
    fall = (config.steps - at) / max(1, round(config.decay * config.steps))
    return np.minimum(1, np.minimum(rise, fall)).astype(np.float32)


def keys(config: Config) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """For the dictionary, and for what training draws."""
    first, second = jax.random.split(jax.random.key(config.seed))
    return first, second
