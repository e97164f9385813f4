"""`Feature`: a direction of the stream that an observable reads through a path.

May import `taps`.
"""

import dataclasses
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..taps import Node
from ._observable import Observable

Norms = Literal["direction", "frozen", "gradient"]
"""How norms are passed: by their gain alone, with the scale held at a point, or by their whole
gradient at a point."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a feature comes from: the model and its file's sha256, the route, and the point."""

    model: str
    sha256: str
    route: str
    point: str = ""


class Feature(eqx.Module):
    """What a path's first node reads of the stream, and how much of the observable it writes.

    - `vector`: in the space of the stream before that node's norm. `offset`: what biases add.
    - `path`: from the stream to the logits; empty for the observable itself. `norms`: how the norms
      on the way were passed.

    >>> feature.vector @ x / scale_of_x + feature.offset                # norms="direction"
    """

    vector: Float[Array, "d_model"]
    offset: Float[Array, ""]
    path: tuple[Node, ...] = eqx.field(static=True)
    norms: Norms = eqx.field(static=True)
    observable: Observable = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)

    @property
    def site(self) -> str:
        """What the vector is read from: "attn_in", "mlp_in", or "final_resid"."""
        if not self.path:
            return "final_resid"
        return "attn_in" if self.path[0].site == "z" else "mlp_in"

    @property
    def layer(self) -> int | None:
        """The layer of that site."""
        return self.path[0].layer if self.path else None

    @property
    def unit(self) -> Float[Array, "d_model"]:
        """The vector at length 1."""
        return self.vector / jnp.linalg.norm(self.vector)

    def __str__(self) -> str:
        return " -> ".join([*map(str, self.path), self.observable.name])


def cosine(one: Feature | ArrayLike, other: Feature | ArrayLike) -> Float[Array, ""]:
    """The cosine of two features' vectors.

    >>> cosine(propagate(model, subject, "26.2"), propagate(model, object, "26.2"))
    """
    a, b = (x.vector if isinstance(x, Feature) else jnp.asarray(x) for x in (one, other))
    return a @ b / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
