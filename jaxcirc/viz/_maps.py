"""Panels that are maps: a diverging colour for every cell, centred at 0. Imports `style`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap

from . import style

GAP = 0.5
"""Space between the heads and the row of MLPs, in cells."""


def limit_of(array: Float[np.ndarray, "..."]) -> float:
    """The largest finite size, and 1 where all is 0: colours run from -limit to limit."""
    size = np.abs(array[np.isfinite(array)])
    return float(size.max()) if size.size and size.max() > 0 else 1.0


def draw_heads(
    axes: Axes,
    heads: Float[np.ndarray, "layer head"],
    mlps: Float[np.ndarray, "layer"] | None,
    colours: LinearSegmentedColormap,
    *,
    label: str,
    names: int = 10,
) -> QuadMesh:
    """Layers from left to right, heads from top to bottom, MLPs in a row of their own below.

    - `names`: how many of the strongest heads are called "23.3" in their cell.

    The heads set the colour limits: an MLP beyond them saturates, and the bar ends in an arrow.
    """
    limit = limit_of(heads)
    mesh = draw_cells(axes, heads.T, colours, limit)
    n_layers, n_heads = heads.shape
    rows = list(_spread(n_heads, 16))
    ticks, words = [row + 0.5 for row in rows], [str(row) for row in rows]
    bottom = float(n_heads)
    if mlps is not None:
        draw_cells(axes, mlps[None], colours, limit, top=n_heads + GAP)
        ticks, words, bottom = [*ticks, n_heads + GAP + 0.5], [*words, "MLP"], n_heads + GAP + 1
    axes.set(xlim=(0, n_layers), ylim=(bottom, 0), xlabel="layer", ylabel="head")
    axes.set_yticks(ticks, words)
    layers = list(_spread(n_layers, 32))
    axes.set_xticks([layer + 0.5 for layer in layers], [str(layer) for layer in layers])
    _bare(axes)
    _name_cells(axes, heads, limit, names)
    beyond = mlps is not None and limit_of(mlps) > limit
    _bar(axes, mesh, label, "both" if beyond else "neither")
    return mesh


def draw_positions(
    axes: Axes,
    effects: Float[np.ndarray, "layer pos"],
    words: Sequence[str],
    colours: LinearSegmentedColormap,
    *,
    label: str,
    rows: str = "",
) -> QuadMesh:
    """Layers from left to right, positions from top to bottom, each called by its label."""
    mesh = draw_cells(axes, effects.T, colours, limit_of(effects))
    n_layers, n_rows = effects.shape
    axes.set(xlim=(0, n_layers), ylim=(n_rows, 0), xlabel="layer", ylabel=rows)
    kept = list(_spread(n_rows, 48))
    axes.set_yticks([row + 0.5 for row in kept], [words[row] for row in kept])
    layers = list(_spread(n_layers, 32))
    axes.set_xticks([layer + 0.5 for layer in layers], [str(layer) for layer in layers])
    _bare(axes)
    _bar(axes, mesh, label, "neither")
    return mesh


def draw_cells(
    axes: Axes,
    cells: Float[np.ndarray, "row column"],
    colours: LinearSegmentedColormap,
    limit: float,
    top: float = 0.0,
) -> QuadMesh:
    """Squares with white joints; row 0 lies at height `top`."""
    rows, columns = cells.shape
    x, y = np.arange(columns + 1), top + np.arange(rows + 1)
    joints = {"edgecolors": style.PAPER, "linewidth": 0.6}
    return axes.pcolormesh(x, y, cells, cmap=colours, vmin=-limit, vmax=limit, **joints)


def _spread(count: int, at_most: int) -> range:
    """Ticks at every cell, or at every second, fourth, ... if there are many."""
    step = 1
    while count > step * at_most:
        step *= 2
    return range(0, count, step)


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _name_cells(axes: Axes, heads: np.ndarray, limit: float, names: int) -> None:
    """Write "23.3" into the strongest cells, where the neighbour's name leaves room."""
    size = np.nan_to_num(np.abs(heads))
    order = np.argsort(-size, axis=None, kind="stable")[:names]
    points = _cell_width(axes, heads.shape[0])
    room = max(5.6, min(8.5, points / 2.7))
    reach = int(np.ceil(4 * 0.62 * room / points))
    taken: set[tuple[int, int]] = set()
    for layer, head in zip(*np.unravel_index(order, heads.shape), strict=True):
        near = {(int(layer) + step, int(head)) for step in range(1 - reach, reach)}
        if size[layer, head] and not near & taken:
            taken.add((int(layer), int(head)))
            ink = style.PAPER if size[layer, head] > 0.5 * limit else style.INK
            word = f"{layer}.{head}"
            middle = {"ha": "center", "va": "center_baseline", "clip_on": False}
            axes.text(layer + 0.5, head + 0.5, word, color=ink, fontsize=room, **middle)


def _cell_width(axes: Axes, columns: int) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return 0.9 * axes.bbox.width / columns * 72 / figure.dpi


def _bar(axes: Axes, mesh: QuadMesh, label: str, extend: str) -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    tall = 5.5 * axes.bbox.height / figure.dpi  # equally thin in every figure
    bar = figure.colorbar(mesh, ax=axes, extend=extend, fraction=0.05, aspect=tall, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=8.5)
