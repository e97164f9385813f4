"""Figures of observables: a map of heads, lengths against direct effects, few labels against none.

May import `experiments` for `Result`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..experiments import Result
from . import _maps, _reading, style

LOOKS = {
    "ridge": (style.OPPOSES, "o"),
    "logistic": ("#7a5195", "s"),
    "mean difference": ("#2a9d8f", "^"),
}
OURS = "observable propagation"


@style.styled
def observe_map(result: Result) -> Figure:
    """The length of every head's feature.

    >>> observe_map(observe(model, tokenizer, observable))
    """
    _reading.expect(result, "observe", "observe_map")
    norms = result.arrays["norms"]
    figure = Figure(figsize=(max(6.0, 3 + 0.34 * len(norms)), 4.4), layout="constrained")
    axes = figure.add_subplot()
    label = "length of the feature"
    _maps.draw_heads(axes, norms, None, style.POSITIVE_HELPS, label=label, names=8)
    title = f"What every head reads for {result.facts.get('observable', 'the observable')}"
    style.heading(axes, title, "weights alone: patterns at 1, norms by their gain")
    return figure


@style.styled
def observable_heads(result: Result) -> Figure:
    """Lengths of features against what heads write directly, every head a point.

    >>> observable_heads(load_result("runs/observable-propagation-1a2b3c4d"))
    """
    _reading.expect(result, "study_observables", "observable_heads")
    figure = Figure(figsize=(11.5, 5.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("subject", "object"), strict=True):
        norms, direct = result.arrays[f"norms_{name}"], result.arrays[f"direct_{name}"]
        signs = np.where(direct.ravel() > 0, style.HELPS, style.OPPOSES)
        size = np.maximum(np.abs(direct), 1e-6)
        axes.scatter(norms.ravel(), size.ravel(), s=14, c=signs, alpha=0.75, linewidths=0)
        _name(axes, norms, size)
        axes.set(xscale="log", yscale="log", xlabel="length of the feature, no data")
        axes.set_ylabel("size of the direct effect, logits")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _reading.plain(value)))
        style.heading(
            axes, f"{name} pronouns", "blue writes towards the difference, orange against"
        )
    return figure


def _name(axes: Axes, norms: np.ndarray, size: np.ndarray) -> None:
    chosen = {*np.argsort(-norms.ravel())[:5].tolist(), *np.argsort(-size.ravel())[:5].tolist()}
    for flat in chosen:
        layer, head = np.unravel_index(flat, norms.shape)
        place = (float(norms[layer, head]), float(size[layer, head]))
        axes.annotate(f"{layer}.{head}", place, (4, 3), textcoords="offset points", fontsize=8)


@style.styled
def observable_labels(result: Result) -> Figure:
    """r2 on held-out names against labelled examples, at heads chosen in four ways.

    >>> observable_labels(load_result("runs/observable-propagation-1a2b3c4d"))
    """
    _reading.expect(result, "study_observables", "observable_labels")
    rows: list[Any] = [row for row in result.table if row.get("set") == "names"]
    heads = list(dict.fromkeys((str(row["head"]), str(row["chosen by"])) for row in rows))
    places = list(dict.fromkeys(str(row["read at"]) for row in rows))
    size = (3.3 * max(len(heads), 1) + 2.2, 3.0 * max(len(places), 1))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(max(len(places), 1), max(len(heads), 1), squeeze=False, sharey=True)
    for line, place in zip(panels, places, strict=False):
        for axes, (head, how) in zip(line, heads, strict=False):
            own = [r for r in rows if (r["head"], r["chosen by"]) == (head, how)]
            _curves(axes, [row for row in own if row["read at"] == place])
            style.heading(axes, f"{head}, {place}", f"chosen by {how}")
    if rows:
        panels[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def _curves(axes: Axes, rows: Sequence[Any]) -> None:
    for kind, (colour, marker) in LOOKS.items():
        own = [row for row in rows if row["kind"] == kind]
        x, y, low, high = (
            _reading.column(own, name) for name in ("labels", "r2", "r2 low", "r2 high")
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.1, lw=0)
        axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.4, label=kind)
    for kind, colour, dashes in ((OURS, style.HELPS, "-"), ("random", style.MUTED, ":")):
        for row in (row for row in rows if row["kind"] == kind):
            axes.axhline(row["r2"], color=colour, ls=dashes, lw=1.8, label=f"{kind}, no labels")
    axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="labelled examples", ylabel="r2, held out")
    ticks = sorted({int(row["labels"]) for row in rows if row["labels"]})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
