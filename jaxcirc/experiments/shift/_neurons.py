"""The neuron skyline: coordinates about their mean, so that setting one to 0 is ablating by mean.

Marks et al. 2024 (arXiv 2403.19647), section 4. May import `taps`, `circuits`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...circuits.features import Basis
from ...taps import AbstractDictionary
from ._head import usual
from ._rows import Rows
from ._runs import BATCH, held, start_layer


class Centred(AbstractDictionary):
    """Every coordinate less its mean is a feature, and the error is zero.

    >>> Centred(mean).encode(x)
    """

    centre: Float[Array, "d_in"]

    @property
    def d_in(self) -> int:
        return self.centre.shape[0]

    @property
    def d_dict(self) -> int:
        return self.centre.shape[0]

    @property
    def directions(self) -> Float[Array, "feature d_in"]:
        return jnp.eye(self.d_in, dtype=self.centre.dtype)

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch d_in"]:
        return x - self.centre.astype(x.dtype)

    def decode(self, features: Float[Array, "*batch d_in"]) -> Float[Array, "*batch d_in"]:
        return features + self.centre.astype(features.dtype)


def neurons_of(
    model,
    rows: Rows,
    stream: Float[np.ndarray, "row pos d_model"],
    basis: Basis,
    batch: int = BATCH,
) -> Basis:
    """The coordinates of a basis's places, about their means over some texts.

    - `stream`: what `below` gave at `start_layer(basis)`.

    >>> neurons_of(model, rows, stream, basis).layout(None).widths
    """
    total = None
    start = jnp.asarray(start_layer(basis))
    for some, new in rows.batches(batch):
        own = rows.take(some)
        tokens, mask = jnp.asarray(own.tokens), jnp.asarray(own.mask)
        xs = held(model, tokens, mask, jnp.asarray(stream[some]), start, basis.places)
        seen = usual(model, mask) & (jnp.arange(len(some)) < new)[:, None]
        found = _sums(xs, seen, basis.sink_norms)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None
    centres = [x / jnp.maximum(count, 1) for x, count in total]
    each = tuple(Centred(centre) for centre in centres)
    return Basis(each, basis.sink_norms, basis.places)


@jax.jit
def _sums(xs, seen, norms):
    """The sum of every place over the tokens that have nodes there, and how many these are."""
    found = []
    for x, bound in zip(xs, norms, strict=True):
        x = x.reshape(*x.shape[:2], -1)
        kept = seen & (jnp.linalg.norm(x, axis=-1) <= bound)
        found.append((jnp.where(kept[..., None], x, 0).sum(axis=(0, 1)), kept.sum()))
    return tuple(found)
