"""Panels of a `discover` result, each drawn on axes that somebody else placed. Imports `style`."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from ..experiments import Result
from . import _reading, style

MARKERS = {"z": "o", "mlp_out": "s"}


def draw_faithfulness(axes: Axes, result: Result, what: str = "nodes") -> None:
    """Faithfulness and completeness against size, above the range of random sets."""
    arrays = result.arrays
    sizes, random = arrays["sizes"], arrays["random"]
    for level in (0, 1):
        axes.axhline(level, color=style.FAINT, lw=1, zorder=0)
    axes.fill_between(
        sizes, random.min(1), random.max(1), color=style.MUTED, alpha=0.18, lw=0, zorder=1
    )
    axes.plot(sizes, random.mean(1), color=style.MUTED, lw=1.2, zorder=2)
    lines = [line for line in LINES if f"{line[0]}_value" in arrays]
    for name, colour, marker, _ in lines:
        value, low, high = (arrays[f"{name}_{part}"] for part in ("value", "low", "high"))
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0, zorder=1)
        axes.plot(sizes, value, color=colour, marker=marker, ms=4.5, zorder=3)
    _frame_curve(axes, sizes, what)
    lasts = [arrays[f"{line[0]}_value"][-1] for line in lines] + [random.mean(1)[-1]]
    words = [line[3] for line in lines] + [f"random sets ({random.shape[1]} draws)"]
    colours = [line[1] for line in lines] + [style.MUTED]
    _name_ends(axes, float(sizes[-1]), lasts, words, colours)


LINES = (
    ("faithfulness", style.HELPS, "o", "the circuit"),
    ("complement", style.OPPOSES, "s", "everything else"),
)
"""Name, colour, marker and words of the lines of a curve; a result may lack the second."""


def _frame_curve(axes: Axes, sizes: np.ndarray, what: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(_apart(sizes), [str(size) for size in _apart(sizes)])
    axes.set_xticks([], minor=True)
    axes.set(xlabel=f"{what} in the circuit", ylabel="behaviour kept")
    axes.set_xlim(sizes[0] * 0.93, sizes[-1] * 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _apart(sizes: np.ndarray) -> list[int]:
    """Sizes far enough from each other on a log axis to be written; the last one always."""
    kept: list[int] = []
    room = 0.0225 * len(str(sizes[-1]))
    for size in sizes[::-1].tolist():
        if not kept or np.log(kept[-1] / size) > room * np.log(sizes[-1] / sizes[0]):
            kept.append(size)
    return kept[::-1]


def _name_ends(axes: Axes, x: float, ys: Sequence, words: Sequence, colours: Sequence) -> None:
    """Call each line by its name at its right end, names kept apart."""
    low, high = axes.get_ylim()
    heights = _spaced(np.asarray(ys, float), gap=0.075 * (high - low))
    for height, word, colour in zip(heights, words, colours, strict=True):
        axes.annotate(
            word,
            (x, height),
            (9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            fontsize=9,
            annotation_clip=False,
        )


def _spaced(heights: np.ndarray, gap: float) -> np.ndarray:
    """The heights, moved apart where two are closer than `gap`; their order and centre stay."""
    order = np.argsort(heights)
    moved = heights[order].copy()
    for _ in range(50):
        short = np.maximum(gap - np.diff(moved), 0)
        moved[:-1] -= short / 2
        moved[1:] += short / 2
    return moved[np.argsort(order)]


def draw_nodes(axes: Axes, rows: Sequence, direction: str, label: str) -> None:
    """One line a node: bar and dot for the exact effect, its interval, AtP as a hollow diamond."""
    exact, estimate = _reading.column(rows, "exact"), _reading.column(rows, "atp")
    ends = np.stack([_reading.column(rows, f"exact_{end}") for end in ("low", "high")])
    tints = [style.colour(effect, direction) for effect in exact.tolist()]
    y = np.arange(len(rows))
    axes.barh(y, exact, height=0.62, color=tints, alpha=0.25, lw=0, zorder=1)
    axes.hlines(y, *ends, colors=tints, lw=1.6, zorder=2)
    axes.scatter(exact, y, s=26, c=tints, zorder=4, lw=0, label="exact, with interval")
    hollow = {"marker": "D", "facecolors": "none", "edgecolors": style.INK, "linewidths": 0.9}
    axes.scatter(estimate, y, s=20, zorder=3, label="AtP estimate", **hollow)
    axes.axvline(0, color=style.MUTED, lw=0.8, zorder=0)
    axes.set_yticks(y, [str(row["node"]) for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    _clip(axes, np.stack([exact, estimate, *ends]), exact)


def _clip(axes: Axes, drawn: np.ndarray, exact: np.ndarray) -> None:
    """If one node dwarfs the rest, end the axis before it and write its value beside its arrow."""
    reach = np.nanmax(np.abs(drawn), axis=0)
    ordered = np.sort(reach)[::-1]
    third = ordered[min(2, len(ordered) - 1)]
    edge = 1.12 * (ordered[ordered <= 2.5 * third].max() if third else 1.0)
    low, high = min(np.nanmin(drawn), 0), max(np.nanmax(drawn), 0)
    margin = 0.05 * min(edge, high - low or 1)
    axes.set_xlim(max(low - margin, -edge), min(high + margin, edge))
    for y in np.flatnonzero(reach > edge):
        left = exact[y] < 0
        words = f"◂ {_reading.number(exact[y])}" if left else f"{_reading.number(exact[y])} ▸"
        axes.annotate(
            words,
            (0 if left else 1, y),
            (3 if left else -3, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            fontsize=8.5,
            fontweight="bold",
            bbox={"facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1},
        )


def write_roles(axes: Axes, rows: Sequence, width: int, lines: int = 2) -> None:
    """What the lens says of each node, at its height, at most `lines` lines of `width` letters."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1))
    for y, row in enumerate(rows):
        words = str(row.get("lens") or "")
        said = textwrap.wrap(words, width, max_lines=lines, placeholder=" …")
        axes.text(
            0, y, "\n".join(said), va="center", fontsize=8.3, color=style.INK, linespacing=1.15
        )


def draw_scatter(axes: Axes, rows: Sequence, label: str, names: int = 8) -> None:
    """AtP against the exact effect, heads as discs and MLPs as squares, beside the line y = x."""
    exact, estimate = _reading.column(rows, "exact"), _reading.column(rows, "atp")
    sites = np.asarray([str(row["site"]) for row in rows])
    axes.axline((0, 0), slope=1, color=style.FAINT, lw=1.2, zorder=0)
    for level in (axes.axhline, axes.axvline):
        level(0, color=style.FAINT, lw=0.8, zorder=0)
    for i, site in enumerate(sorted(set(sites.tolist()), reverse=True)):
        here = sites == site
        word = f"{_reading.SITES.get(site, site)}s ({here.sum()})"
        look = {"marker": MARKERS.get(site, "D"), "edgecolors": style.PAPER, "linewidths": 0.5}
        look |= {"c": (style.HELPS, style.OPPOSES, style.MUTED)[i % 3], "alpha": 0.85}
        axes.scatter(exact[here], estimate[here], s=34, label=word, **look)
    axes.set(xlabel=f"exact {label}", ylabel=f"AtP estimate of the {label}")
    axes.legend(loc="upper left", fontsize=9, handletextpad=0.2, borderaxespad=0.2)
    _stretch(axes, np.concatenate([exact, estimate]))
    _name_points(axes, exact, estimate, [str(row["node"]) for row in rows], names)


def _stretch(axes: Axes, values: np.ndarray) -> None:
    """One scale on both axes: linear near 0, logarithmic beyond, so that no node hides the rest."""
    sizes = np.abs(values[np.isfinite(values)])
    middle = float(f"{np.median(sizes) or 1.0:.1g}") if sizes.size else 1.0
    scale = {"linthresh": middle, "linscale": 0.6}
    axes.set_xscale("symlog", **scale)
    axes.set_yscale("symlog", **scale)
    ends = (1.25 * min(np.nanmin(values), -middle), 1.25 * max(np.nanmax(values), middle))
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_decades(middle, max(-ends[0], ends[1]))))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _reading.plain(value)))
        axis.set_minor_locator(FixedLocator([]))


def _decades(start: float, stop: float) -> list[float]:
    """0 and, on both sides, `start`, 3 times it, 10 times it, ... up to `stop`."""
    steps = [start * factor for power in range(12) for factor in (10**power, 3 * 10**power)]
    kept = [step for step in steps if step <= stop]
    return [-step for step in kept[::-1]] + [0.0] + kept


def _name_points(axes: Axes, x: np.ndarray, y: np.ndarray, words: list[str], names: int) -> None:
    """Call the outermost points by name, to the right or left, where nothing else is in the way."""
    points = axes.transLimits.transform(axes.transScale.transform(np.stack([x, y], axis=1)))
    taken = np.empty((0, 2))
    for i in np.argsort(-np.hypot(x, y), kind="stable")[: 2 * names]:
        for side, align in ((1, "left"), (-1, "right")):
            middle = points[i] + (0.06 * side, 0)
            if len(taken) < names and _clear(middle, points, taken):
                taken = np.vstack([taken, middle])
                offset: Any = {"textcoords": "offset points", "va": "center", "ha": align}
                axes.annotate(words[i], (x[i], y[i]), (7 * side, 0), fontsize=8.5, **offset)
                break


def _clear(middle: np.ndarray, points: np.ndarray, taken: np.ndarray) -> bool:
    """Whether a name in the middle of here covers no point and no other name."""
    covers = np.abs(points - middle) < (0.05, 0.02)
    meets = np.abs(taken - middle) < (0.11, 0.035)
    return not covers.all(axis=1).any() and not meets.all(axis=1).any()
