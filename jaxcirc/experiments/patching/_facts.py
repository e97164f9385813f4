"""Part (b): facts through the MLPs: windows against sums, noise against replacement."""

from collections.abc import Mapping, Sequence

import numpy as np

from ... import patching
from ...patching import Effects
from ...tasks import METRICS, Prompts, interval_of
from .._claim import Claim
from .._result import Row

EARLY = 3  # layers 0-2 mostly restore the token itself, and are shown apart
SPAN_METRICS = {name: METRICS[name] for name in ("logit_difference", "probability")}

Traces = Mapping[str, Mapping[int, Mapping[str, Effects]]]
"""Traces over layers by corruption, then window, then metric."""


def trace(
    model, prompts: Prompts, windows: Sequence[int], progress=None
) -> dict[int, dict[str, Effects]]:
    """MLPs at the last subject token, single (window 1) and in windows of layers, denoised."""
    windows = [1, *(w for w in windows if w <= model.n_layers)]
    options = {"direction": "denoise", "pos": "last", "progress": progress}
    return {
        window: patching.sweep(model, prompts, "mlp_out", SPAN_METRICS, window=window, **options)
        for window in windows
    }


def first_late(window: int, n_layers: int) -> int:
    """The first layer whose window touches none of the early ones."""
    return min(EARLY + window // 2, n_layers - 1)


def peak(mean: np.ndarray, first: int) -> np.floating:
    """The largest effect from a layer on."""
    return mean[first:].max()


def trace_rows(traces: Traces) -> list[Row]:
    """A row for every corruption and window: where the peak is, and against the sum."""
    rows: list[Row] = []
    for corruption, by_window in traces.items():
        for window, by_metric in by_window.items():
            effects, single = by_metric["logit_difference"], by_window[1]["logit_difference"]
            share = float((effects.source - effects.base).mean())
            mean = np.asarray(effects.mean()) / share
            summed = np.asarray(single.summed(window).mean()) / share
            first = first_late(window, len(mean))
            late = mean[first:]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = float(late.max() / summed[first:].max())
            rows.append(
                {
                    "section": "facts",
                    "corruption": corruption,
                    "window": window,
                    "peak layer": int(mean.argmax()),
                    "peak": float(mean.max()),
                    "late peak layer": int(late.argmax()) + first,
                    "late peak": float(late.max()),
                    "late peak of sums": float(summed[first:].max()),
                    "window / sum": ratio,
                }
            )
    return rows


PAPER_WINDOWS = {3: "1.40", 5: "1.75", 10: "1.59"}


def trace_claims(traces: Traces) -> list[Claim]:
    """Noise has the higher peak; windows exceed the sum of their layers."""
    claims = []
    single = {name: by_window[1]["logit_difference"] for name, by_window in traces.items()}
    for first, where in ((0, "all layers"), (EARLY, f"layers from {EARLY}")):
        claims.append(
            Claim(
                f"facts: the MLP peak is higher under GN than under STR ({where})",
                "ratio of peaks of recovered logit difference",
                _ratio(single["GN"], single["STR"], first),
                baseline=1.0,
                paper="2 to 5",
            )
        )
    for corruption, by_window in traces.items():
        for window in list(by_window)[1:]:
            effects = by_window[window]["logit_difference"]
            summed = by_window[1]["logit_difference"].summed(window)
            claims.append(
                Claim(
                    f"facts, {corruption}: a window of {window} exceeds its summed layers"
                    f" (none before {EARLY})",
                    "ratio of peaks",
                    _ratio(effects, summed, first_late(window, effects.raw.shape[1])),
                    baseline=1.0,
                    floor=0.2,
                    paper=PAPER_WINDOWS.get(window, "") if corruption == "GN" else "",
                )
            )
    return claims


def _ratio(upper: Effects, lower: Effects, first: int):
    """The ratio of two peaks of recovered shares, templates resampled."""

    def statistic(a, a_base, a_source, b, b_base, b_source) -> float:
        return float(peak(a / (a_source - a_base), first) / peak(b / (b_source - b_base), first))

    parts = [x for e in (upper, lower) for x in (e.raw, e.base, e.source)]
    clusters = [np.asarray(e.templates) for e in (upper, lower) for _ in range(3)]
    return interval_of(statistic, [np.asarray(x) for x in parts], clusters)


def concentration(model, prompts: Prompts, window: int, corruption: str, progress=None):
    """Probability over-concentrates: the last subject token against the one before it.

    Uses prompts whose subject has two tokens or more; returns (row, claim), or None if there are
    fewer than four.
    """
    long = prompts.take(np.flatnonzero(np.asarray(prompts.span("before")).any(axis=1)))
    if len(long) < 4:
        return None
    found = {
        pos: patching.sweep(
            model,
            long,
            "mlp_out",
            SPAN_METRICS,
            "denoise",
            pos=pos,
            window=window,
            progress=progress,
        )
        for pos in ("last", "before")
    }

    def ratio(last: np.ndarray, before: np.ndarray) -> np.floating:
        return last.max() / before.max()

    def of(metric: str) -> list[np.ndarray]:
        return [np.asarray(found[pos][metric].raw) for pos in ("last", "before")]

    templates = [np.asarray(long.templates)] * 4
    every = [*of("probability"), *of("logit_difference")]
    excess = interval_of(lambda a, b, c, d: float(ratio(a, b) / ratio(c, d)), every, templates)
    row: Row = {
        "section": "concentration",
        "corruption": corruption,
        "window": window,
        "n": len(long),
        "last / before, probability": float(ratio(*(x.mean(axis=0) for x in of("probability")))),
        "last / before, logit difference": float(
            ratio(*(x.mean(axis=0) for x in of("logit_difference")))
        ),
    }
    claim = Claim(
        f"facts, {corruption}: probability concentrates on the last subject token",
        "(last / before) under probability, over the same under logit difference",
        excess,
        baseline=1.0,
        floor=0.2,
        paper={"STR": "4.33 / 1.22", "GN": "1.74 / 0.77"}[corruption],
    )
    return row, claim
