r"""Exact effects: one node patched in each row of a compiled chunk, restarted at its place.

$$\mathrm{IE}(a) = m(\mathrm{do}(a = a')) - m(\mathrm{clean})$$

Marks et al. 2024 (arXiv 2403.19647), eq. 1. Rows are (prompt, node) pairs with a step that is not
0; each prompt's clean value comes from the same executable. May import `taps`, `_runs`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...taps import Code, Node
from ...tasks import Prompts
from ._objective import Objective
from ._runs import Spliced, flat, put, vector


def exact(
    model,
    objective: Objective,
    prompts: Prompts,
    place: Node,
    at: Spliced,
    resolved: bool,
    rows: int,
    chunk: int,
) -> Float[np.ndarray, "row at feature_and_error"]:
    """The exact effect of every node of a place on the first `rows` prompts.

    - `resolved`: each position by itself; otherwise all at once, in a position axis of 1. `chunk`:
      patched runs in one compiled call.
    """
    moved = np.asarray(moves(at.step, summed=not resolved))[:rows]
    found = np.zeros(moved.shape, np.promote_types(at.x.dtype, np.float32))
    row, pos, index = np.nonzero(moved)
    patched = _run(model, objective, prompts, place, at, (row, pos, index), resolved, chunk)
    nowhere = np.full(rows, at.x.shape[1]), np.zeros(rows, int)
    base = _run(model, objective, prompts, place, at, (np.arange(rows), *nowhere), True, chunk)
    found[row, pos, index] = patched - base[row]
    return found


@partial(jax.jit, static_argnames=("summed",))
def moves(step: Code, *, summed: bool) -> Array:
    """Which nodes have a step: Bool[batch pos feature_and_error]."""
    error = (flat(step.error, 2) != 0).any(axis=-1, keepdims=True)
    moved = jnp.concatenate([step.features != 0, error], axis=-1)
    return moved.any(axis=1, keepdims=True) if summed else moved


def _run(
    model, objective: Objective, prompts: Prompts, place: Node, at: Spliced, picks, resolved, chunk
) -> Float[np.ndarray, "pick"]:
    """The objective with each picked node patched."""
    rows, pos, index = picks
    pos = pos if resolved else np.full_like(pos, -1)
    values = []
    for begin in range(0, len(rows), chunk):
        some = np.resize(np.arange(begin, min(begin + chunk, len(rows))), chunk)
        cells = tuple(jnp.asarray(x[some]) for x in (rows, pos, index))
        found = _rows(model, objective, prompts, at, cells, site=place.site)
        values.append(np.asarray(found)[: len(rows) - begin])
    return np.concatenate(values) if values else np.zeros(0)


@partial(jax.jit, static_argnames=("site",))
def _rows(
    model,
    objective: Objective,
    prompts: Prompts,
    at: Spliced,
    cells: tuple[Int[Array, "row"], Int[Array, "row"], Int[Array, "row"]],
    *,
    site: str,
) -> Float[Array, "row"]:
    row, pos, index = cells
    step = jax.tree.map(lambda x: x[row], at.step)
    added = jax.vmap(vector, in_axes=(None, 0, 0, 0))(at.directions, step, pos, index)
    edits, start = put(site, at.layer, at.stream[row], at.x[row] + added)
    some: Prompts = jax.tree.map(lambda x: x[row], prompts)
    return objective(model, some.clean, some, edits, start)[0]
