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
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .._types import Direction, Progress
from ..taps import AXES, OUTER, Node, head_axis, parse_site
from ..tasks import Prompts, logit_difference, name_metrics, sign
from ._ablation import KINDS, Ablation, constant, means, resampled
from ._effects import Effects, around
from ._optimal import optimal
from ._patch import Cell, Group, batches, pair, patched, picks_of, rows_in

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
    site = _layered(site)
    model.check(site)
    by = _axes(site, by)
    layers = _layers(model, layers)
    sizes = [_size(model, prompts, axis) for axis in by]
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
    cells = [_group(node, model) for node in nodes]
    if not cells or not all(cells):
        raise ValueError('no nodes to patch: patch(model, prompts, [Node("z", 3, 0)])')
    prompts, ablation = _values(model, prompts, cells, value, direction)
    if ablation is None and any(_degenerate(model, prompts, group, pos) for group in cells):
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


class DegeneratePatch(UserWarning):
    """All attention of the last position is patched, where clean and corrupt share the token."""

    def __init__(self):
        super().__init__(
            "clean and corrupt share the last token, so patching all attention there restores the"
            " source whatever the model does: patch fewer layers or heads"
        )


def _degenerate(model, prompts: Prompts, group: Group, pos: str | None) -> bool:
    """Whether nothing else can reach the scored position."""
    if not model.causal or prompts.noise is not None:
        return False
    last = prompts.clean.shape[1] - 1
    if (prompts.clean[:, -1] != prompts.corrupt[:, -1]).any():
        return False
    if pos is not None and not np.asarray(prompts.span(pos))[:, -1].all():
        return False
    reached = {
        (cell.layer, head)
        for cell in group
        if cell.site in ("attn_out", "z", "head_out") and cell.column in (None, last)
        for head in _heads_of(cell, model)
    }
    return len(reached) == model.n_layers * model.config.n_heads


def _heads_of(cell: Cell, model) -> Sequence[int]:
    choice = {axis: index for axis, index in cell.choice if axis != "pos"}
    if not choice:
        return range(model.config.n_heads)
    return [choice["head"]] if choice.keys() == {"head"} else []


def _values(
    model, prompts: Prompts, cells: Sequence[Group], value: str | Ablation, direction: Direction
) -> tuple[Prompts, Ablation | None]:
    """The prompts to patch with, and what cells are set to if it is not the source."""
    if value == "source":
        return prompts, None
    if value == "resample":
        return resampled(prompts), None
    if not isinstance(value, Ablation) and value not in KINDS:
        raise ValueError(
            f"value={value!r}: use an Ablation, or one of {', '.join(map(repr, KINDS))}"
        )
    if direction != "noise":
        raise ValueError('an ablation changes the clean run: direction="noise"')
    sites = sorted({cell.site for group in cells for cell in group})
    if isinstance(value, Ablation):
        lacking = set(sites) - {site for site, _ in value.values.items()}
        if lacking:
            raise ValueError(f"the ablation has no values for {sorted(lacking)[0]!r}")
        return prompts, value
    if value == "optimal":
        return prompts, optimal(model, prompts, [cell for group in cells for cell in group])
    if value == "zero":
        return prompts, constant(model, prompts, dict.fromkeys(sites, 0.0))
    return prompts, means(model, prompts, sites, pooled=value == "mean_pooled")


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


def complement(model, nodes: Sequence[Node]) -> list[Node]:
    """All nodes of the same sites but these: "all heads but the name movers".

    >>> patch(model, prompts, [complement(model, [Node("z", 9, 9), Node("z", 10, 0)])])
    """
    every = [node for site in dict.fromkeys(n.site for n in nodes) for node in _all(model, site)]
    return [node for node in every if node not in set(nodes)]


def _all(model, site: str) -> list[Node]:
    axis = head_axis(site)
    heads = [None] if axis is None else range(model.axis_size(axis))
    return [Node(site, layer, head) for layer in range(model.n_layers) for head in heads]


def _group(node: Node | Cell | Sequence[Node | Cell], model) -> Group:
    if isinstance(node, Node | Cell):
        return (_cell(node, model),)
    return tuple(_cell(one, model) for one in node)


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
