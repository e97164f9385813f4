"""What every dictionary is set beside: PCA, and random directions at equal k.

All are fitted on other text than they are judged on, and so are the means by position that mean
ablation puts in. May import `dictionaries`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ..._types import Progress
from ...dictionaries import pca_of, random_directions
from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary
from ._judge import features
from ._runs import Where, chunks, read_run

COMPONENTS = (64, 128)
"""Numbers of principal directions."""

MOST = 128
"""Features a token that random directions may spend: beyond, pursuit takes too long."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of the targets of a place over the tokens kept, sites side by side.

    - `by_position`: the mean at every position (the mean of all where none was kept). `l0`: the
      dictionary's active features a token.
    """

    n: int
    mean: Float[np.ndarray, "d"]
    covariance: Float[np.ndarray, "d d"]
    by_position: Float[np.ndarray, "pos d"]
    l0: float


@jax.jit
def _active(dictionary: AbstractDictionary, x) -> Float[jax.Array, "token"]:
    return (features(dictionary, x) != 0).sum(axis=-1).astype(jnp.float32)


def moments(
    model,
    dictionary: AbstractDictionary,
    contexts: Contexts,
    where: Where,
    batch: int,
    progress: Progress | None = None,
) -> Moments:
    """Means and covariance of the targets, by one pass that stops at the place.

    Raises `ValueError` where no token is kept.
    """
    return moments_of(model, [(dictionary, where)], contexts, batch, progress)[0]


def moments_of(
    model,
    pairs: Sequence[tuple[AbstractDictionary, Where]],
    contexts: Contexts,
    batch: int,
    progress: Progress | None = None,
) -> list[Moments]:
    """The same for several dictionaries at their places, by the same pass."""
    spots = tuple(dict.fromkeys(spot for _, where in pairs for spot in where.spots))
    sums = [_Sums(contexts.length) for _ in pairs]
    for i, chunk in enumerate(chunks(contexts, batch)):
        found = dict(zip(spots, read_run(model, *chunk.arrays(), spots), strict=True))
        for own, (dictionary, where) in zip(sums, pairs, strict=True):
            rows = [found[spot] for spot in where.spots]
            keep = where.kept(chunk, rows)
            x, y = where.sides(rows)
            flat = np.asarray(y, np.float64).reshape(len(keep), -1)
            own.add(flat, keep, np.asarray(_active(dictionary, x)))
        if progress is not None:
            progress(min(len(contexts), (i + 1) * batch), len(contexts))
    return [own.moments(str(where.place)) for own, (_, where) in zip(sums, pairs, strict=True)]


class _Sums:
    """Sums over tokens in float64."""

    def __init__(self, length: int):
        self.length, self.total, self.square = length, 0.0, 0.0
        self.positions, self.counts = 0.0, np.zeros((length, 1))
        self.n, self.l0 = 0, 0.0

    def add(
        self,
        y: Float[np.ndarray, "token d"],
        keep: Bool[np.ndarray, "token"],
        active: Float[np.ndarray, "token"],
    ) -> None:
        chosen = y[keep]
        self.n, self.l0 = self.n + len(chosen), self.l0 + float(active[keep].sum())
        self.total = self.total + chosen.sum(axis=0)
        self.square = self.square + chosen.T @ chosen
        self.positions = self.positions + np.where(keep[:, None], y, 0).reshape(
            -1, self.length, y.shape[1]
        ).sum(axis=0)
        self.counts += keep.reshape(-1, self.length).sum(axis=0)[:, None]

    def moments(self, place: str) -> Moments:
        n = self.n
        if not n:
            raise ValueError(f"{place}: every token is masked: check sink_norm, or give more text")
        mean = np.asarray(self.total / n)
        spread = np.asarray(self.square / n) - np.outer(mean, mean)
        means = np.where(self.counts > 0, self.positions / np.maximum(self.counts, 1), mean)
        return Moments(n, mean, spread, means, self.l0 / n)


def baselines(
    dictionary: AbstractDictionary, found: Moments, components: Sequence[int], seed: int
) -> dict[str, AbstractDictionary]:
    """PCA at some numbers of directions (as far as there are so many), and random directions.

    They rebuild the targets from the targets, sites side by side.
    """
    d = len(found.mean)
    each: dict[str, AbstractDictionary] = {
        f"pca_{n}": pca_of(found.mean, found.covariance, n) for n in components if 0 < n < d
    }
    mean = jnp.asarray(found.mean, jnp.float32)
    k = equal_k(dictionary, found)
    each["random"] = random_directions(jax.random.key(seed), d, dictionary.d_dict, k, mean)
    return each


def equal_k(dictionary: AbstractDictionary, found: Moments) -> int:
    """As many features a token as the dictionary spends on average."""
    return int(np.clip(round(found.l0), 1, min(MOST, dictionary.d_dict, len(found.mean))))
