r"""Exact edges: one node's step sent to one other by the paths that cross no third place.

$$m\left(\mathrm{do}(d = d(\mathrm{do}(u = u'),\ \text{others clean}))\right) - m(\mathrm{clean})$$

Path patching (Wang et al. 2022, arXiv 2211.00593, appendix B) in the coordinates of dictionaries;
what edge weights estimate. Rows are (prompt, edge) pairs whose source has a step. May import
`_reach`, `_runs`, `_edges`, `_exact`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Progress
from ...taps import Code, Node
from ...tasks import Prompts, logit_difference
from ._basis import Basis
from ._edges import FeatureEdges
from ._exact import moves
from ._layout import Layout
from ._objective import Objective, objective_of
from ._patches import encode, laid
from ._reach import Link, Way, links, reach, way
from ._runs import Runs, Spliced, held, parts, plan, put, vector

Rows = tuple[Int[Array, "row"], ...]
"""Of every row: prompt, source's position and index, reader's position and index."""


def patch_edges(
    model,
    prompts: Prompts,
    basis: Basis,
    edges: FeatureEdges,
    numbers: Sequence[int] | Int[np.ndarray, "chosen"],
    metric: Any = logit_difference,
    *,
    reference: Prompts | None = None,
    precision: str = "highest",
    batch: int = 16,
    chunk: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "example chosen"]:
    """The exact effect of some edges, per prompt: the truth that their weights estimate.

    - `edges`: what `edges` found for this basis, and `numbers` of some of them. `metric`, and
      `reference` for mean patches: as they were there. `chunk`: rows in one compiled call.

    Returns Float[example chosen], in the metric's units.

    >>> some = np.random.default_rng(0).choice(len(found), 300, replace=False)
    >>> exact = patch_edges(model, prompts, basis, found, some).mean(axis=0)
    >>> spearman(found.mean[some], exact)
    """
    objective = objective_of(metric)
    chosen = np.asarray(numbers, int)
    values = []
    with jax.default_matmul_precision(precision):
        by_position = edges.nodes[0].pos is not None
        at = plan(model, prompts, basis, edges.patch, reference, by_position, batch)
        jobs = _jobs(basis, at.layout, edges, chosen, model)
        for part in parts(model, objective, basis, at, edges.patch, batch):
            table = np.zeros((part.new, len(chosen)), part.runs.base.dtype)
            for job in jobs:
                found = _job(model, objective, basis, part.runs, job, part.new, chunk)
                table[:, job.columns] = found
            values.append(table)
            if progress is not None:
                progress(sum(map(len, values)), len(prompts))
    return np.concatenate(values)


class _Job(NamedTuple):
    """Chosen edges of one link: their columns in the table, and positions and indices of sources
    and readers."""

    link: Link
    columns: Int[np.ndarray, "edge"]
    cells: tuple[Int[np.ndarray, "edge"], ...]


def _jobs(basis: Basis, layout: Layout, edges: FeatureEdges, chosen, model) -> list[_Job]:
    columns = np.asarray([layout.column(node) for node in edges.nodes], int)
    place, pos, index = (np.append(x, -1) for x in layout.split(columns))
    source, reader = edges.source[chosen], edges.reader[chosen]
    jobs = []
    for link in links(basis.places, model.blocks.parallel):
        target = -1 if link.target is None else link.target
        some = np.flatnonzero((place[source] == link.source) & (place[reader] == target))
        if len(some):
            ends = source[some], reader[some]
            jobs.append(_Job(link, some, tuple(x[end] for end in ends for x in (pos, index))))
    return jobs


def _job(
    model, objective: Objective, basis: Basis, runs: Runs, job: _Job, rows: int, chunk: int
) -> Float[np.ndarray, "row edge"]:
    """The effects of a link's edges on the first `rows` prompts."""
    up, n_pos = runs.at[job.link.source], runs.prompts.clean.shape[1]
    pos, index = job.cells[:2]
    can = np.asarray(moves(up.step, summed=bool(pos[0] < 0)))[:rows]
    row, edge = np.nonzero(can[:, np.maximum(pos, 0), index])
    patched = (row, *(cell[edge] for cell in job.cells))
    nowhere = np.arange(rows), np.full(rows, n_pos), *[np.zeros(rows, int)] * 3
    both = [np.concatenate(pair) for pair in zip(nowhere, patched, strict=True)]
    values = []
    for begin in range(0, len(both[0]), chunk):
        some = np.resize(np.arange(begin, min(begin + chunk, len(both[0]))), chunk)
        cells = tuple(jnp.asarray(x[some]) for x in both)
        values.append(np.asarray(_patched(model, objective, basis, runs, job.link, cells)))
    found = np.concatenate(values)[: len(both[0])]
    table = np.zeros((rows, len(job.columns)), found.dtype)
    table[row, edge] = found[rows:] - found[:rows][row]
    return table


def _patched(
    model, objective: Objective, basis: Basis, runs: Runs, link: Link, cells: Rows
) -> Float[Array, "row"]:
    """The objective with each row's edge patched."""
    between = tuple(runs.at[k].x for k in link.between)
    up, places = runs.at[link.source], basis.places
    if link.target is None:
        names = (places[link.source], *(places[k] for k in link.between))
        return _to_metric(model, objective, runs.prompts, up, between, cells, places=names)
    ends, site = (up, runs.at[link.target]), places[link.target].site
    options = {"along": way(places, link), "site": site}
    return _to_place(model, objective, runs.prompts, *ends, between, cells, **options)


def _sent(up: Spliced, cells: Rows) -> Float[Array, "row pos ..."]:
    """What every row's source adds to its place's activation."""
    row, pos, index, _, _ = cells
    step = jax.tree.map(lambda x: x[row], up.step)
    return jax.vmap(vector, in_axes=(None, 0, 0, 0))(up.directions, step, pos, index)


@partial(jax.jit, static_argnames=("places",))
def _to_metric(
    model,
    objective: Objective,
    prompts: Prompts,
    up: Spliced,
    between: tuple[Array, ...],
    cells: Rows,
    *,
    places: tuple[Node, ...],
) -> Float[Array, "row"]:
    row = cells[0]
    edits, start = put(places[0].site, up.layer, up.stream[row], up.x[row] + _sent(up, cells))
    edits = edits | held(places[1:], [x[row] for x in between])
    some: Prompts = jax.tree.map(lambda x: x[row], prompts)
    return objective(model, some.clean, some, edits, start)[0]


@partial(jax.jit, static_argnames=("along", "site"))
def _to_place(
    model,
    objective: Objective,
    prompts: Prompts,
    up: Spliced,
    down: Spliced,
    between: tuple[Array, ...],
    cells: Rows,
    *,
    along: Way,
    site: str,
) -> Float[Array, "row"]:
    row, _, _, pos, index = cells
    some: Prompts = jax.tree.map(lambda x: x[row], prompts)
    others = tuple(x[row] for x in between)

    def onward(value: Array) -> Array:
        return reach(model, some.mask, along, up.layer, up.stream[row], value, others)

    heard = [encode(down.dictionary, onward(up.x[row] + x)) for x in (_sent(up, cells), 0.0)]
    live = down.live[row]

    def change(new: Array, old: Array) -> Array:
        return jnp.where(laid(live, new), new - old, 0)

    step: Code = jax.tree.map(change, *heard)
    moved = jax.vmap(vector, in_axes=(None, 0, 0, 0))(down.directions, step, pos, index)
    edits, start = put(site, down.layer, down.stream[row], down.x[row] + moved)
    return objective(model, some.clean, some, edits, start)[0]
