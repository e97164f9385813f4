"""Figures of dictionaries judged by control. May import `experiments` for `Result`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ..experiments import Result
from . import _reading, style

MARKERS = {
    "supervised": "P",
    "supervised, means": "X",
    "l1": "o",
    "gated": "s",
    "topk": "^",
    "batchtopk": "v",
    "jumprelu": "D",
    "frozen decoder": "x",
    "random directions": ".",
    "neurons": "+",
    "PCA": "*",
}
"""Of kinds of dictionary; shipped ones are hexagons."""

BASELINES = ("frozen decoder", "random directions", "neurons", "PCA")
"""What a dictionary has to beat, drawn in grey."""

TASK, TRAINED = ("l1", "gated", "topk", "batchtopk", "jumprelu"), colormaps["viridis"]
"""Task dictionaries, each in a colour of its own; codes are orange, shipped ones blue."""

MOST = 6
"""Panels, at most."""


@style.styled
def control_plane(result: Result) -> Figure:
    """Test 2: edit accuracy against the weight taken away, a panel for every attribute at a
    cross-section.

    >>> control_plane(load_result("runs/principled-evaluation-1a2b3c4d"))
    """
    if result.kind not in ("study_principled", "principled"):
        _reading.expect(result, "study_principled", "control_plane")
    rows = [r for r in result.table if r.get("section") == "control" and r.get("edit")]
    panels = list(dict.fromkeys((r["cross-section"], r["attribute"]) for r in rows))[:MOST]
    n = max(1, len(panels))
    wide = min(n, 3)
    figure = Figure(figsize=(5.0 * wide + 1.4, 4.4 * -(-n // wide)), layout="constrained")
    grid = figure.subplots(-(-n // wide), wide, squeeze=False).ravel()
    for axes, (section, attribute) in zip(grid, panels, strict=False):
        own = [r for r in rows if (r["cross-section"], r["attribute"]) == (section, attribute)]
        _draw(axes, own)
        style.heading(axes, f"{attribute} at {section}", "larger: more moves; hollow: by labels")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    handles = {label: handle for pairs in named for handle, label in pairs}
    if handles:
        figure.legend(handles.values(), handles, fontsize=8, loc="outside right center")
    return figure


def _draw(axes: Axes, rows: Sequence) -> None:
    none = float(rows[0]["no intervention"])
    axes.axhline(none, color=style.FAINT, lw=1.2, zorder=0)
    axes.annotate(
        "no intervention",
        (0.98, none),
        (0, 3),
        textcoords="offset points",
        xycoords=("axes fraction", "data"),
        fontsize=7.5,
        ha="right",
        color=style.MUTED,
    )
    for name in dict.fromkeys(str(r["dictionary"]) for r in rows):
        _draw_kind(axes, name, [r for r in rows if r["dictionary"] == name])
    axes.set(xlabel="weight removed", ylabel="edit accuracy", ylim=(-0.03, 1.03))


def _draw_kind(axes: Axes, name: str, rows: Sequence) -> None:
    whole = [r for r in rows if r["weight"] is None]
    for row in whole:  # a subspace takes no weight away
        axes.axhline(row["accuracy"], color=style.MUTED, lw=0.8, ls=":")
        axes.annotate(
            name,
            (0.02, row["accuracy"]),
            (0, 3),
            textcoords="offset points",
            xycoords=("axes fraction", "data"),
            fontsize=7.5,
            color=style.MUTED,
        )
    for edit, filled in (("nearest", True), ("supervised", True), ("by labels", False)):
        own = [r for r in rows if r["edit"] == edit and r["weight"] is not None]
        if not own:
            continue
        colour = _colour(name)
        marker, size = MARKERS.get(name, "h"), [18 + 9 * float(r["k"]) for r in own]
        faces: Any = {"facecolors": colour if filled else "none"} if marker not in "x+" else {}
        axes.scatter(
            [r["weight"] for r in own],
            [r["accuracy"] for r in own],
            s=np.minimum(size, 120),
            marker=marker,
            edgecolors=colour if marker not in "x+" else None,
            color=None if marker not in "x+" else colour,
            linewidths=1.1,
            alpha=0.8,
            label=name.partition("/")[0] if filled else None,
            **faces,
        )


def _colour(name: str) -> str:
    if name.startswith("supervised"):
        return style.OPPOSES
    if name in BASELINES:
        return style.MUTED
    return to_hex(TRAINED(TASK.index(name) / len(TASK))) if name in TASK else style.HELPS


@style.styled
def phenomena_picture(result: Result) -> Figure:
    """Over-splitting and occlusion in the toys where the truth is known.

    >>> phenomena_picture(load_result("runs/principled-evaluation-1a2b3c4d"))
    """
    _reading.expect(result, "study_principled", "phenomena_picture")
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [r for r in result.table if r.get("section") == "splitting toy"]
    for name, colour in (("ideal", style.OPPOSES), ("rival", style.HELPS)):
        values = _reading.column(rows, name)
        left.plot(_reading.column(rows, "penalty"), values, "o-", color=colour, label=name)
    left.set(xlabel="penalty", ylabel="loss")
    left.legend(fontsize=8.5)
    style.heading(left, "Two clusters", "two ideal features against a thousand random ones")
    _draw_occlusion(right, [r for r in result.table if r.get("section") == "occlusion toy"])
    return figure


def _draw_occlusion(axes: Axes, rows: Sequence) -> None:
    penalties = list(dict.fromkeys(r["penalty"] for r in rows))
    shades = np.linspace(0.35, 1.0, max(1, len(penalties)))
    for penalty, shade in zip(penalties, shades, strict=True):
        own = [r for r in rows if r["penalty"] == penalty]
        x = _reading.column(own, "ratio")
        for name, colour in (("stronger", style.OPPOSES), ("weaker", style.HELPS)):
            y = _reading.column(own, f"{name}, F1 0.9")
            low, high = (_reading.column(own, f"{name}, F1 0.9 {end}") for end in ("low", "high"))
            axes.plot(x, y, "o-", color=colour, alpha=shade, label=f"{name}, penalty {penalty:g}")
            axes.fill_between(x, low, high, color=colour, alpha=0.12 * shade, lw=0)
    axes.set(xlabel="ratio of norms", ylabel="share of values told, F1 of 0.9", ylim=(-0.03, 1.03))
    axes.legend(fontsize=7.5)
    style.heading(axes, "Two attributes, one stronger", "darker: a larger penalty; bands: seeds")
