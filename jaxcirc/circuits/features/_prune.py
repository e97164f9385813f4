r"""Is a set of feature edges the circuit? Every node hears the kept edges alone.

A kept node d takes the value it has when each earlier node with a kept edge to d has its own value
in the circuit, and every other node, kept or not, its ablated one; the metric likewise. Keeping all
edges among some nodes gives the faithfulness of the nodes. The paper never judged its edges
(Marks et al. 2024, arXiv 2403.19647). May import `_reach`, `_runs`, `_edges`, `_evaluate`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._types import Mask, Progress
from ...taps import Code
from ...tasks import Prompts, logit_difference
from ._basis import Basis
from ._edges import FeatureEdges
from ._objective import Objective, objective_of
from ._pairs import Group, groups_of
from ._patches import Patch, encode, laid
from ._reach import Link, Way, links, reach, way
from ._runs import Runs, Spliced, held, parts, plan, put, vectors

Moves = dict[int, Float[Array, "node batch pos ..."]]
"""By place, what each of its nodes adds to the ablated activation."""


def edge_values(
    model,
    prompts: Prompts,
    basis: Basis,
    edges: FeatureEdges,
    kept: Bool[np.ndarray, "circuit edge"],
    metric: Any = logit_difference,
    *,
    value: Patch = "mean",
    start: int = 0,
    reference: Prompts | None = None,
    precision: str = "highest",
    batch: int = 16,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Float[np.ndarray, "circuit example"]:
    """The metric of sets of edges with all others ablated, on the clean prompts.

    - `edges`: what `edges` found; `kept`: which of them each circuit keeps, as `select_edges` says.
    - `start`: places below this layer are free, and their edges do not matter.
    - `value`, `reference`: what nodes are ablated to, as in `circuit_values`. `chunk`: nodes in one
      compiled call, each of which runs the blocks between its place and the last.

    Returns Float[circuit example]. Raises `ValueError` if no node lies at `start` or above.

    >>> kept = np.stack([select_edges(found, n) for n in (100, 1000)])
    >>> edge_values(model, test, basis, found, kept).mean(axis=1)
    """
    objective, basis = objective_of(metric), basis.since(start)
    edges, kept = _since(edges, np.asarray(kept, bool), start)
    by_position = edges.nodes[0].pos is not None
    columns = []
    with jax.default_matmul_precision(precision):
        at = plan(model, prompts, basis, value, reference, by_position, batch)
        groups = groups_of(at.layout, edges.nodes)
        first = _firsts(links(basis.places, model.blocks.parallel))
        for part in parts(model, objective, basis, at, value, batch):
            found = []
            for row in kept:
                heard = _heard(edges, row)
                moves = _moves(model, basis, part.runs, groups, first, heard, chunk)
                into = first[None]
                masks = _masks(heard, np.asarray([len(edges.nodes)]), groups, _before(into))
                values = _metric(model, objective, basis, part.runs, into, moves, masks)
                found.append(np.asarray(values)[: part.new])
                if progress is not None:
                    progress(sum(x.shape[1] for x in columns) + part.new, len(prompts))
            columns.append(np.stack(found))
    return np.concatenate(columns, axis=1)


def _since(
    edges: FeatureEdges, kept: Bool[np.ndarray, "circuit edge"], start: int
) -> tuple[FeatureEdges, Bool[np.ndarray, "circuit some"]]:
    """The edges between nodes from a layer on, and to the metric."""
    judged = np.asarray([node.layer >= start for node in edges.nodes])
    if judged.all():
        return edges, kept
    if not judged.any():
        highest = max(node.layer for node in edges.nodes)
        raise ValueError(f"start={start}: no node lies so high, use start={highest} or less")
    number = np.append(np.cumsum(judged) - 1, judged.sum())
    some = judged[edges.source]
    ends = {"source": number[edges.source[some]], "reader": number[edges.reader[some]]}
    nodes = tuple(node for node, own in zip(edges.nodes, judged, strict=True) if own)
    few = dataclasses.replace(edges, nodes=nodes, raw=edges.raw[:, some], **ends)
    return few, kept[:, some]


def _firsts(every: Sequence[Link]) -> dict[int | None, Link]:
    """The longest link into every place, and into the metric: it names all that come between."""
    found: dict[int | None, Link] = {}
    for link in every:
        found.setdefault(link.target, link)
    return found


def _before(link: Link) -> tuple[int, ...]:
    """The places whose nodes a link's target hears."""
    return (link.source, *link.between)


def _heard(edges: FeatureEdges, kept: Bool[np.ndarray, "edge"]) -> Bool[np.ndarray, "reader node"]:
    """Which nodes every node, and last the metric, hears."""
    n = len(edges.nodes)
    heard = np.zeros((n + 1, n), bool)
    heard[edges.reader[kept], edges.source[kept]] = True
    return heard


def _masks(
    heard: Bool[np.ndarray, "reader node"],
    readers: Int[np.ndarray, "some"],
    groups: Sequence[Group],
    places: Sequence[int],
) -> tuple[Float[Array, "some _"], ...]:
    """The same as numbers, for some readers and the nodes of some places, filled up with zeros."""
    tables = []
    for place in places:
        table = np.zeros((len(readers), _padded(groups[place])))
        table[:, : len(groups[place])] = heard[np.ix_(readers, groups[place].numbers)]
        tables.append(jnp.asarray(table))
    return tuple(tables)


def _padded(group: Group) -> int:
    return max(8, 1 << (len(group) - 1).bit_length()) if len(group) else 8


def _moves(
    model,
    basis: Basis,
    runs: Runs,
    groups: Sequence[Group],
    first: dict[int | None, Link],
    heard: Bool[np.ndarray, "reader node"],
    chunk: int,
) -> Moves:
    """What every node adds in the circuit, place after place."""
    moves: Moves = {}
    for i, group in enumerate(groups):
        one = runs.at[i]
        if not len(group):
            moves[i] = jnp.zeros((_padded(group), *one.x.shape), one.x.dtype)
            continue
        if i not in first:
            some = np.resize(np.arange(len(group)), _padded(group))
            moves[i] = _clean(one, *group.cells(some))
            continue
        link = first[i]
        ends = runs.at[link.source], tuple(runs.at[k] for k in link.between)
        parts = []
        for begin in range(0, _padded(group), chunk):
            some = np.resize(np.arange(begin, min(begin + chunk, _padded(group))), chunk)
            some = np.minimum(some, len(group) - 1)
            told = tuple(moves[k] for k in _before(link))
            masks = _masks(heard, group.numbers[some], groups, _before(link))
            cells = group.cells(some)
            along = way(basis.places, link)
            found = _hear(model, runs.prompts.mask, *ends, one, told, masks, cells, along=along)
            parts.append(found)
        moves[i] = jnp.concatenate(parts)[: _padded(group)]
    return moves


@jax.jit
def _clean(
    at: Spliced, pos: Int[Array, "node"], index: Int[Array, "node"]
) -> Float[Array, "node batch pos ..."]:
    """Of a place that hears nothing: from the ablated to the clean value."""
    return vectors(at.directions, _from_patch(at, at.clean), pos, index)


def _from_patch(at: Spliced, code: Code) -> Code:
    """By how much features and error differ from their ablated values, where there are nodes."""

    def change(new: Array, ablated: Array) -> Array:
        return jnp.where(laid(at.live, new), new - ablated, 0)

    return jax.tree.map(change, code, at.patch)


@partial(jax.jit, static_argnames=("along",))
def _hear(
    model,
    mask: Mask,
    source: Spliced,
    between: tuple[Spliced, ...],
    own: Spliced,
    moves: tuple[Array, ...],
    masks: tuple[Array, ...],
    cells: tuple[Int[Array, "node"], Int[Array, "node"]],
    *,
    along: Way,
) -> Float[Array, "node batch pos ..."]:
    """What some nodes of a place add, each from the nodes that it hears."""

    def one(masks: tuple[Array, ...], pos: Array, index: Array) -> Array:
        value, *others = _values((source, *between), moves, masks)
        x = reach(model, mask, along, source.layer, source.stream, value, tuple(others))
        step = _from_patch(own, encode(own.dictionary, x))
        return vectors(own.directions, step, pos[None], index[None])[0]

    return jax.vmap(one)(masks, *cells)


def _values(
    at: Sequence[Spliced], moves: Sequence[Array], masks: Sequence[Float[Array, "_"]]
) -> list[Float[Array, "batch pos ..."]]:
    """The activation of every place with the nodes of a mask as they are, the others ablated."""
    return [
        one.target + jnp.tensordot(mask.astype(one.x.dtype), moved, 1)
        for one, moved, mask in zip(at, moves, masks, strict=True)
    ]


def _metric(
    model, objective: Objective, basis: Basis, runs: Runs, link: Link, moves: Moves, masks
) -> Float[Array, "batch"]:
    """The objective of what reaches it."""
    before = _before(link)
    at, told = tuple(runs.at[k] for k in before), tuple(moves[k] for k in before)
    places = tuple(basis.places[k] for k in before)
    rows = tuple(mask[0] for mask in masks)
    return _objective(model, objective, runs.prompts, at, told, rows, places=places)


@partial(jax.jit, static_argnames=("places",))
def _objective(
    model, objective: Objective, prompts: Prompts, at, moves, masks, *, places
) -> Float[Array, "batch"]:
    value, *others = _values(at, moves, masks)
    edits, start = put(places[0].site, at[0].layer, at[0].stream, value)
    return objective(model, prompts.clean, prompts, edits | held(places[1:], others), start)[0]
