"""The figure of a `recovery` result; may import `experiments` (`Result`)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from ..experiments.recovery import BASELINES, WORLDS
from . import _reading, style

MEASURES = (("cosine", "o", style.HELPS), ("F1", "D", style.OPPOSES))


@style.styled
def recovery_dots(result: Result) -> Figure:
    """How well every architecture finds the known atoms, world by world, best first.

    >>> recovery_dots(study_recovery())
    """
    _reading.expect(result, "recovery", "recovery_dots")
    worlds = list(dict.fromkeys(str(row["section"]) for row in result.table))
    rows = {w: [row for row in result.table if row["section"] == w] for w in worlds}
    height = 1.9 + 0.33 * max(map(len, rows.values()))
    figure = Figure(figsize=(6.4 * len(worlds), height), layout="constrained")
    for axes, world in zip(figure.subplots(1, len(worlds), squeeze=False)[0], worlds, strict=True):
        _draw(axes, rows[world])
        title, note = WORLDS.get(world, (world, ""))
        style.heading(axes, title.capitalize(), note)
    figure.axes[0].legend(loc="lower right", fontsize=8.5)
    return figure


def _draw(axes: Axes, rows) -> None:
    y = np.arange(len(rows), dtype=float)
    for i, (name, marker, colour) in enumerate(MEASURES):
        value, low, high = (_reading.column(rows, f"{name}{end}") for end in ("", " low", " high"))
        shifted = y + 0.16 * (2 * i - 1)
        axes.hlines(shifted, low, high, colors=colour, lw=1.6)
        axes.scatter(value, shifted, s=26, c=colour, marker=marker, label=_LABELS[name], zorder=3)
    axes.set_yticks(y, [str(row["dictionary"]) for row in rows])
    axes.set_xlim(0, 1.03)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for row, tick in zip(rows, axes.get_yticklabels(), strict=True):
        tick.set_color(style.MUTED if row["dictionary"] in BASELINES else style.INK)


_LABELS = {"cosine": "|cosine| with the matched atom", "F1": "F1 of what is active"}
