r"""Paths from one spliced place to the next that avoid every other: the ways that edges take.

An edge's derivative runs along all paths that cross no other spliced place, each of which is held
at its clean value; with attention, MLP and stream of every block spliced these are the stop-
gradients of Marks et al. 2024 (arXiv 2403.19647), appendix. May import `taps`, `_basis`, `_runs`.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..._types import Mask, Resid
from ...taps import Node, Read, Set, Sites, Taps, Timeline
from ._basis import CUTS, STREAM
from ._runs import entry


@dataclasses.dataclass(frozen=True)
class Way:
    """How far it is from a place to another, with layers counted from where a run resumes, so that
    equal blocks share a compiled program.

    - `source`, `target`: sites. `span`: blocks to run. `held`: (site, block) of the places between.
    """

    source: str
    target: str
    span: int
    held: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Link:
    """A pair of places with a path between them: numbers in the basis, `target` None for the
    objective; and those of the places between, which are held."""

    source: int
    target: int | None
    between: tuple[int, ...]


def links(places: Sequence[Node], parallel: bool) -> list[Link]:
    """Every pair of places with a path that avoids all others.

    A residual place between them cuts every path; in a parallel block the MLP does not see the
    attention of its own layer.
    """
    found = []
    for i, source in enumerate(places):
        between: list[int] = []
        for j in range(i + 1, len(places)):
            if not (parallel and _beside(source, places[j])):
                found.append(Link(i, j, tuple(between)))
            between.append(j)
            if places[j].site in CUTS:
                break
        else:
            found.append(Link(i, None, tuple(between)))
    return found


def _beside(source: Node, target: Node) -> bool:
    same = source.layer == target.layer and source.site not in CUTS
    return same and target.site.startswith("mlp") and not source.site.startswith("mlp")


def way(places: Sequence[Node], link: Link) -> Way:
    """The way of a link that leads to a place."""
    assert link.target is not None
    source, target = places[link.source], places[link.target]
    begin = entry(source)
    held = tuple((places[k].site, places[k].layer - begin) for k in link.between)
    return Way(source.site, target.site, target.layer - begin + 1, held)


def reach(
    model,
    mask: Mask,
    along: Way,
    layer: Int[Array, ""],
    stream: Resid,
    value: Float[Array, "batch pos ..."],
    held: tuple[Float[Array, "batch pos ..."], ...],
) -> Float[Array, "batch pos ..."]:
    """The target's activation if the source's is `value` and those between are `held`.

    - `stream`, `layer`: the clean stream and block where the run resumes.
    """
    time = Timeline(jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), mask, None)
    tables = [_table(along, block, value, held) for block in range(along.span)]
    x = value if along.source in STREAM else stream
    seen = Sites()
    for empty, blocks in itertools.groupby(
        range(along.span), key=lambda block: not tables[block].items()
    ):
        some = list(blocks)
        if empty:
            x = _through(model, x, time, layer + some[0], len(some))
            continue
        for block in some:
            tap = Taps(tables[block])
            x, seen = model.block(layer + block, x, time, tap), tap.records
    return getattr(seen, along.target)


def _table(along: Way, block: int, value: Array, held: Sequence[Array]) -> Sites:
    """The edits of one block."""
    pairs = zip(along.held, held, strict=True)
    edits: dict[str, Set | Read] = {site: Set(x) for (site, at), x in pairs if at == block}
    if block == 0 and along.source not in STREAM:
        edits[along.source] = Set(value)
    if block == along.span - 1:
        edits[along.target] = Read()
    return Sites(**edits)


def _through(model, x: Resid, time: Timeline, layer: Int[Array, ""], n: int) -> Resid:
    """The stream behind some blocks with nothing spliced."""

    def block(x, i):
        return jax.checkpoint(lambda x: model.block(layer + i, x, time, Taps(Sites())))(x), None

    return lax.scan(block, x, jnp.arange(n))[0]
