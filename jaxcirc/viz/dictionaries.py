"""The figures of dictionaries judged, one or a suite: how often features fire, and what they cost
beside baselines. May import `experiments` for `Result`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from ..experiments.dictionaries import EDGES
from . import _reading, style

OWN = "dictionary"


@style.styled
def dictionary_picture(result: Result) -> Figure:
    """Densities of all features, nats of the dictionary and its baselines, nearest directions.

    >>> dictionary_picture(evaluate(model, dictionary, contexts, "resid_post.12"))
    """
    _reading.expect(result, "dictionary", "dictionary_picture")
    figure = Figure(figsize=(14.5, 4.6), layout="constrained")
    densities, nats, nearest = figure.subplots(1, 3, width_ratios=[1.1, 1.1, 0.9])
    _draw_densities(densities, result)
    _draw_nats(nats, result)
    _draw_nearest(nearest, result)
    return figure


def _draw_densities(axes: Axes, result: Result) -> None:
    density = np.asarray(result.arrays["density"], float)
    alive = density[density > 0]
    axes.stairs(result.arrays["density_counts"], EDGES, fill=True, color=style.HELPS)
    axes.set_xlim(min(-5.0, float(np.log10(alive.min(initial=1)))) - 0.2, 0.05)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * 10**value:.6g}%")
    axes.set(xlabel="share of tokens a feature is active on", ylabel="features")
    dead, dense = (result.numbers[name].value for name in ("dead", "dense"))
    note = f"{_reading.percent(dead)} dead, {_reading.percent(dense)} on more than a tenth"
    style.heading(axes, f"Density of {len(density):,} features", note)


def _draw_nats(axes: Axes, result: Result) -> None:
    rows = [row for row in result.table if row.get("section") == "dictionary"]
    at = np.arange(len(rows))[::-1]
    values = _reading.column(rows, "nats")
    colours = [style.HELPS if row["dictionary"] == OWN else style.FAINT for row in rows]
    axes.barh(at, values, color=colours, height=0.66)
    low, high = (_reading.column(rows, f"nats {end}") for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    axes.hlines(at[known], low[known], high[known], color=style.INK, lw=1.1)
    for y, value, end in zip(at, values, np.where(known, high, values), strict=True):
        axes.annotate(
            f"{value:.3g}", (max(end, value, 0), y), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(at, [_name(row) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.18)
    axes.set(xlabel="nats a token", ylim=(-0.7, len(rows) - 0.3))
    l0 = result.numbers["l0"].value
    style.heading(axes, "Cross-entropy added by the splice", f"errors dropped; L0 {l0:.3g}")


def _name(row) -> str:
    words = {OWN: "this dictionary", "random": "random, same L0"}
    name = str(row["dictionary"])
    return words.get(name, f"PCA, {name.removeprefix('pca-')} directions")


def _draw_nearest(axes: Axes, result: Result) -> None:
    similarity = np.asarray(result.arrays["similarity"], float)
    axes.hist(
        similarity, np.linspace(min(-0.2, similarity.min()), 1, 49).tolist(), color=style.MUTED
    )
    axes.set(xlabel="largest cosine to another direction", ylabel="features")
    style.heading(axes, "Nearest directions", f"median {np.median(similarity):.2f}")


@style.styled
def suite_picture(result: Result) -> Figure:
    """What every dictionary of a suite costs beside its baselines, a panel a text.

    >>> suite_picture(table(model, loaded, texts))
    """
    _reading.expect(result, "suite", "suite_picture")
    texts = list(dict.fromkeys(str(row["section"]) for row in result.table))
    places = list(dict.fromkeys(str(row["place"]) for row in result.table))
    size = (2.2 + 5.4 * len(texts), 1.7 + 0.36 * len(places))
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(1, len(texts), squeeze=False, sharey=True)[0]
    for axes, text in zip(drawn, texts, strict=True):
        _draw_suite(axes, [row for row in result.table if row["section"] == text], places)
        style.heading(axes, text, "cross-entropy added by the splice; errors dropped")
    figure.axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8.5)
    return figure


_MARKS = {OWN: ("o", style.HELPS, 42), "random": ("x", style.MUTED, 26)}
_OTHERS = (("s", 22), ("D", 18), ("^", 22), ("v", 22))
"""Of principal directions, by how many."""


def _draw_suite(axes: Axes, rows, places: list[str]) -> None:
    others = iter(_OTHERS * len(rows))
    for name in dict.fromkeys(str(row["dictionary"]) for row in rows):
        own = [row for row in rows if row["dictionary"] == name]
        y = np.asarray([places.index(str(row["place"])) for row in own], float)
        value, low, high = (_reading.column(own, f"nats{end}") for end in ("", " low", " high"))
        marker, size = next(others) if name not in _MARKS else _MARKS[name][::2]
        colour = _MARKS[name][1] if name in _MARKS else style.OPPOSES
        axes.hlines(y, np.maximum(low, LEAST), high, colors=colour, lw=1.1, alpha=0.6)
        x, look = np.maximum(value, LEAST), {"c": colour, "marker": marker}
        axes.scatter(x, y, s=size, label=_name(own[0]), **look)
    axes.set_xscale("log")
    axes.set_yticks(range(len(places)), places)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.grid(axis="both", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("nats a token")


LEAST = 1e-3
"""Nats below this are drawn there."""
