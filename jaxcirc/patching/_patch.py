"""Exact patching of any cells, in compiled chunks through the causal cone. May import `taps`,
`tasks`.

A chunk holds picks (cells to patch), vmapped, and one row with nothing patched, which is
subtracted: base and patched values come from one executable, so an effect that must be zero is
zero.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import Direction
from ..taps import AXES, Cone, Read, Set, Sites, Start, cone, take_layer
from ..tasks import Metrics, Prompts, ends, with_reference
from ._ablation import Ablation, ablated, along, column, sinks


class Cell(NamedTuple):
    """A part of a site: a layer, and an index along each axis that is resolved."""

    site: str
    layer: int
    choice: tuple[tuple[str, int], ...] = ()

    @property
    def column(self) -> int | None:
        """The one column that is patched, if positions are resolved."""
        return dict(self.choice).get("pos", dict(self.choice).get("dest"))


Group = tuple[Cell, ...]
"""Cells that are patched together."""


class Pair(eqx.Module):
    """Base and source of one batch, run once: all that its patches resume from.

    - `resid`: Float[layer batch suffix d_model], the base run's `resid_pre`.
    - `source`: what cells are set to, the source run's records of the patched sites or an
      ablation's values.
    - `prompts`: with the clean run's logits as `reference`. `free`: where an ablation acts.
    - `base_value`, `source_value`: the metrics, Float[batch] each.
    """

    cone: Cone
    resid: Float[Array, "layer batch suffix d_model"]
    source: Sites
    prompts: Prompts
    free: Bool[Array, "batch pos"] | None
    base_value: dict[str, Float[Array, "batch"]]
    source_value: dict[str, Float[Array, "batch"]]


class Picks(eqx.Module):
    """Cells to patch: in `where` a mask per site, [pick layer batch pos ...], and the lowest
    layer."""

    low: Int[Array, ""]
    where: Sites


@partial(jax.jit, static_argnames=("first", "shared", "sites", "metrics", "direction"))
def pair(
    model,
    prompts: Prompts,
    ablation: Ablation | None = None,
    *,
    first: int,
    shared: bool = True,
    sites: tuple[str, ...],
    metrics: Metrics,
    direction: Direction,
) -> Pair:
    """Run base and source of a batch behind column `first`, and keep what patching needs.

    `shared`: both have the same tokens before `first`, so that one prefix and one batch serve them.
    """
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    reads = Sites(**{site: Read() for site in {"resid_pre", *sites}})
    if shared:
        both = suffix.beside(suffix.of(*source))
        logits, records = both.run(model, reads, logits_at=-1)
        at_base, at_source = jnp.split(logits, 2)
        here, there = (
            jax.tree.map(lambda x, i=i: jnp.split(x, 2, axis=1)[i], records) for i in (0, 1)
        )
    else:
        at_base, here = suffix.run(model, reads, logits_at=-1)
        own = cone(model, source.tokens, prompts.mask, first, source.added)
        at_source, there = own.run(model, reads, logits_at=-1)
    prompts = with_reference(prompts, at_base if direction == "noise" else at_source)
    if ablation is not None:
        there = ablated(ablation, there, first)
    return Pair(
        suffix,
        here.resid_pre,
        Sites(**{site: getattr(there, site) for site in sites}),
        prompts,
        None if ablation is None else prompts.mask & ~sinks(prompts),
        {name: metric(at_base, prompts) for name, metric in metrics},
        {name: metric(at_source, prompts) for name, metric in metrics},
    )


@partial(jax.jit, static_argnames=("metrics",))
def patched(model, runs: Pair, picks: Picks, *, metrics: Metrics) -> dict[str, Array]:
    """metric(patched) - metric(unpatched row) for every pick: Float[pick batch] per metric.

    The last pick must be the empty one; its row is subtracted and left out.
    """
    start = Start(take_layer(runs.resid, picks.low), picks.low)

    def one(where: Sites) -> Float[Array, "batch vocab"]:
        values = dict(runs.source.items())
        edits = Sites(**{site: Set(values[site], mask) for site, mask in where.items()})
        return runs.cone.run(model, edits, start=start, logits_at=-1)[0]

    logits = jax.vmap(one)(picks.where)
    values = {name: jax.vmap(lambda x, f=f: f(x, runs.prompts))(logits) for name, f in metrics}
    return {name: value[:-1] - value[-1] for name, value in values.items()}


def picks_of(groups: Sequence[Group], width: int, runs: Pair, pos: str | None, first: int) -> Picks:
    """The masks of some groups of cells, filled up to `width` and followed by the empty pick."""
    cells = [cell for group in groups for cell in group]
    places, where = _places(runs, pos), {}
    for site, value in runs.source.items():
        layers, shape = value.shape[0], value.shape[1:]
        masks = np.zeros((width + 1, layers, *_spread(site, shape, cells, places)), bool)
        for row, group in enumerate(groups):
            for cell in group:
                if cell.site == site:
                    masks[row, cell.layer] |= _mask(cell, shape, places, first)
        where[site] = jnp.asarray(masks)
    return Picks(jnp.asarray(min(cell.layer for cell in cells)), Sites(**where))


def _places(runs: Pair, pos: str | None) -> Bool[np.ndarray, "batch pos"] | None:
    """The columns that may be patched, if not all may."""
    span = None if pos is None else np.asarray(runs.prompts.span(pos))
    if runs.free is None:
        return span
    return np.asarray(runs.free) & (True if span is None else span)


def _spread(site: str, shape: tuple[int, ...], cells: Sequence[Cell], places) -> list[int]:
    """The shape of a site's masks: 1 along every axis that no cell resolves."""
    used = {axis for cell in cells for axis, _ in cell.choice}
    used |= set() if places is None else {"batch", column(site)}
    return [size if axis in used else 1 for axis, size in zip(AXES[site], shape, strict=True)]


def _mask(cell: Cell, shape: tuple[int, ...], places, first: int) -> Bool[np.ndarray, "..."]:
    axes = AXES[cell.site]
    mask = np.ones((1,) * len(axes), bool)
    for axis, index in cell.choice:
        flags = np.arange(shape[axes.index(axis)]) == index - (
            first if axis in ("pos", "dest") else 0
        )
        mask = mask & flags.reshape([-1 if a == axis else 1 for a in axes])
    if places is None:
        return mask
    return mask & along(cell.site, places[:, 0 if column(cell.site) == "src" else first :])


def batches(
    firsts: Int[np.ndarray, "example"], size: int, groups: int = 4
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Batches of examples with about the same suffix: (indices, how many are new, first column).

    Examples are sorted into at most `groups` classes of suffix; every batch of a class has the same
    shape, the last one filled up with repeats, so a class costs one trace.
    """
    edges = np.linspace(firsts.min(), firsts.max() + 1, groups + 1)
    wide = firsts.max() - firsts.min() >= groups
    classes = np.digitize(firsts, edges[1:-1]) if wide else np.zeros(len(firsts), int)
    for group in np.unique(classes):
        members = np.nonzero(classes == group)[0]
        first, width = int(firsts[members].min()), min(size, len(members))
        for begin in range(0, len(members), width):
            chunk = members[begin : begin + width]
            yield np.resize(chunk, width), len(chunk), first


def rows_in(
    memory: float, model, sites: Sequence[str], suffix: int, length: int, picks: int
) -> int:
    """How many examples fit into `memory` bytes: `picks` patched rows each, and what both runs
    keep."""
    c = model.config

    def width(site: str) -> int:
        sizes = [length if a in ("dest", "src") else model.axis_size(a) for a in AXES[site][2:]]
        return math.prod(sizes)

    kept = 2 * c.n_layers * suffix * (c.d_model + sum(map(width, sites)))
    per_token = 3 * max(c.d_mlp, 4 * c.d_model) + c.n_heads * length
    per_row = suffix * per_token + 3 * c.vocab
    return max(1, int(memory // (4 * (per_row * picks + kept))))
