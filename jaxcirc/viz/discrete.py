"""Figures of discrete-SAE circuits: one task's heads, and the study. May import `experiments`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from . import _maps, _reading, style

PARTS = {"node": "components", "pair": "pairs of components"}
SWEPT = ("examples", "scored", "features", "penalty")


@style.styled
def discrete_heads(result: Result) -> Figure:
    """A map of heads by their number of codes that only positive texts have.

    >>> discrete_heads(discover_discrete(model, contrast("ioi", tokenizer)))
    """
    _reading.expect(result, "discover_discrete", "discrete_heads")
    nodes = np.asarray(result.arrays["nodes"])
    figure = Figure(figsize=(max(6.0, min(14.0, 3.0 + 0.34 * len(nodes))), 4.8))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    _maps.draw_heads(axes, nodes, None, style.POSITIVE_HELPS, label="codes", names=10)
    note = f"{result.facts.get('model')}; mean over {result.facts.get('seeds')} dictionaries"
    style.heading(axes, f"Codes that only texts with the behaviour have · {result.task}", note)
    return figure


@style.styled
def study_areas(result: Result) -> Figure:
    """AUC of every method on models whose circuit is known, with intervals over components.

    >>> study_areas(load_result("runs/discrete-sae-1a2b3c4d"))
    """
    rows = _rows(result, "known", "study_areas")
    parts = list(dict.fromkeys(str(row["parts ranked"]) for row in rows))
    figure = Figure(figsize=(5.4 * max(len(parts), 1) + 1, 4.2), layout="constrained")
    panels = figure.subplots(1, max(len(parts), 1), squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=False):
        _bars(axes, [row for row in rows if row["parts ranked"] == part][::-1])
        style.heading(axes, f"AUC over {part}", "chance 0.50; intervals over components")
    return figure


def _bars(axes: Axes, rows: Sequence[Any]) -> None:
    y = np.arange(len(rows))
    value, low, high = (_reading.column(rows, f"AUC{end}") for end in ("", " low", " high"))
    ours = [str(row["method"]).startswith("discrete") for row in rows]
    colours = [style.OPPOSES if own else style.HELPS for own in ours]
    axes.barh(y, value - 0.5, left=0.5, color=colours, height=0.62, alpha=0.8)
    axes.hlines(y, low, high, color=style.INK, lw=1.2)
    axes.axvline(0.5, color=style.MUTED, lw=0.8)
    axes.set_yticks(y, [str(row["method"]) for row in rows])
    axes.set(xlim=(0, 1.02))


@style.styled
def study_rocs(result: Result) -> Figure:
    """ROC curves on models whose circuit is known, over components and over pairs of them.

    >>> study_rocs(load_result("runs/discrete-sae-1a2b3c4d"))
    """
    _reading.expect(result, "study_discrete", "study_rocs")
    figure = Figure(figsize=(10.6, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (part, words) in zip(panels, PARTS.items(), strict=True):
        curves = {k: v for k, v in result.arrays.items() if k.startswith(f"roc_{part}_")}
        for i, (key, rates) in enumerate(curves.items()):
            name = key.removeprefix(f"roc_{part}_")
            dashes = "-" if name.startswith("discrete") else "--"
            x = np.linspace(0, 1, len(rates))
            axes.plot(x, rates, dashes, color=colormaps["tab10"](i % 10), lw=1.4, label=name)
        axes.plot([0, 1], [0, 1], color=style.FAINT, lw=1, zorder=0)
        axes.set(xlabel="share of all others chosen")
        style.heading(axes, f"ROC over {words}", "mean over models and seeds")
        if curves:
            axes.legend(loc="lower right", fontsize=7.5)
    panels[0].set_ylabel("share of the circuit chosen")
    return figure


@style.styled
def study_sweeps(result: Result) -> Figure:
    """The AUC over each setting of the method, a line a model.

    >>> study_sweeps(load_result("runs/discrete-sae-1a2b3c4d"))
    """
    rows = [r for r in _rows(result, "swept", "study_sweeps") if r["method"] == "discrete"]
    cases = list(dict.fromkeys(str(row["case"]) for row in rows))
    figure = Figure(figsize=(3.4 * len(SWEPT) + 1.4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SWEPT), sharey=True)
    for axes, setting in zip(panels, SWEPT, strict=True):
        swept = [row for row in rows if row["setting"] == setting]
        values = list(dict.fromkeys(str(row["value"]) for row in swept))
        for i, case in enumerate(cases):
            own = [row for row in swept if row["case"] == case]
            x = [values.index(str(row["value"])) for row in own]
            y, sd = _reading.column(own, "AUC"), _reading.column(own, "sd")
            colour = colormaps["tab10"](i)
            axes.fill_between(x, y - sd, y + sd, color=colour, alpha=0.12, lw=0)
            axes.plot(x, y, color=colour, marker="o", ms=3, label=case)
        axes.axhline(0.5, color=style.FAINT, lw=1, zorder=0)
        axes.set_xticks(np.arange(len(values)), values)
        axes.set(ylim=(0, 1.03))
        style.heading(axes, setting)
    panels[0].set_ylabel("AUC")
    if cases:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


@style.styled
def study_kept(result: Result) -> Figure:
    """Behaviour kept over the number of heads kept, a panel a task.

    >>> study_kept(load_result("runs/discrete-sae-1a2b3c4d"))
    """
    every = _rows(result, "faithful", "study_kept")
    rows = [row for row in every if row["metric"] == "logit_difference"]
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    figure = Figure(figsize=(3.9 * max(len(tasks), 1) + 1.8, 3.8), layout="constrained")
    panels = figure.subplots(1, max(len(tasks), 1), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=False):
        for i, row in enumerate(row for row in rows if row["task"] == task):
            sizes = sorted(int(key.split()[0]) for key in row if key.endswith(" heads"))
            y = [row[f"{size} heads"] for size in sizes]
            name, colour = str(row["method"]), colormaps["tab10"](i % 10)
            dashes = ":" if name in ("random", "sequential") else "-"
            axes.plot(sizes, y, dashes, color=colour, marker="o", ms=3, label=name)
        for level in (0, 1):
            axes.axhline(level, color=style.FAINT, lw=1, zorder=0)
        axes.set_xscale("symlog")
        axes.set_xlim(left=0)
        style.plain_ticks(axes.xaxis)
        axes.set(xlabel="heads kept")
        style.heading(axes, task, "share of the logit difference kept")
    if tasks:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def _rows(result: Result, section: str, caller: str) -> list[Any]:
    _reading.expect(result, "study_discrete", caller)
    return [row for row in result.table if row.get("section") == section]
