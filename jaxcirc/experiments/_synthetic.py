"""Worlds whose dictionary is known: atoms, how often they occur, and which need which.

Sharkey, Braun & Millidge 2022 ("Taking features out of superposition with sparse autoencoders"):
activations are sums of few of many directions, with sizes drawn at random. In `tree_world` an atom
may need another one, and frequencies fall as 1 / rank, as those of words do. May import
`dictionaries`.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy import optimize

from ..dictionaries.train import Batch

SIZES = (0.5, 1.5)
"""Between which an active atom's size is drawn."""


class World(eqx.Module):
    """Atoms of length 1, how often each occurs given its parent, and that parent.

    - `parents`: the first n atoms have none; the parents of the others, among those n.
    """

    atoms: Float[Array, "atom d"]
    rates: Float[Array, "atom"]
    parents: Int[Array, "child"]

    @eqx.filter_jit
    def draw(
        self, key: PRNGKeyArray, n: int
    ) -> tuple[Float[Array, "token d"], Float[Array, "token atom"]]:
        """n tokens, and the true codes that made them."""
        occurs, size = jax.random.split(key)
        active = jax.random.uniform(occurs, (n, len(self.atoms))) < self.rates
        first = len(self.atoms) - len(self.parents)
        needed = active[:, self.parents]
        active = jnp.concatenate([active[:, :first], active[:, first:] & needed], axis=1)
        sizes = jax.random.uniform(size, active.shape, minval=SIZES[0], maxval=SIZES[1])
        codes = jnp.where(active, sizes, 0.0)
        return codes @ self.atoms, codes

    @property
    def frequencies(self) -> Float[Array, "atom"]:
        """The share of tokens on which each atom occurs."""
        first = len(self.atoms) - len(self.parents)
        return self.rates.at[first:].multiply(self.rates[self.parents])


def flat_world(key: PRNGKeyArray, d: int, n: int, active: float) -> World:
    """n random directions, each as likely as the others, `active` a token on average.

    >>> flat_world(key, d=64, n=256, active=5).draw(key, 1000)[0].shape
    (1000, 64)
    """
    return World(_directions(key, d, n), jnp.full(n, active / n), jnp.zeros(0, jnp.int32))


def tree_world(key: PRNGKeyArray, d: int, n: int, active: float, children: int = 7) -> World:
    """The same with `children` of every parent, which occur only with it. Parents occur in
    proportion to 1 / rank, and so do the children of one.

    >>> tree_world(key, d=64, n=256, active=5).frequencies.sum()
    """
    n_parents = n // (children + 1)
    parents = jnp.arange(n - n_parents) % n_parents
    ranks = 1 + np.arange(n - n_parents) // n_parents
    given = np.minimum(0.9, 1.0 / ranks)

    def rates(scale: float) -> np.ndarray:
        first = np.minimum(0.9, scale / (1 + np.arange(n_parents)))
        return np.concatenate([first, given])

    def excess(scale: float) -> float:
        own = rates(scale)
        return float(own[:n_parents].sum() + (given * own[np.asarray(parents)]).sum()) - active

    if excess(1e6) < 0:
        raise ValueError(f"{n} atoms in families of {children + 1} give fewer than {active} active")
    scale = float(optimize.root_scalar(excess, bracket=(0.0, 1e6)).root)
    return World(_directions(key, d, n), jnp.asarray(rates(scale), jnp.float32), parents)


def _directions(key: PRNGKeyArray, d: int, n: int) -> Float[Array, "atom d"]:
    rows = jax.random.normal(key, (n, d))
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


class Made:
    """Worlds as a source of activations without an end: one place each, never the same token twice.

    - `sites`: every activation is cut into so many parts, [token site d], for crosscoders.

    >>> fit(Config("topk"), Made({"flat": world}, batch=2048, key=key))
    """

    def __init__(self, worlds: Mapping[str, World], batch: int, key: PRNGKeyArray, sites: int = 1):
        self._worlds, self._batch, self._key, self._used = dict(worlds), batch, key, 0
        self._shape = (batch, -1) if sites == 1 else (batch, sites, -1)
        self.places = tuple(self._worlds)
        self.facts = {"source": "synthetic"}

    def batch(self) -> Mapping[str, Batch]:
        key = jax.random.fold_in(self._key, self._used)
        drawn = {
            name: world.draw(key, self._batch)[0].reshape(self._shape)
            for name, world in self._worlds.items()
        }
        self._used += 1
        return {name: (x, x) for name, x in drawn.items()}

    def state(self) -> dict[str, np.ndarray]:
        return {"used": np.asarray(self._used)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._used = int(state["used"])
