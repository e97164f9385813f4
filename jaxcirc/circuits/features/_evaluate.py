r"""Is a set of feature nodes the circuit? The metric with every other node replaced.

$$f(C) = \frac{m(C) - m(\varnothing)}{m(M) - m(\varnothing)}$$

Marks et al. 2024 (arXiv 2403.19647), section 3.3: clean prompts, all dictionaries spliced, every
node outside C set to its mean over the corrupt prompts at the same position; errors are those of
the stream that is already ablated. Completeness is f of everything but C. May import `taps`,
`tasks`, `_basis`, `_runs`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._types import Progress
from ...taps import ByLayer, Code, Node, Set, Sites, Splice
from ...tasks import Interval, Prompts, logit_difference, recovered
from ._basis import Basis
from ._layout import Layout
from ._objective import Objective, objective_of
from ._patches import Patch, laid
from ._runs import Runs, Spliced, parts, plan

Errors = str | tuple[str, ...]
"""What becomes of errors: "default" (kept if their node is), "removed" (all of them, or those at
the sites that are named), or "kept"."""

Masks = tuple[Bool[np.ndarray, "pos _"], ...]
"""Which nodes of every place are kept."""


@dataclasses.dataclass(frozen=True)
class Faithfulness:
    """How much of the behaviour some circuits carry, against what they hold.

    - `sizes`: kept nodes; `scalars`: kept numbers, where an error is worth its place's width.
    - `faithful`: f of the circuits; `complement`: f of everything but them (completeness).
    - `values`, `complement_values`: the metric, by circuit and example; `full`, `empty`: with
      nothing and with everything ablated, Float[example].
    """

    sizes: tuple[int, ...]
    scalars: tuple[int, ...]
    faithful: tuple[Interval, ...]
    complement: tuple[Interval, ...]
    values: Float[np.ndarray, "circuit example"]
    complement_values: Float[np.ndarray, "outside example"]
    full: Float[np.ndarray, "example"]
    empty: Float[np.ndarray, "example"]

    def size_at(self, level: float) -> float:
        """The fewest nodes at which faithfulness reaches a level, linear between the circuits; NaN
        if it never does."""
        sizes, f = np.asarray(self.sizes), np.asarray([x.value for x in self.faithful])
        order = np.argsort(sizes, kind="stable")
        sizes, f = np.append(0, sizes[order]), np.append(0.0, f[order])
        above = np.flatnonzero(f >= level)
        if not len(above):
            return float("nan")
        i = int(above[0])
        if i == 0:
            return 0.0
        share = (level - f[i - 1]) / (f[i] - f[i - 1])
        return float(sizes[i - 1] + share * (sizes[i] - sizes[i - 1]))


def faithfulness(
    model,
    prompts: Prompts,
    basis: Basis,
    layout: Layout,
    circuits: Sequence[Int[np.ndarray, "node"]],
    metric: Any = logit_difference,
    *,
    errors: Errors = "default",
    start: int = 0,
    complement: bool = True,
    **options: Any,
) -> Faithfulness:
    """Faithfulness and completeness of sets of nodes.

    - `circuits`: columns of `layout`, as `select` gives. `complement`: without it completeness is
      left out. The rest as for `circuit_values`.

    Returns `Faithfulness`, its intervals clustered by template. Raises `ValueError` if ablating
    everything changes the metric too little to divide by.

    >>> sets = [select(scores, n) for n in (10, 30, 100)]
    >>> faithfulness(model, test, basis, scores.layout, sets).faithful
    """
    inside = [kept_masks(layout, columns, errors, start) for columns in circuits]
    outside = [
        kept_masks(layout, columns, errors, start, outside=True)
        for columns in circuits
        if complement
    ]
    nothing = kept_masks(layout, np.zeros(0, int), "removed", start)
    every = [*inside, *outside, nothing]
    values, full = _all_values(model, prompts, basis, layout, every, metric, start, **options)
    n, empty, clusters = len(circuits), values[-1], np.asarray(prompts.templates)
    recovered(full, empty, full, clusters)
    f = [recovered(row, empty, full, clusters) for row in values[:-1]]
    counts = [_held(layout, masks, start) for masks in inside]
    return Faithfulness(
        tuple(nodes for nodes, _ in counts),
        tuple(scalars for _, scalars in counts),
        tuple(f[:n]),
        tuple(f[n:]),
        values[:n],
        values[n:-1],
        full,
        empty,
    )


def circuit_values(
    model,
    prompts: Prompts,
    basis: Basis,
    layout: Layout,
    circuits: Sequence[Int[np.ndarray, "node"]],
    metric: Any = logit_difference,
    *,
    errors: Errors = "default",
    start: int = 0,
    outside: bool = False,
    **options: Any,
) -> Float[np.ndarray, "circuit example"]:
    """The metric of sets of nodes with all others ablated, on the clean prompts.

    - `errors`: "default" keeps an error if its node is in the set; "removed" ablates all, or those
      at the sites named in a tuple; "kept" ablates none.
    - `start`: places below this layer are free. `outside`: keep everything but the sets instead.
    - `options`: `value` ("mean", "counterfactual", "zero" or "resample"), `reference` (prompts for
      means), `precision`, `batch`, `at_once` (sets in one compiled call), `progress`.

    Returns Float[circuit example]. Raises `ValueError` for prompts of another length than the
    nodes' positions.

    >>> circuit_values(model, prompts, basis, scores.layout, [select(scores, 100)]).mean()
    """
    masks = [kept_masks(layout, columns, errors, start, outside) for columns in circuits]
    return _all_values(model, prompts, basis, layout, masks, metric, start, **options)[0]


def kept_masks(
    layout: Layout,
    columns: Int[np.ndarray, "node"],
    errors: Errors = "default",
    start: int = 0,
    outside: bool = False,
) -> Masks:
    """Which nodes stay: a set (or all others), errors by their rule, and all below `start`."""
    if isinstance(errors, str) and errors not in ("default", "removed", "kept"):
        raise ValueError(f'errors={errors!r}: use "default", "removed", "kept" or ("attn_out",)')
    found = []
    for place, mask in zip(layout.places, layout.masks(columns), strict=True):
        kept = ~mask if outside else mask.copy()
        if errors == "kept":
            kept[:, -1] = True
        elif errors == "removed" or (isinstance(errors, tuple) and place.site in errors):
            kept[:, -1] = False
        found.append(np.ones_like(kept) if place.layer < start else kept)
    return tuple(found)


def _held(layout: Layout, masks: Masks, start: int) -> tuple[int, int]:
    """How many nodes, and how many numbers, are kept at the places that are judged."""
    sizes = zip(layout.places, masks, layout.d_ins, strict=True)
    judged = [(mask, d_in) for place, mask, d_in in sizes if place.layer >= start]
    nodes = sum(int(mask.sum()) for mask, _ in judged)
    numbers = sum(int(mask[:, :-1].sum()) + d * int(mask[:, -1].sum()) for mask, d in judged)
    return nodes, numbers


def _all_values(
    model,
    prompts: Prompts,
    basis: Basis,
    layout: Layout,
    circuits: Sequence[Masks],
    metric: Any,
    start: int,
    *,
    value: Patch = "mean",
    reference: Prompts | None = None,
    precision: str = "highest",
    batch: int = 16,
    at_once: int = 4,
    progress: Progress | None = None,
) -> tuple[Float[np.ndarray, "circuit example"], Float[np.ndarray, "example"]]:
    """The metric of every circuit, and of the clean run."""
    objective, n, judged = objective_of(metric), len(circuits), basis.since(start)
    used = range(len(basis.places) - len(judged.places), len(basis.places))
    filled = [circuits[i] for i in np.resize(np.arange(n), -(-n // at_once) * at_once).tolist()]
    chunks = [filled[i : i + at_once] for i in range(0, len(filled), at_once)]
    columns, full = [], []
    with jax.default_matmul_precision(precision):
        by_position = layout.n_pos is not None
        at = plan(model, prompts, judged, value, reference, by_position, batch)
        check_layout(layout, basis.layout(at.layout.n_pos))
        for part in parts(model, objective, judged, at, value, batch):
            found = []
            for chunk in chunks:
                kept = tuple(jnp.asarray(np.stack([masks[i] for masks in chunk])) for i in used)
                values = _values(model, objective, part.runs, kept, places=judged.places)
                found.append(np.asarray(values))
            columns.append(np.concatenate(found)[:n, : part.new])
            full.append(np.asarray(part.runs.base)[: part.new])
            if progress is not None:
                progress(sum(map(len, full)), len(prompts))
    return np.concatenate(columns, axis=1), np.concatenate(full)


def check_layout(layout: Layout, found: Layout) -> None:
    """Raise `ValueError` if nodes do not belong to these prompts and this basis."""
    if layout.places != found.places or layout.widths != found.widths:
        raise ValueError("these nodes are another basis's: give the basis that they were scored in")
    if layout.n_pos != found.n_pos:
        raise ValueError(
            f"nodes at {layout.n_pos} positions, prompts of {found.n_pos} tokens: take prompts of"
            " that length, or score nodes(..., by_position=False)"
        )


@partial(jax.jit, static_argnames=("places",))
def _values(
    model,
    objective: Objective,
    runs: Runs,
    kept: tuple[Bool[Array, "circuit pos _"], ...],
    *,
    places: tuple[Node, ...],
) -> Float[Array, "circuit batch"]:
    def one(kept: tuple[Array, ...]) -> Float[Array, "batch"]:
        edits = spliced(places, runs.at, kept)
        return objective(model, runs.prompts.clean, runs.prompts, edits, runs.below)[0]

    return jax.lax.map(one, kept)


def spliced(
    places: Sequence[Node],
    at: Sequence[Spliced],
    kept: Sequence[Bool[Array, "pos _"]],
) -> Sites:
    """The table of edits with all dictionaries in, and nodes that are not kept set to their
    patch."""
    each = [_ablated(one, mask) for one, mask in zip(at, kept, strict=True)]

    def of(site: str) -> ByLayer:
        members = [i for i, place in enumerate(places) if place.site == site]
        layers = tuple(places[i].layer for i in members)
        return ByLayer(tuple(each[i] for i in members), layers)

    return Sites(**{site: of(site) for site in dict.fromkeys(p.site for p in places)})


def _ablated(at: Spliced, kept: Bool[Array, "pos feature_and_error"]) -> Splice:
    drop = at.live[..., None] & ~kept
    error = laid(drop[..., -1], at.x)
    return Splice(at.dictionary, Set(at.patch, Code(drop[..., :-1], error)))
