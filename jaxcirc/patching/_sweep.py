"""`sweep` and `patch`: exact activation patching over every cell of a site, or over chosen nodes.

Zhang & Nanda 2023 (arXiv 2309.16042), section 2; directions after Heimersheim & Nanda 2024
(arXiv 2404.15255). Each patch resumes at its layer and reruns only what comes after the first
column that can change. May import `taps` and `tasks`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .._types import Direction, Progress
from ..taps import AXES, OUTER, Node, head_axis, parse_site
from ..tasks import Prompts, logit_difference, name_metrics, sign
from ._effects import Effects
from ._patch import Cell, batches, pair, patched, picks_of, rows_in

INSTEAD = {
    "embed": 'site="resid_pre", layers=[0]',
    "final_resid": 'site="resid_post", layers=[-1]',
    "final_norm_scale": "an edit, at('final_norm_scale').set(value)",
    "logits": "the metric itself",
}


def sweep(
    model,
    prompts: Prompts,
    site: str = "z",
    metric=logit_difference,
    direction: Direction = "noise",
    *,
    by: Sequence[str] | None = None,
    pos: str | None = None,
    layers: Sequence[int] | None = None,
    precision: str = "highest",
    memory: float = 1e9,
    progress: Progress | None = None,
) -> Any:
    r"""Patch every cell of a site, one at a time, exactly.

    $$\mathrm{raw} = m(\text{base with cell} \leftarrow \text{source}) - m(\text{base})$$

    where noise has base clean and source corrupt, denoise the reverse.

    - `prompts`: pairs of equal length, padded on the left. `site`: any per-layer site.
    - `metric`: `metric(logits [batch vocab], prompts) -> [batch]`, or a dictionary of several.
    - `by`: axes to resolve besides the layer (default the head axis, if there is one): `("pos",)`,
      `("pos", "head")`, `("d_mlp",)`, `("head", "dest", "src")`, ... What is not named is patched
      whole.
    - `pos`: the name of a span to patch in (default: all positions).
    - `layers`: some layers only. `memory`: bytes that a compiled chunk may take.

    Returns `Effects` with axes ("example", "layer", *by), or a dictionary of them. Raises
    `ValueError` for a site or layer the model lacks, an axis the site lacks, or an unknown span.

    >>> effects = jaxcirc.patching.sweep(model, prompts, site="z")
    >>> effects.mean().shape                                                   # [layer head]
    """
    named = parse_site(site)[1]
    layers = [named] if layers is None and named is not None else layers
    site = _layered(site)
    model.check(site)
    by = _axes(site, by)
    layers = _layers(model, layers)
    sizes = [_size(model, prompts, axis) for axis in by]
    cells = [
        Cell(site, layer, tuple(zip(by, choice, strict=True)))
        for layer in layers
        for choice in itertools.product(*map(range, sizes))
    ]
    found = patch(
        model,
        prompts,
        cells,
        dict(name_metrics(metric)),
        direction,
        pos=pos,
        precision=precision,
        memory=memory,
        progress=progress,
    )
    shape, axes = (len(prompts), len(layers), *sizes), ("example", "layer", *by)
    made = {name: effects.reshaped(shape, axes, site) for name, effects in found.items()}
    return made if isinstance(metric, Mapping) else next(iter(made.values()))


def patch(
    model,
    prompts: Prompts,
    nodes: Sequence[Node | Cell],
    metric=logit_difference,
    direction: Direction = "noise",
    *,
    pos: str | None = None,
    precision: str = "highest",
    memory: float = 1e9,
    progress: Progress | None = None,
) -> Any:
    """Patch chosen nodes, one at a time, exactly; the nodes may belong to different sites.

    Arguments as for `sweep`. Returns `Effects` with axes ("example", "node"), in the nodes' order,
    or a dictionary of them.

    >>> patch(model, prompts, [Node("z", 23, 3), Node("mlp_out", 5)]).mean()
    """
    cells = [_cell(node, model) for node in nodes]
    if not cells:
        raise ValueError('no nodes to patch: patch(model, prompts, [Node("z", 3, 0)])')
    metrics = name_metrics(metric)
    wide = np.promote_types(model.dtype, np.float32)
    raw = {name: np.zeros((len(prompts), len(cells)), wide) for name, _ in metrics}
    ends = {name: np.zeros((2, len(prompts)), wide) for name, _ in metrics}
    done, total = 0, len(cells) * len(prompts)
    with jax.default_matmul_precision(precision):
        for part in _parts(model, prompts, cells, metrics, direction, pos, memory):
            for name, _ in metrics:
                raw[name][part.rows[:, None], part.cells] = part.raw[name]
                ends[name][:, part.rows] = part.ends[name]
            done += len(part.rows) * len(part.cells)
            if progress is not None:
                progress(done, total)
    if progress is not None and done < total:
        progress(total, total)
    made = {
        name: Effects(
            jnp.asarray(raw[name]),
            jnp.asarray(ends[name][0]),
            jnp.asarray(ends[name][1]),
            jnp.asarray(prompts.templates),
            "nodes",
            name,
            direction,
            sign(direction, f),
            ("example", "node"),
        )
        for name, f in metrics
    }
    return made if isinstance(metric, Mapping) else made[metrics[0][0]]


class _Part(NamedTuple):
    """One compiled chunk: its examples and cells, and per metric raw [row cell], ends [2 row]."""

    rows: np.ndarray
    cells: Int[np.ndarray, "cell"]
    raw: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]


def _parts(model, prompts, cells, metrics, direction, pos, memory) -> Iterator[_Part]:
    order = sorted(range(len(cells)), key=lambda i: cells[i].layer)
    sites = tuple(sorted({cell.site for cell in cells}))
    options = {"sites": sites, "metrics": metrics, "direction": direction}
    width = _width(cells)
    firsts = prompts.first_difference() * model.causal
    length = prompts.clean.shape[1]
    for low, members in _columns(firsts, cells, order):
        size = rows_in(memory, model, sites, length - low, length, width + 1)
        for rows, n_new, first in batches(firsts, size):
            shared, first = low <= first, max(first, low)
            batch = prompts.take(rows).arrays()
            runs = pair(model, batch, first=first, shared=shared, **options)
            both = {n: np.stack([runs.base_value[n], runs.source_value[n]]) for n, _ in metrics}
            ends = {name: values[:, :n_new] for name, values in both.items()}
            if not members:
                none = {name: np.zeros((n_new, 0)) for name, _ in metrics}
                yield _Part(rows[:n_new], np.arange(0), none, ends)
            for begin in range(0, len(members), width):
                chunk = members[begin : begin + width]
                picks = picks_of([cells[i] for i in chunk], width, runs, pos, first)
                found = patched(model, runs, picks, metrics=metrics)
                raw = {name: np.asarray(x)[: len(chunk), :n_new].T for name, x in found.items()}
                yield _Part(rows[:n_new], np.asarray(chunk), raw, ends)


def _width(cells: Sequence[Cell]) -> int:
    """Patches in a chunk: a layer's worth, between 5 (an unpatched row is dear) and 16."""
    per_layer = len(cells) / len({cell.layer for cell in cells})
    return min(len(cells), int(np.clip(np.ceil(per_layer), 5, 16)))


def _columns(firsts, cells, order) -> Iterator[tuple[int, list[int]]]:
    """Cells in at most four classes by the column they patch, with the first column of each.

    A cell before the first difference of every prompt has effect exactly 0 and is not run; if all
    are, one class without cells remains, for the values of base and source.
    """
    earliest = int(firsts.min())
    columns = {i: cells[i].column for i in order}
    whole = [i for i in order if columns[i] is None]
    if whole:
        yield 0, whole
    placed = sorted({c for c in columns.values() if c is not None and c >= earliest})
    if not whole and not placed:
        yield earliest, []
    for group in np.array_split(placed, min(4, len(placed)) or 1):
        members = [i for i in order if columns[i] is not None and columns[i] in set(group.tolist())]
        if members:
            yield int(group[0]), members


def _cell(node: Node | Cell, model) -> Cell:
    if isinstance(node, Cell):
        return node
    site = _layered(node.site)
    model.check(site)
    layer = _layers(model, [node.layer])[0]
    axis = head_axis(site)
    if axis is None or node.index is None:
        return Cell(site, layer, ())
    if not 0 <= node.index < model.axis_size(axis):
        raise ValueError(f"{node}: {site!r} has {model.axis_size(axis)} along {axis} (from 0)")
    return Cell(site, layer, ((axis, node.index),))


def _layered(name: str) -> str:
    site, layer = parse_site(name)
    if site in OUTER:
        raise ValueError(f"{site!r} lies outside the layers: patch {INSTEAD[site]} instead")
    if layer is not None:
        raise ValueError(f"{name!r} names one layer: use site={site!r}, layers=[{layer}]")
    return site


def _axes(site: str, by: Sequence[str] | None) -> tuple[str, ...]:
    head = head_axis(site)
    by = ((head,) if head else ()) if by is None else tuple(by)
    for axis in by:
        if axis not in AXES[site][1:]:
            raise ValueError(
                f"{site!r} has no axis {axis!r}: by= may name {', '.join(AXES[site][1:])}"
            )
    return by


def _layers(model, layers: Sequence[int] | None) -> list[int]:
    layers = list(range(model.n_layers)) if layers is None else list(layers)
    for layer in layers:
        if not -model.n_layers <= layer < model.n_layers:
            raise ValueError(f"layer {layer} is out of range: use 0..{model.n_layers - 1}")
    return [layer % model.n_layers for layer in layers]


def _size(model, prompts: Prompts, axis: str) -> int:
    return prompts.clean.shape[1] if axis in ("pos", "dest", "src") else model.axis_size(axis)
