r"""Edges between feature nodes: what one node tells another by the paths that cross no third place.

$$w_{u \to d} = \nabla_u \left[\overline{g_d} \cdot d(u)\right] \cdot (u' - u)$$

Marks et al. 2024 (arXiv 2403.19647), eq. 4: the slope g of the node step held constant, d linear at
the clean run. One vjp a pair of places, mapped over the chosen nodes of the later one and
contracted with the steps of the chosen nodes of the earlier one, errors on both ends included. May
import `taps`, `tasks`, `_reach`, `_runs`, `_slopes`, `_scores`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..._types import Mask, Progress
from ...attribution.integrated import Rule
from ...tasks import Interval, Prompts, interval, logit_difference
from ._basis import CUTS, Basis
from ._layout import FeatureNode
from ._objective import Objective, objective_of
from ._pairs import Cells, Pairs, groups_of, pairs_of
from ._patches import Patch, encode, laid
from ._reach import Way, reach, way
from ._runs import Runs, Spliced, flat, held, parts, plan, vectors
from ._scores import sparse_rows, stacked
from ._slopes import Along, Slopes, check_method, joint_effects, path_slope, slopes


@dataclasses.dataclass(frozen=True)
class FeatureEdges:
    """Weights of edges between some nodes, and from them to the metric, per prompt.

    - `source`, `reader`: numbers of `nodes`; the reader `len(nodes)` is the metric. `raw`: sparse,
      [example edge], in the metric's units, of the sign of node effects.
    - `effect`: the total effect that shares are of. `templates`: the clusters of intervals.
    """

    nodes: tuple[FeatureNode, ...]
    source: Int[np.ndarray, "edge"]
    reader: Int[np.ndarray, "edge"]
    raw: Any
    effect: float
    templates: Int[np.ndarray, "example"]
    method: str
    patch: Patch
    metric: str
    sign: float

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def mean(self) -> Float[np.ndarray, "edge"]:
        """The mean weight over prompts."""
        return np.asarray(self.raw.sum(axis=0)).ravel() / self.raw.shape[0]

    def interval(self, number: int) -> Interval:
        """The mean weight of an edge with its interval, clustered by template."""
        return interval(self.raw[:, [number]].toarray().ravel(), self.templates)

    def edge(self, number: int) -> tuple[FeatureNode, FeatureNode | Literal["metric"]]:
        """An edge as (source, reader)."""
        reader = int(self.reader[number])
        last = "metric" if reader == len(self.nodes) else self.nodes[reader]
        return self.nodes[int(self.source[number])], last


def edges(
    model,
    prompts: Prompts,
    basis: Basis,
    nodes: Sequence[FeatureNode],
    metric: Any = logit_difference,
    *,
    method: Literal["atp", "ig"] = "atp",
    steps: int | None = None,
    rule: Rule = "gauss",
    tolerance: float = 0.01,
    patch: Patch = "counterfactual",
    reference: Prompts | None = None,
    precision: str = "highest",
    batch: int = 16,
    chunk: int = 16,
    progress: Progress | None = None,
) -> FeatureEdges:
    """The weight of every edge between chosen nodes, and from them to the metric.

    - `nodes`: chosen after the mean over prompts, as `scores.nodes(select(scores, 100))`; at
      positions, or all without.
    - `method`: the slope of the later node: "atp" at the clean run, "ig" averaged as in `nodes`,
      in as many points.
    - `chunk`: later nodes in one compiled call. The rest as for `nodes`.

    Returns `FeatureEdges`. Raises `ValueError` for unknown words and for nodes that the basis
    lacks.

    >>> found = edges(model, prompts, basis, scores.nodes(select(scores, 100)))
    >>> found.edge(int(np.abs(found.mean).argmax()))
    """
    objective = objective_of(metric)
    check_method(method, objective, ("atp", "ig"))
    along = Along(method, steps, rule, tolerance)
    if not nodes:
        raise ValueError("no nodes: edges(model, prompts, basis, scores.nodes(select(scores, 9)))")
    found, effects, used, last = [], [], (), _last_cut(basis)
    first = 0 if along.adapts else last
    with jax.default_matmul_precision(precision):
        at = plan(model, prompts, basis, patch, reference, nodes[0].pos is not None, batch)
        groups = groups_of(at.layout, nodes)
        pairs = pairs_of(basis.places, groups, len(nodes), model)
        if not pairs:
            raise ValueError(
                "no path joins these nodes: choose some at neighbouring places as well"
            )
        for part in parts(model, objective, basis, at, patch, batch):
            whole = joint_effects(model, objective, part.runs, basis.places, first)
            known = whole if along.adapts else None
            slope = slopes(model, objective, part.runs, basis.places, along, known, used)
            used = slope.steps
            tables = _tables(model, objective, basis, part.runs, pairs, along, slope, chunk)
            found.append(sparse_rows([table[: part.new] for table in tables]))
            effects.append(whole[: part.new, last - first :])
            if progress is not None:
                progress(sum(map(len, effects)), len(prompts))
    return FeatureEdges(
        tuple(nodes),
        np.concatenate([p.up.numbers[np.nonzero(p.edge)[1]] for p in pairs]),
        np.concatenate([p.down.numbers[np.nonzero(p.edge)[0]] for p in pairs]),
        stacked(found),
        _total(basis, np.concatenate(effects).mean(axis=0)),
        np.asarray(prompts.templates),
        method,
        patch,
        objective.name,
        objective.sign,
    )


def _last_cut(basis: Basis) -> int:
    return max((i for i, place in enumerate(basis.places) if place.site in CUTS), default=0)


def _total(basis: Basis, near: Float[np.ndarray, "near"]) -> float:
    """The total effect, as `FeatureScores.effect` has it."""
    cut = basis.places[_last_cut(basis)].site in CUTS
    return float(near[0 if cut else np.abs(near).argmax()])


def _tables(
    model,
    objective: Objective,
    basis: Basis,
    runs: Runs,
    pairs: Sequence[Pairs],
    along: Along,
    slope: Slopes,
    chunk: int,
) -> Iterator[Float[np.ndarray, "row edge"]]:
    """The weights of all edges of a batch, link by link."""
    for link, up, down, edge in pairs:
        padded = np.resize(np.arange(len(up)), max(8, 1 << (len(up) - 1).bit_length()))
        one, sent = runs.at[link.source], up.cells(padded)
        between = tuple(runs.at[k].x for k in link.between)
        if link.target is None:
            places = [basis.places[k] for k in link.between]
            place, edits = basis.places[link.source], held(places, between)
            path = along.path(slope.steps[link.source])
            told = path_slope(model, objective, runs.prompts, place, one, path, edits)
            found = [np.asarray(_direct(one, told, sent))]
        else:
            ends = one, runs.at[link.target]
            options = {"along": way(basis.places, link), "resolved": bool(down.pos[0] >= 0)}
            found = [
                np.asarray(
                    _weights(
                        model,
                        runs.prompts.mask,
                        *ends,
                        slope.each[link.target],
                        between,
                        sent,
                        down.cells(np.resize(np.arange(i, min(i + chunk, len(down))), chunk)),
                        **options,
                    )
                )
                for i in range(0, len(down), chunk)
            ]
        table = np.concatenate(found, axis=1)[:, : len(down), : len(up)]
        yield table[:, edge]


@jax.jit
def _direct(
    up: Spliced, slope: Float[Array, "batch pos ..."], sent: Cells
) -> Float[Array, "batch one source"]:
    """Edges into the metric: each node's step times the slope along the paths that are left."""
    moved = vectors(up.directions, up.step, *sent)
    return jnp.einsum("bx,ubx->bu", flat(slope, 1), flat(moved, 2))[:, None]


@partial(jax.jit, static_argnames=("along", "resolved"))
def _weights(
    model,
    mask: Mask,
    up: Spliced,
    down: Spliced,
    slope: Float[Array, "batch pos ..."],
    between: tuple[Array, ...],
    sent: Cells,
    heard: Cells,
    *,
    along: Way,
    resolved: bool,
) -> Float[Array, "batch reader source"]:
    """The weights of all edges from some nodes of a place to some of another."""

    def onward(value: Array) -> Array:
        return reach(model, mask, along, up.layer, up.stream, value, between)

    _, pull = jax.vjp(onward, up.x)

    def back(pos: Int[Array, ""], index: Int[Array, ""]) -> Array:
        return pull(_told(down, slope, pos, index, resolved))[0]

    pulled = jax.vmap(back)(*heard)
    moved = vectors(up.directions, up.step, *sent)
    return jnp.einsum("dbx,ubx->bdu", flat(pulled, 2), flat(moved, 2))


def _told(
    down: Spliced, slope: Array, pos: Int[Array, ""], index: Int[Array, ""], resolved: bool
) -> Float[Array, "batch pos ..."]:
    """The slope at a place's activation of one of its nodes, weighed by the node's own slope.

    A feature d weighs (v_d . slope) d(x); an error weighs slope . epsilon(x), so that its slope has
    a part through the dictionary.
    """
    slope = jnp.where(laid(down.live, slope), slope, 0)
    rows = flat(down.directions, 1)
    one = jnp.minimum(index, len(rows) - 1)

    def at(x: Array) -> Array:
        return lax.dynamic_slice_in_dim(x, pos, 1, axis=1) if resolved else x

    def weighed(x: Array) -> Float[Array, ""]:
        code, weight = encode(down.dictionary, at(x)), at(slope)
        feature = (code.features[..., one] * (flat(weight, 2) @ rows[one])).sum()
        return jnp.where(index < len(rows), feature, (code.error * weight).sum())

    return jax.grad(weighed)(down.x)
