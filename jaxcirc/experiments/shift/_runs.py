r"""Mean residuals of many texts, with features ablated or without: from one stored stream.

$$x' = x - \sum_{i \in A} f_i\, v_i$$

at every token of every spliced place: $f_i := 0$, the error kept (Marks et al. 2024, arXiv
2403.19647, section 4). Runs resume at the lowest place. May import `taps`, `circuits`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._types import Mask, Resid, Tokens
from ...circuits.features import Basis, FeatureNode
from ...circuits.features._patches import laid, read, reads
from ...taps import AbstractDictionary, AbstractEdit, At, ByLayer, Node, Read, Sites, Start, run
from ._head import Pool, usual
from ._rows import Rows

BATCH = 64


class Without(AbstractEdit):
    """Some features set to 0, the error kept: x less what they add, at tokens that have nodes.

    - `index`: which features, padded; `weight`: 1, and 0 at padding. `live`: tokens that count;
      those of a norm above `sink_norm` do not.
    """

    dictionary: AbstractDictionary
    index: Int[Array, "dropped"]
    weight: Float[Array, "dropped"]
    live: Bool[Array, "batch pos"]
    sink_norm: Float[Array, ""]

    def __call__(self, x: Float[Array, "batch pos ..."]) -> tuple[Array, None]:
        features = self.dictionary.encode(x)[..., self.index] * self.weight.astype(x.dtype)
        directions = self.dictionary.directions[self.index].astype(x.dtype)
        norm = jnp.linalg.norm(x.reshape(*x.shape[:2], -1), axis=-1)
        seen = self.live & (norm <= self.sink_norm)
        return x - jnp.where(laid(seen, x), jnp.tensordot(features, directions, 1), 0), None


class Drops(NamedTuple):
    """The features that are ablated: by place their numbers, padded, and 1 where they are meant."""

    number: tuple[Int[np.ndarray, "dropped"], ...]
    weight: tuple[Float[np.ndarray, "dropped"], ...]


def drops_of(basis: Basis, nodes: Sequence[FeatureNode], size: int = 64) -> Drops:
    """Features by place, padded alike, so that one compiled program serves many sets.

    - `size`: room for so many at a place, doubled until they fit.

    Raises `ValueError` for an error node, or a feature that the basis lacks.
    """
    layout, known = basis.layout(None), {place: i for i, place in enumerate(basis.places)}
    found: list[list[int]] = [[] for _ in basis.places]
    for node in nodes:
        if node.is_error:
            raise ValueError(f"{node} is no feature: errors are kept, leave it out")
        layout.column(node)
        found[known[node.place]].append(int(node.index))
    while size < max(map(len, found)):
        size *= 2
    fill = [[*some, *[0] * (size - len(some))] for some in found]
    weight = [np.arange(size) < len(some) for some in found]
    return Drops(tuple(map(np.asarray, fill)), tuple(w.astype(np.float32) for w in weight))


def start_layer(basis: Basis) -> int:
    """The block at which runs with the basis resume."""
    return basis.places[0].layer


def below(
    model, rows: Rows, layer: int, batch: int = BATCH
) -> Float[np.ndarray, "row pos d_model"]:
    """The stream before a block, of every row: Float[row pos d_model], in main memory."""
    parts = []
    for some, new in rows.batches(batch):
        own = rows.take(some)
        found = _stream(model, jnp.asarray(own.tokens), jnp.asarray(own.mask), layer=layer)
        parts.append(np.asarray(found)[:new])
    return np.concatenate(parts)


@partial(jax.jit, static_argnames=("layer",))
def _stream(model, tokens: Tokens, mask: Mask, *, layer: int) -> Resid:
    site, at = ("resid_post", layer - 1) if layer else ("resid_pre", 0)
    edits = Sites(**{site: At(jnp.asarray([at]), Read())})
    _, records = run(model, tokens, edits, mask=mask, layers=max(layer, 1))
    return getattr(records, site)[0]


def pooled(
    model,
    rows: Rows,
    stream: Float[np.ndarray, "row pos d_model"],
    basis: Basis,
    pool: Pool,
    drops: Drops | None = None,
    batch: int = BATCH,
) -> Float[np.ndarray, "row d"]:
    """The mean residual of every row, its features ablated if `drops` says so.

    - `stream`: what `below` gave at `start_layer(basis)`.

    >>> pooled(model, rows, stream, basis, pool, drops_of(basis, nodes))
    """
    parts = []
    for some, new in rows.batches(batch):
        own = rows.take(some)
        arrays = jnp.asarray(own.tokens), jnp.asarray(own.mask), jnp.asarray(stream[some])
        parts.append(np.asarray(_pooled(model, *arrays, basis, pool, drops))[:new])
    return np.concatenate(parts)


@jax.jit
def _pooled(model, tokens, mask, stream, basis: Basis, pool: Pool, drops: Drops | None):
    edits = Sites() if drops is None else _ablated(basis, drops, usual(model, mask))
    start = Start(stream, jnp.asarray(start_layer(basis)))
    return pool(model, tokens, mask, edits, start)[0]


def _ablated(basis: Basis, drops: Drops, live: Bool[Array, "batch pos"]) -> Sites:
    """The table of edits that ablates features at every place."""

    def of(site: str) -> ByLayer:
        members = [i for i, place in enumerate(basis.places) if place.site == site]
        each = tuple(
            Without(
                basis.dictionaries[i],
                jnp.asarray(drops.number[i]),
                jnp.asarray(drops.weight[i]),
                live,
                basis.sink_norms[i],
            )
            for i in members
        )
        return ByLayer(each, tuple(basis.places[i].layer for i in members))

    return Sites(**{site: of(site) for site in dict.fromkeys(p.site for p in basis.places)})


@partial(jax.jit, static_argnames=("places",))
def held(
    model,
    tokens: Tokens,
    mask: Mask,
    stream: Resid,
    layer: Int[Array, ""],
    places: tuple[Node, ...],
) -> tuple[Float[Array, "batch pos ..."], ...]:
    """What some places hold, from a stored stream."""
    layers = 1 + max(place.layer for place in places)
    start = Start(stream, layer)
    _, records = run(model, tokens, reads(places), mask=mask, layers=layers, start=start)
    return read(records, places)
