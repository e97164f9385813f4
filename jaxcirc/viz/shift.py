"""The figure of SHIFT: three measures of every method, ours beside the paper's. May import
`experiments` for `Result`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from . import _reading, style

MEASURES = {
    "profession": "accuracy on the label",
    "attribute": "agreement with the attribute",
    "worst": "accuracy in the worst group",
}
IDEAL = {"profession": 100, "attribute": 50, "worst": 100}
PAPER = (("Pythia-70m", "^"), ("Gemma-2-2B", "s"))


@style.styled
def shift_picture(result: Result) -> Figure:
    """Label, attribute and worst group of every method, a row of panels a task.

    >>> shift_picture(study_shift(model, tokenizer, basis, "runs/shift").result)
    """
    _reading.expect(result, "study_shift", "shift_picture")
    ours = [row for row in result.table if row.get("section") == "shift"]
    tasks = list(dict.fromkeys(str(row["task"]) for row in ours))
    methods = list(dict.fromkeys(str(row["method"]) for row in ours))
    size = (15, (1.1 + 0.33 * len(methods)) * len(tasks) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(tasks), len(MEASURES), squeeze=False, sharey=True)
    for line, task in zip(panels, tasks, strict=True):
        own = {str(row["method"]): row for row in ours if row["task"] == task}
        for axes, measure in zip(line, MEASURES, strict=True):
            _draw(axes, [own[method] for method in methods], measure)
            _draw_paper(axes, result, methods, measure)
            style.heading(axes, f"{task}: {MEASURES[measure]}", _note(line[0] is axes, ours[0]))
        line[0].set_yticks(range(len(methods)), methods)
        line[0].set_ylim(len(methods) - 0.5, -0.5)
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8.5)
    return figure


def _note(first: bool, row) -> str:
    return f"95 % intervals over {row['seeds']} seeds of {row['texts']} texts" if first else ""


def _draw(axes: Axes, rows: Sequence, measure: str) -> None:
    value, low, high = (_reading.column(rows, f"{measure}{end}") for end in ("", " low", " high"))
    y = np.arange(len(rows), dtype=float)
    axes.axvline(IDEAL[measure], color=style.MUTED, lw=1, ls=":", zorder=0)
    axes.hlines(y, low, high, colors=style.HELPS, lw=1.8)
    axes.scatter(value, y, s=36, c=style.HELPS, zorder=3, label="this model")
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("%")


def _draw_paper(axes: Axes, result: Result, methods: list[str], measure: str) -> None:
    for model, marker in PAPER:
        rows = [row for row in result.table if row.get("model") == model]
        y = np.asarray([methods.index(str(row["method"])) for row in rows], float) + 0.2
        x = _reading.column(rows, measure)
        label = f"the paper: {model}, Bias in Bios"
        look: dict[str, Any] = {"marker": marker, "facecolors": "none", "edgecolors": style.OPPOSES}
        axes.scatter(x, y, s=20, linewidths=1, label=label, **look)
