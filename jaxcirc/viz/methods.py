"""Figures that set methods of edge discovery side by side; may import `experiments` (`Result`)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from . import _reading, style

RANKED = {
    "cpr": ("Edges ranked by importance", "what hurts comes last; the area is CPR"),
    "cmd": ("Edges ranked by size", "the area to the line at 100% is CMD"),
}


@style.styled
def compare_curves(result: Result) -> Figure:
    """Faithfulness of every method over the share of edges kept.

    >>> compare_curves(compare_methods(model, prompts))
    """
    _reading.expect(result, "compare", "compare_curves")
    figure = Figure(figsize=(13.5, 5), layout="constrained")
    names, panels = list(result.facts["methods"]), figure.subplots(1, 2)
    for axes, (kind, words) in zip(panels, RANKED.items(), strict=True):
        for i, name in enumerate(names):
            curve = result.arrays[f"{kind}_{name}"]
            colour, dashes = _look(i, name)
            axes.plot(
                result.arrays["grid"], curve, dashes, color=colour, label=name, marker="o", ms=3
            )
        axes.axhline(1, color=style.FAINT, linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel="share of edges kept", ylabel="behaviour kept")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        style.heading(axes, *words)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8.5)
    return figure


def _look(i: int, name: str) -> tuple:
    if name == "random":
        return style.MUTED, ":"
    return colormaps["tab10"](i % 10), "-" if i < 10 else "--"


@style.styled
def leaderboard_map(result: Result) -> Figure:
    """Edge AUROC of every method on every case.

    >>> leaderboard_map(leaderboard())
    """
    _reading.expect(result, "leaderboard", "leaderboard_map")
    methods = [str(row["method"]) for row in result.table if row["section"] == "median"]
    cases = [str(name) for name in result.facts["cases"]]
    table = np.full((len(methods), len(cases)), np.nan)
    for row in result.table:
        if row["section"] == "case" and row["AUROC"] is not None:
            table[methods.index(str(row["method"])), cases.index(str(row["case"]))] = row["AUROC"]
    figure = Figure(figsize=(2.6 + 0.85 * len(cases), 1.6 + 0.34 * len(methods)))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.imshow(table, cmap=style.POSITIVE_HELPS, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(cases)), cases, rotation=35, ha="right")
    axes.set_yticks(range(len(methods)), methods)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _write_cells(axes, table)
    style.heading(axes, "AUROC of edges with known truth", "methods by their median; chance 0.50")
    return figure


def _write_cells(axes: Axes, table: Sequence[Sequence[float]] | np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(np.asarray(table)):
        if np.isfinite(value):
            dark = abs(value - 0.5) > 0.35
            colour = style.PAPER if dark else style.INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=8)
