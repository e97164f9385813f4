"""Parts (a), (c), (d), (e): which heads each corruption and metric finds."""

from collections.abc import Mapping, Sequence

import numpy as np

from ... import patching
from ..._types import Direction
from ...circuits import HeadClasses
from ...patching import Effects, detect, jaccard
from ...tasks import METRICS, Interval, Prompts, interval_of
from .._claim import Claim
from .._result import Row

COMPARED = {name: METRICS[name] for name in ("probability", "logit_difference", "kl")}
SHORT = {"probability": "p", "logit_difference": "ld", "kl": "kl"}
THRESHOLDS = (1.5, 2.0, 3.0)

Sweeps = Mapping[str, Mapping[str, Effects]]
"""Head sweeps by corruption, then by metric."""


def sweep_heads(
    model, prompts: Prompts, direction: Direction = "denoise", progress=None
) -> dict[str, Effects]:
    """Every head at all positions, under the metrics compared."""
    return patching.sweep(model, prompts, "z", COMPARED, direction, progress=progress)


def head_rows(sweeps: Sweeps, part: str) -> list[Row]:
    """A row for every corruption and metric: the heads found, and how stable that is."""
    reference = detect(next(iter(sweeps.values()))["logit_difference"]).cells()
    rows = []
    for corruption, by_metric in sweeps.items():
        for metric, effects in by_metric.items():
            found = detect(effects)
            heavy = detect(effects, "mad")
            rows.append(
                {
                    "section": part,
                    "corruption": corruption,
                    "metric": metric,
                    "positive": names(found.cells("positive")),
                    "negative": names(found.cells("negative")),
                    "n at 1.5, 2, 3 sd": ", ".join(
                        str(len(detect(effects, "sd", t).cells())) for t in THRESHOLDS
                    ),
                    "n by mad": len(heavy.cells()),
                    "jaccard": jaccard(found.cells(), reference),
                    "base": float(np.mean(effects.base)),
                    "source": float(np.mean(effects.source)),
                }
            )
    return rows


def names(cells: Sequence[tuple[int, ...]]) -> str:
    return " ".join(".".join(map(str, cell)) for cell in cells) or "-"


def class_rows(classes: HeadClasses, sweeps: Sweeps) -> list[Row]:
    """A row for every class of head: which heads, and how many each setting finds."""
    rows: list[Row] = []
    for name, heads in classes.heads.items():
        row: dict[str, str | int | float | None] = {
            "section": "class",
            "class": name,
            "heads": " ".join(map(str, heads)) or "-",
        }
        for corruption, by_metric in sweeps.items():
            for metric, effects in by_metric.items():
                found = set(detect(effects).cells())
                hits = sum((node.layer, node.index) in found for node in heads)
                row[f"{corruption} {SHORT[metric]}"] = f"{hits}/{len(heads)}"
        rows.append(row)
    return rows


def negatives(effects: Effects):
    """How many negative heads the two-deviation rule finds, as a statistic of mean importances."""

    def count(mean: np.ndarray) -> float:
        return float((mean - mean.mean() <= -2 * mean.std()).sum())

    return count, np.asarray(effects.importance), np.asarray(effects.templates)


def metric_claims(sweeps: Sweeps) -> list[Claim]:
    """Probability misses negative heads; noise and replacement find different heads."""
    claims = []
    for corruption, by_metric in sweeps.items():
        count, by_logits, templates = negatives(by_metric["logit_difference"])
        _, by_probability, _ = negatives(by_metric["probability"])
        found = interval_of(
            lambda ld, p, count=count: count(ld) - count(p),
            [by_logits, by_probability],
            [templates, templates],
        )
        claims.append(
            Claim(
                f"IOI, {corruption}: probability misses negative heads",
                "negative heads found by logit difference, less those found by probability",
                found,
                floor=1,
                paper="1 of 2 missed under STR, 0 under GN",
            )
        )
    if {"STR", "GN"} <= sweeps.keys():
        claims.append(_disagreement(sweeps))
    return claims


def _disagreement(sweeps: Sweeps) -> Claim:
    effects = [sweeps[corruption]["logit_difference"] for corruption in ("STR", "GN")]

    def differ(one: np.ndarray, other: np.ndarray) -> float:
        left, right = (np.abs(x - x.mean()) >= 2 * x.std() for x in (one, other))
        union = (left | right).sum()
        return 1 - float((left & right).sum() / union) if union else 0.0

    found = interval_of(
        differ,
        [np.asarray(e.importance) for e in effects],
        [np.asarray(e.templates) for e in effects],
    )
    text = "IOI: noise and replacement find different heads (logit difference)"
    return Claim(text, "1 - Jaccard of the two sets", found, floor=0.2, paper="sets differ")


def direction_rows(noise: Effects, denoise: Effects) -> tuple[list[Row], Interval]:
    """Noise against denoise: the heads of either, and the correlation over heads."""
    cells = {name: detect(e).cells() for name, e in (("noise", noise), ("denoise", denoise))}
    rows: list[Row] = [
        {
            "section": "direction",
            "direction": name,
            "found": names(found),
            "found by this alone": names(sorted(set(found) - set(cells[other]))),
        }
        for (name, found), other in zip(cells.items(), ("denoise", "noise"), strict=True)
    ]
    correlation = interval_of(
        lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1],
        [np.asarray(e.importance) for e in (noise, denoise)],
        [np.asarray(e.templates) for e in (noise, denoise)],
    )
    return rows, correlation


def task_rows(model, task: str, replaced: Prompts, noised: Prompts, progress) -> list[Row]:
    """Part (c): the heads that each corruption finds on a further task."""
    sweeps = {
        name: patching.sweep(model, prompts, "z", COMPARED, "denoise", progress=progress)
        for name, prompts in (("STR", replaced), ("GN", noised))
    }
    effects = [one for by_metric in sweeps.values() for one in by_metric.values()]
    rows = head_rows(sweeps, "task")
    return [{"task": task, **_peak(e), **row} for e, row in zip(effects, rows, strict=True)]


def _peak(effects: Effects) -> Row:
    """The head with the largest mean effect, and how much of the way to the source it goes."""
    mean = np.asarray(effects.mean(), np.float64)
    best = np.unravel_index(np.abs(mean).argmax(), mean.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = mean[best] / np.asarray(effects.source - effects.base, np.float64).mean()
    return {"peak": names([tuple(map(int, best))]), "peak, recovered": float(share)}
