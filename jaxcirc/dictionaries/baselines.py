r"""Dictionaries that nothing was trained for: what a trained one has to beat.

`PCA` explains most with fewest directions; `random_directions` spends k features a token on
directions that know nothing of the data. `taps.Identity` is the neuron basis. May import `taps`,
`_coder`, `topk`.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..taps import AbstractDictionary
from ._coder import init_coder, unit
from .topk import TopK


class Affine(AbstractDictionary):
    r"""Directions around a mean: $\hat x = f\, \mathrm{rows} + \mu$. How they are coded differs."""

    mean: eqx.AbstractVar[Float[Array, "d_in"]]
    rows: eqx.AbstractVar[Float[Array, "feature d_in"]]

    @property
    def d_in(self) -> int:
        return self.rows.shape[1]

    @property
    def d_dict(self) -> int:
        return self.rows.shape[0]

    @property
    def directions(self) -> Float[Array, "feature d_in"]:
        return self.rows

    def decode(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch d_in"]:
        return features @ self.rows + self.mean


class PCA(Affine):
    r"""Principal directions: $f = (x - \mu) V$, $\hat x = f V^T + \mu$. Features have signs.

    >>> pca(activations, 64).decode(pca(activations, 64).encode(x))
    """

    mean: Float[Array, "d_in"]
    rows: Float[Array, "feature d_in"]

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch feature"]:
        return (x - self.mean) @ self.rows.T


def pca(activations: Float[Array, "token d_in"], n: int) -> PCA:
    """The n principal directions of some activations, largest first.

    Raises `ValueError` for more directions than the activations span.
    """
    x = np.asarray(activations, np.float64)
    if not 0 < n <= min(x.shape):
        raise ValueError(f"n={n}: {x.shape[0]} activations of width {x.shape[1]} have fewer")
    mean = x.mean(axis=0)
    return pca_of(mean, (x - mean).T @ (x - mean) / len(x), n)


def pca_of(mean: Float[np.ndarray, "d"], covariance: Float[np.ndarray, "d d"], n: int) -> PCA:
    """The same from a mean and a covariance, which a stream can gather."""
    _, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    rows = vectors[:, ::-1][:, :n].T
    return PCA(jnp.asarray(mean, jnp.float32), jnp.asarray(rows, jnp.float32))


class Pursuit(Affine):
    r"""Fixed directions, the best k found one after another and fitted together.

    Orthogonal matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993): each round takes the
    direction that points most along what is left, either way, and takes off what all taken so far
    explain. No trained encoder at equal k does much better, so a random dictionary judged by this
    is judged fairly.
    """

    mean: Float[Array, "d_in"]
    rows: Float[Array, "feature d_in"]
    k: int = eqx.field(static=True)

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch feature"]:
        flat = (x - self.mean).reshape(-1, self.d_in)
        chosen, basis = self._chosen(flat)
        sizes = self._fit(flat, chosen, basis)
        features = jnp.zeros((len(flat), self.d_dict), x.dtype)
        features = features.at[jnp.arange(len(flat))[:, None], chosen].set(sizes)
        return features.reshape(*x.shape[:-1], self.d_dict)

    def _chosen(
        self, x: Float[Array, "token d_in"]
    ) -> tuple[Int[Array, "token k"], Float[Array, "token k d_in"]]:
        """Which directions, in the order of their choice; and the same at right angles to each
        other, so that a round takes off one of them and fits none again."""
        ways, token = unit(self.rows), jnp.arange(len(x))

        def take(carry, i):
            left, free, basis = carry
            along = jnp.where(free, jnp.abs(left @ ways.T), -1.0)
            at = along.argmax(axis=1)
            new = _beside(ways[at], basis)
            left = left - (left * new).sum(axis=-1, keepdims=True) * new
            return (left, free.at[token, at].set(False), basis.at[:, i].set(new)), at

        basis = jnp.zeros((len(x), self.k, self.d_in), x.dtype)
        begin = (x, jnp.ones((len(x), self.d_dict), bool), basis)
        (_, _, basis), chosen = lax.scan(take, begin, jnp.arange(self.k))
        return chosen.T, basis

    def _fit(self, x: Array, chosen: Array, basis: Array) -> Float[Array, "token k"]:
        """Least squares on the directions taken, from the last to the first: with their basis Q,
        rows = Q R and R c = Q' x. A direction in the span of those before gets nothing.

        No call of LAPACK, whose batches can wait for each other for ever inside a compiled loop.
        """
        upper = jnp.einsum("tid,tjd->tij", basis, self.rows[chosen])
        along = jnp.einsum("tkd,td->tk", basis, x)

        def take(sizes, i):
            own, rest = upper[:, i, i], along[:, i] - (upper[:, i] * sizes).sum(axis=1)
            new = jnp.where(own > 0, rest / jnp.where(own > 0, own, 1.0), 0.0)
            return sizes.at[:, i].set(new), None

        return lax.scan(take, jnp.zeros_like(along), jnp.arange(self.k), reverse=True)[0]


def _beside(
    way: Float[Array, "token d"], basis: Float[Array, "token k d"]
) -> Float[Array, "token d"]:
    """The part of each direction at right angles to a basis, at length 1; 0 where nothing is."""
    for _ in range(2):  # once more for what rounding left
        way = way - jnp.einsum("tk,tkd->td", jnp.einsum("tkd,td->tk", basis, way), basis)
    lengths = jnp.linalg.norm(way, axis=-1, keepdims=True)
    return jnp.where(lengths > 1e-4, way / jnp.maximum(lengths, 1e-4), 0.0)


def random_directions(
    key: PRNGKeyArray, d_in: int, d_dict: int, k: int, mean: Float[Array, "d_in"]
) -> Pursuit:
    """A frozen random dictionary judged at its best: unit directions, coded by pursuit.

    >>> random_directions(key, 576, 2048, 32, mean).encode(x)
    """
    return Pursuit(mean, init_coder(key, d_in, d_dict).w_dec, k)


def frozen_random(key: PRNGKeyArray, d_in: int, d_dict: int, k: int) -> TopK:
    """A TopK dictionary whose random directions stay as they are while its encoder trains.

    `fit` trains one by `Config("topk", frozen=True)`.

    >>> frozen_random(key, 576, 2048, 32).encode(x)
    """
    return TopK(init_coder(key, d_in, d_dict, norm="unit", frozen=True), k)
