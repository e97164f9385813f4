"""Figures of feature circuits: one as a graph, and the study's curves. May import `experiments`."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from ..experiments import Result
from . import _reading, style
from ._feature_graph import TALL, WIDE, Box, FeatureGraph, feature_graph

SHOWN = 80
"""Edges in the picture; the page has all."""


@style.styled
def feature_circuit_picture(result: Result, edges: int = SHOWN) -> Figure:
    """A feature circuit as a graph: places from below, errors hatched, the metric on top.

    >>> feature_circuit_picture(load_result("runs/agreement_across-1a2b3c4d")).savefig("a.png")
    """
    graph = feature_graph(result, edges)
    xy = np.asarray([(box.x, box.y) for box in graph.boxes])
    wide, high = np.ptp(xy, axis=0) + (4.2, 2.2)
    figure = Figure(figsize=(max(7.0, min(20.0, 0.74 * wide)), max(4.0, 0.72 * high)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1 - 0.75 / figure.get_size_inches()[1]))
    axes.set_axis_off()
    axes.set(xlim=(xy[:, 0].min() - 3.2, xy[:, 0].max() + 1), ylim=(-0.8, xy[:, 1].max() + 0.8))
    _draw_lines(axes, graph)
    for box in graph.boxes:
        _draw_box(axes, box)
    for place, y in graph.places.items():
        left = axes.get_xlim()[0] + 0.1
        axes.text(left, y, place, color=style.MUTED, fontsize=8, va="center")
    figure.text(0.01, 0.995, _title(result), fontsize=12, fontweight="bold", va="top")
    note = fill(_note(result, graph), round(15 * figure.get_size_inches()[0]))
    figure.text(
        0.01, 1 - 0.28 / figure.get_size_inches()[1], note, color=style.MUTED, va="top", size=8.5
    )
    return figure


def _title(result: Result) -> str:
    return f"{result.task}: the feature circuit of {result.facts.get('model', 'the model')}"


def _note(result: Result, graph: FeatureGraph) -> str:
    share = float(result.facts.get("error_share") or 0)
    kept = result.numbers.get("faithfulness")
    said = f"faithfulness {_reading.interval(kept)}; " if kept else ""
    return (
        f"{said}errors (ε) carry {_reading.percent(share)} of all effects; blue helps;"
        f" {graph.told}; the strongest {len(graph.source)} edges"
    )


def _draw_lines(axes: Axes, graph: FeatureGraph) -> None:
    for i in range(len(graph.source))[::-1]:
        colour = style.HELPS if graph.importance[i] > 0 else style.OPPOSES
        path = Path(graph.curve(i), [Path.MOVETO, *[Path.CURVE4] * 3])
        stroke = 0.3 + 3.2 * float(graph.strength[i])
        axes.add_patch(PathPatch(path, fc="none", ec=colour, lw=stroke, alpha=0.55, zorder=1))


def _draw_box(axes: Axes, box: Box) -> None:
    edge = style.MUTED if box.row is None else _colour(box.importance)
    look: dict[str, Any] = {"facecolor": style.PAPER, "edgecolor": edge, "linewidth": 1.0}
    look |= {"hatch": "////"} if box.is_error else {}
    shape = "round,pad=0,rounding_size=0.08"
    corner = (box.x - WIDE / 2, box.y - TALL / 2)
    axes.add_patch(FancyBboxPatch(corner, WIDE, TALL, boxstyle=shape, zorder=2, **look))
    back = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.6} if box.is_error else None
    axes.text(box.x, box.y, box.words, ha="center", va="center", fontsize=7, zorder=3, bbox=back)
    label = box.row["label"] if box.row is not None and not box.is_error else ""
    if label:
        words = str(label)[:22]
        low = box.y - TALL / 2 - 0.02
        axes.text(
            box.x, low, words, ha="center", va="top", fontsize=4.5, color=style.MUTED, zorder=3
        )


def _colour(importance: float) -> str:
    return style.HELPS if importance > 0 else style.OPPOSES


LOOKS = {
    "features": (style.HELPS, "-"),
    "features, exact": (style.HELPS, ":"),
    "neurons": (style.OPPOSES, "-"),
    "hidden": (style.OPPOSES, "--"),
    "random dictionary": ("#7a5195", "-"),
    "PCA": ("#2a9d8f", "-"),
    "random features": (style.MUTED, ":"),
}
"""Colour and dashes of every basis."""

ERRORS = {"default": "-", "kept": "-.", "attn+mlp removed": "--", "removed": ":"}


@style.styled
def study_faithfulness(result: Result) -> Figure:
    """Faithfulness against nodes, and against scalars, of every basis on every task.

    >>> study_faithfulness(load_result("runs/sparse-feature-circuits-1a2b3c4d"))
    """
    rows = _rows(result, "curve", "study_faithfulness")
    tasks = _tasks(rows)
    figure = Figure(figsize=(3.3 * max(len(tasks), 2) + 1.6, 6.6), layout="constrained")
    panels = figure.subplots(2, max(len(tasks), 1), squeeze=False, sharey=True)
    for axes, axis in zip(panels, ("nodes", "scalars"), strict=True):
        for one, (model, task) in zip(axes, tasks, strict=False):
            own = [row for row in rows if (row["model"], row["task"]) == (model, task)]
            for kind, (colour, dashes) in LOOKS.items():
                _line(one, [r for r in own if _is(r, kind, "default")], axis, colour, dashes, kind)
            _frame(one, axis, task if axis == "nodes" else "", model)
        axes[0].set_ylabel("faithfulness")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


@style.styled
def study_errors(result: Result) -> Figure:
    """What errors are worth: features with errors kept, chosen, some removed, all removed.

    >>> study_errors(load_result("runs/sparse-feature-circuits-1a2b3c4d"))
    """
    rows = _rows(result, "curve", "study_errors")
    tasks = _tasks(rows)
    figure = Figure(figsize=(3.3 * max(len(tasks), 2) + 1.6, 3.6), layout="constrained")
    panels = figure.subplots(1, max(len(tasks), 1), squeeze=False, sharey=True)[0]
    for one, (model, task) in zip(panels, tasks, strict=False):
        own = [row for row in rows if (row["model"], row["task"]) == (model, task)]
        for errors, dashes in ERRORS.items():
            some = [row for row in own if _is(row, "features", errors)]
            _line(one, some, "nodes", style.HELPS, dashes, f"errors {errors}")
        _frame(one, "nodes", task, model)
    panels[0].set_ylabel("faithfulness")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


@style.styled
def study_layers(result: Result) -> Figure:
    """Correlation with exact effects, and the completeness gap, of every estimator by place.

    >>> study_layers(load_result("runs/sparse-feature-circuits-1a2b3c4d"))
    """
    rows = _rows(result, "layers", "study_layers")
    tasks = _tasks(rows)
    figure = Figure(figsize=(4.6 * max(len(tasks), 1) + 1.4, 6.2), layout="constrained")
    panels = figure.subplots(2, max(len(tasks), 1), squeeze=False, sharex="col")
    for column, (model, task) in enumerate(tasks):
        own = [row for row in rows if (row["model"], row["task"]) == (model, task)]
        for axes, value in zip(panels[:, column], ("r", "gap, share"), strict=True):
            _estimators(axes, own, value)
        style.heading(panels[0][column], task, model)
    panels[0][0].set_ylabel("correlation with exact")
    panels[1][0].set_ylabel("completeness gap, share")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def _estimators(axes: Axes, rows: Sequence[Any], value: str) -> None:
    places = list(dict.fromkeys(str(row["place"]) for row in rows))
    for i, name in enumerate(dict.fromkeys(str(row["estimator"]) for row in rows)):
        own = [row for row in rows if row["estimator"] == name]
        y = _reading.column(own, value)
        axes.plot(range(len(places)), y, color=colormaps["tab10"](i), marker="o", ms=3, label=name)
    axes.axhline(0, color=style.FAINT, lw=0.8, zorder=0)
    axes.set_xticks(range(len(places)), places, rotation=60, ha="right", fontsize=7)


def _rows(result: Result, section: str, caller: str) -> list[Any]:
    _reading.expect(result, "study_feature_circuits", caller)
    return [row for row in result.table if row.get("section") == section]


def _tasks(rows: Sequence[Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((str(row["model"]), str(row["task"])) for row in rows))


def _is(row: Any, kind: str, errors: str) -> bool:
    return row["kind"] == kind and row["errors"] == errors


def _line(axes: Axes, rows, axis: str, colour, dashes: str, label: str) -> None:
    if not rows:
        return
    x = _reading.column(rows, axis)
    parts = [_reading.column(rows, f"faithfulness{end}") for end in ("", " low", " high")]
    axes.fill_between(x, parts[1], parts[2], color=colour, alpha=0.08, lw=0)
    axes.plot(x, parts[0], dashes, color=colour, marker="o", ms=2.5, lw=1.4, label=label)


def _frame(axes: Axes, axis: str, title: str, note: str) -> None:
    for level in (0, 0.5, 1):
        axes.axhline(level, color=style.FAINT, lw=0.8, zorder=0)
    axes.set(xscale="log", xlabel=f"{axis} kept", ylim=(-0.35, 1.35))
    style.plain_ticks(axes.xaxis)
    if title:
        style.heading(axes, title, note)
