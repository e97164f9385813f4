"""`sweep` and `patch`: exact activation patching over every cell of a site, or over chosen nodes.

Zhang & Nanda 2023 (arXiv 2309.16042), section 2; directions after Heimersheim & Nanda 2024
(arXiv 2404.15255). Each patch resumes at its layer and reruns only what comes after the first
column that can change. May import `taps` and `tasks`.
"""

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from .._types import Direction, Progress
from ..taps import Node, parse_site
from ..tasks import Prompts, logit_difference, name_metrics
from ._ablation import Ablation
from ._cells import axes_of, group_of, layered, layers_of, size_of
from ._effects import around, per_node
from ._patch import Cell, Group, batches, pair, patched, picks_of, rows_in
from ._values import DegeneratePatch, degenerate, values_of


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
    window: int = 1,
    value: str | Ablation = "source",
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
    - `layers`: some layers only. `window`: how many layers around each to patch together, fewer
      at the ends; such effects are joint ones (`Effects.summed` adds up those of single layers).
    - `value`: what cells are set to: "source"; or, in the clean run, "zero", the "mean" over
      corrupt prompts by position and template, "mean_pooled", "resample" (another prompt's source),
      "optimal" (the constant of least loss, see `optimal`), or an `Ablation`. Ablations keep each
      prompt's first token.
    - `memory`: bytes that a compiled chunk may take.

    Returns `Effects` with axes ("example", "layer", *by), or a dictionary of them. Raises
    `ValueError` for a site or layer the model lacks, an axis the site lacks, an unknown span, or a
    window wider than the model.

    >>> effects = jaxcirc.patching.sweep(model, prompts, site="z")
    >>> effects.mean().shape                                                   # [layer head]
    """
    named = parse_site(site)[1]
    layers = [named] if layers is None and named is not None else layers
    site = layered(site)
    model.check(site)
    by = axes_of(site, by)
    layers = layers_of(model, layers)
    sizes = [size_of(model, prompts, axis) for axis in by]
    groups = [
        tuple(Cell(site, near, tuple(zip(by, choice, strict=True))) for near in together)
        for together in (around(layer, window, model.n_layers) for layer in layers)
        for choice in itertools.product(*map(range, sizes))
    ]
    found = patch(
        model,
        prompts,
        groups,
        dict(name_metrics(metric)),
        direction,
        pos=pos,
        value=value,
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
    nodes: Sequence[Node | Cell | Sequence[Node | Cell]],
    metric=logit_difference,
    direction: Direction = "noise",
    *,
    pos: str | None = None,
    value: str | Ablation = "source",
    precision: str = "highest",
    memory: float = 1e9,
    progress: Progress | None = None,
) -> Any:
    """Patch chosen nodes, one at a time, exactly; the nodes may belong to different sites.

    - `nodes`: nodes or cells; a sequence of them among these is patched together (`complement`
      makes "all heads but these").

    Other arguments as for `sweep`. Returns `Effects` with axes ("example", "node"), in the nodes'
    order, or a dictionary of them. Warns (`DegeneratePatch`) of one that restores the source by
    construction.

    >>> patch(model, prompts, [Node("z", 23, 3), [Node("mlp_out", 5), Node("mlp_out", 6)]]).mean()
    """
    cells = [group_of(node, model) for node in nodes]
    if not cells or not all(cells):
        raise ValueError('no nodes to patch: patch(model, prompts, [Node("z", 3, 0)])')
    prompts, ablation = values_of(model, prompts, cells, value, direction)
    if ablation is None and any(degenerate(model, prompts, group, pos) for group in cells):
        warnings.warn(DegeneratePatch(), stacklevel=2)
    metrics = name_metrics(metric)
    wide = np.promote_types(model.dtype, np.float32)
    raw = {name: np.zeros((len(prompts), len(cells)), wide) for name, _ in metrics}
    ends = {name: np.zeros((2, len(prompts)), wide) for name, _ in metrics}
    done, total = 0, len(cells) * len(prompts)
    with jax.default_matmul_precision(precision):
        for part in _parts(model, prompts, cells, metrics, direction, pos, memory, ablation):
            for name, _ in metrics:
                raw[name][part.rows[:, None], part.cells] = part.raw[name]
                ends[name][:, part.rows] = part.ends[name]
            done += len(part.rows) * len(part.cells)
            if progress is not None:
                progress(done, total)
    if progress is not None and done < total:
        progress(total, total)
    base, source = ({name: both[k] for name, both in ends.items()} for k in (0, 1))
    return per_node(raw, base, source, prompts, metric, direction, "nodes")


class _Part(NamedTuple):
    """One compiled chunk: its examples and cells, and per metric raw [row cell], ends [2 row]."""

    rows: np.ndarray
    cells: Int[np.ndarray, "cell"]
    raw: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]


def _parts(
    model, prompts, cells, metrics, direction, pos, memory, ablation: Ablation | None
) -> Iterator[_Part]:
    order = sorted(range(len(cells)), key=lambda i: _lowest(cells[i]))
    sites = tuple(sorted({cell.site for group in cells for cell in group}))
    options = {"sites": sites, "metrics": metrics, "direction": direction}
    width = _width(cells)
    firsts = prompts.first_difference() * (model.causal and ablation is None)
    length = prompts.clean.shape[1]
    for low, members in _columns(firsts, cells, order):
        size = rows_in(memory, model, sites, length - low, length, width + 1)
        for rows, n_new, first in batches(firsts, size):
            shared, first = low <= first, max(first, low)
            batch = prompts.take(rows).arrays()
            own = None if ablation is None else ablation.take(rows)
            runs = pair(model, batch, own, first=first, shared=shared, **options)
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


def _lowest(group: Group) -> int:
    return min(cell.layer for cell in group)


def _width(cells: Sequence[Group]) -> int:
    """Patches in a chunk: a layer's worth, between 5 (an unpatched row is dear) and 16."""
    per_layer = len(cells) / len(set(map(_lowest, cells)))
    return min(len(cells), int(np.clip(np.ceil(per_layer), 5, 16)))


def _columns(firsts, cells, order) -> Iterator[tuple[int, list[int]]]:
    """Cells in at most four classes by the column they patch, with the first column of each.

    A cell before the first difference of every prompt has effect exactly 0 and is not run; if all
    are, one class without cells remains, for the values of base and source.
    """
    earliest = int(firsts.min())
    columns = {i: _column(cells[i], earliest) for i in order}
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


def _column(group: Group, earliest: int) -> int | None:
    """The first column at which a group can matter; -1 if it lies before every difference."""
    columns = [cell.column for cell in group]
    if None in columns:
        return None
    return min((c for c in columns if c is not None and c >= earliest), default=-1)
