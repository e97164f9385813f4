"""A small run of training, for the tests of `fit` and of resampling."""

import dataclasses

import numpy as np

from jaxcirc.dictionaries import Config
from jaxcirc.dictionaries.train._config import Architecture
from jaxcirc.dictionaries.train._settings import BY_K

D, F, BATCH, SITES = 8, 16, 64, 2
SMALL = Config(
    "topk",
    d_dict=F,
    k=3,
    batch=BATCH,
    tokens=BATCH * 40,
    learning_rate=0.01,
    dead_after=500_000,
)
NAMES = (*Architecture.__args__, "crosscoder_k")
"""Every architecture; a crosscoder without k, and with it."""


def made(
    n: int, seed: int = 0, scale: float = 20.0, shift: float = 3.0, sites: int | None = None
) -> list[np.ndarray]:
    """Sparse sums of 16 directions, in no unit, around no zero; at several sites each site is
    larger than the one before, ten times."""
    rng = np.random.default_rng(seed)
    atoms = np.random.default_rng(99).normal(size=(F, (sites or 1) * D))
    codes = (rng.random((n, BATCH, F)) < 0.15) * rng.uniform(0.5, 1.5, (n, BATCH, F))
    found = (scale * (codes @ atoms) + shift).astype(np.float32)
    if sites is None:
        return list(found)
    units = 10.0 ** np.arange(sites, dtype=np.float32)[:, None]
    return list(found.reshape(n, BATCH, sites, D) * units)


def of(name: str, **fields) -> Config:
    own: dict = {} if name in (*BY_K, "crosscoder_k") else {"sparsity": 0.1}
    if name.startswith("crosscoder"):
        own |= {"k": SMALL.k if name == "crosscoder_k" else None}
    architecture = name.removesuffix("_k")
    return dataclasses.replace(SMALL, **({"architecture": architecture} | own | fields))


def data(name: str, n: int, seed: int = 0) -> list[np.ndarray]:
    """Activations that an architecture takes."""
    return made(n, seed, sites=SITES if name.startswith("crosscoder") else None)
