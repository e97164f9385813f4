"""Figures of the studies that reproduce a document. May import `experiments` for `Result`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from . import _maps, _reading, style

CORRUPTIONS = ("STR", "GN")
METRICS = ("logit_difference", "probability")
WORDS = {"STR": "tokens replaced", "GN": "Gaussian noise"}


@style.styled
def patching_heads(result: Result) -> Figure:
    """The IOI heads that each corruption and metric finds: four maps on scales of their own.

    >>> patching_heads(study_patching(model, tokenizer))
    """
    _reading.expect(result, "study_patching", "patching_heads")
    figure = Figure(figsize=(15, 9), layout="constrained")
    for row, corruption in zip(figure.subplots(2, 2), CORRUPTIONS, strict=True):
        for axes, metric in zip(row, METRICS, strict=True):
            array = result.arrays[f"ioi_{corruption}_{metric}"]
            _maps.draw_heads(axes, array, None, style.POSITIVE_HELPS, label="", names=8)
            said = _found(result, corruption, metric)
            style.heading(axes, f"{WORDS[corruption]}, {metric.replace('_', ' ')}", said)
    return figure


def _found(result: Result, corruption: str, metric: str) -> str:
    for row in result.table:
        if row.get("section") == "ioi" and (row["corruption"], row["metric"]) == (
            corruption,
            metric,
        ):
            return f"two deviations find {row['positive']}; negative {row['negative']}"
    return ""


@style.styled
def patching_facts(result: Result) -> Figure:
    """The trace of facts through the MLPs: windows of layers against their summed single effects.

    >>> patching_facts(study_patching(model, tokenizer))
    """
    _reading.expect(result, "study_patching", "patching_facts")
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    for axes, corruption in zip(figure.subplots(1, 2, sharey=True), CORRUPTIONS, strict=True):
        _draw_trace(axes, result, corruption)
    return figure


def _draw_trace(axes: Axes, result: Result, corruption: str) -> None:
    prefix = f"facts_{corruption}_"
    windows = sorted(int(n.removeprefix(prefix)) for n in result.arrays if n.startswith(prefix))
    shades = np.linspace(0.25, 0.95, len(windows))
    for window, shade in zip(windows, shades, strict=True):
        effects = result.arrays[f"{prefix}{window}"]
        colour = style.POSITIVE_HELPS(0.5 + shade / 2)
        words = "single layers" if window == 1 else f"windows of {window}"
        axes.plot(np.arange(len(effects)), effects, color=colour, label=words)
        if window > 1:
            summed = _summed(result.arrays[f"{prefix}1"], window)
            axes.plot(np.arange(len(effects)), summed, color=colour, linestyle=":", linewidth=1)
    axes.axhline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.set(xlabel="layer", ylabel="recovered logit difference")
    if windows:
        axes.legend(fontsize=8)
    style.heading(axes, f"Facts: MLPs at the last subject token, {WORDS[corruption]}", TRACE_NOTE)


TRACE_NOTE = "dotted: the single layers of a window added up"


def _summed(single: np.ndarray, window: int) -> np.ndarray:
    n = len(single)
    return np.asarray(
        [single[max(0, i - window // 2) : i + (window + 1) // 2].sum() for i in range(n)]
    )


@style.styled
def patching_directions(result: Result) -> Figure:
    """Noise against denoise, every head a point.

    >>> patching_directions(study_patching(model, tokenizer))
    """
    _reading.expect(result, "study_patching", "patching_directions")
    figure = Figure(figsize=(6, 5.8), layout="constrained")
    axes = figure.add_subplot()
    pair = [result.arrays[f"ioi_{name}_logit_difference"] for name in ("STR", "noising")]
    _scatter(axes, pair[0], pair[1], "importance when denoising", "importance when noising")
    style.heading(axes, "IOI heads in both directions", "on the grey line the two agree")
    return figure


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str) -> None:
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    axes.plot(ends, ends, color=style.FAINT, linewidth=1, zorder=0)
    axes.scatter(x.ravel(), y.ravel(), s=14, color=style.HELPS, alpha=0.7, linewidths=0)
    size = np.maximum(np.abs(x), np.abs(y))
    if x.ndim == 2:
        for flat in np.argsort(-size.ravel())[:8]:
            layer, head = np.unravel_index(flat, x.shape)
            place = (float(x[layer, head]), float(y[layer, head]))
            axes.annotate(f"{layer}.{head}", place, (4, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)


@style.styled
def attribution_scatter(result: Result) -> Figure:
    """Every estimator against exact patching, heads at z.

    >>> attribution_scatter(compare_attribution(model, prompts))
    """
    _reading.expect(result, "compare_attribution", "attribution_scatter")
    names = {"atp_z": "AtP", "atp_star_z": "AtP*", "relp_z": "RelP", "ig_inputs_z": "IG, inputs"}
    names |= {"ig_site_z": "IG, site"}
    kept = {key: words for key, words in names.items() if key in result.arrays}
    figure = Figure(figsize=(3.6 * max(len(kept), 1), 3.9), layout="constrained")
    for axes, (key, words) in zip(
        np.ravel(figure.subplots(1, len(kept))), kept.items(), strict=True
    ):
        _scatter(axes, result.arrays["exact_z"], result.arrays[key], "exact", "estimate")
        style.heading(axes, words, _recall(result, words))
    return figure


def _recall(result: Result, words: str) -> str:
    for row in result.table:
        if row.get("estimator") == words.replace(",", "") and row.get("site") == "z":
            return f"rank {row['rank']:.2f}, recalls {row['recall']:.0%} of the top 20"
    return ""
