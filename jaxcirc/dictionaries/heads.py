"""`Heads`: a dictionary over all heads of a token side by side, at a site that keeps them apart.

Attention dictionaries of SAELens and Gemma Scope read `hook_z` flattened to n_heads * d_head
(Kissane et al. 2024, arXiv 2406.17759); the site `z` is [batch pos head d_head]. May import `taps`,
`_wrapped`.
"""

import equinox as eqx
from jaxtyping import Array, Float

from ..taps import AbstractDictionary
from ._wrapped import Wrapped


class Heads(Wrapped):
    """`inner`, whose width is that of `n_heads` heads one after another.

    >>> Splice(Heads(dictionary, n_heads=9), Read())          # at z: [.. head d_head]
    """

    inner: AbstractDictionary
    n_heads: int = eqx.field(static=True)

    def __check_init__(self):
        if self.n_heads < 1 or self.inner.d_in % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} does not divide the dictionary's width {self.inner.d_in}:"
                " give the model's, Heads(dictionary, model.config.n_heads)"
            )

    @property
    def directions(self) -> Float[Array, "feature head d_head"]:
        rows = self.inner.directions
        return rows.reshape(len(rows), self.n_heads, -1)

    def encode(self, x: Float[Array, "*batch head d_head"]) -> Float[Array, "*batch feature"]:
        return self.inner.encode(x.reshape(*x.shape[:-2], -1))

    def decode(
        self, features: Float[Array, "*batch feature"]
    ) -> Float[Array, "*batch head d_head"]:
        flat = self.inner.decode(features)
        return flat.reshape(*flat.shape[:-1], self.n_heads, -1)
