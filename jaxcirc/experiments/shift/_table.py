"""The table of SHIFT: means over seeds with intervals, the paper's rows, features, claims.

May import `tasks` for intervals.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ...tasks import Interval, interval
from .._claim import Claim
from .._result import Row
from ._measure import MEASURES, Measured, binomial, measured, over_seeds
from ._page import JudgePage
from ._published import PUBLISHED, SOURCE
from ._section import METHODS, Found
from ._texts import Task


@dataclasses.dataclass(frozen=True)
class Part:
    """A task that was run: by seed, what was found and what every method answers; its page, and of
    every feature whether it goes."""

    task: Task
    found: Sequence[Found]
    said: Sequence[Mapping[str, Int[np.ndarray, "text"]]]
    page: JudgePage
    ablate: Mapping[str, bool]

    def of(self, method: str) -> list[Measured]:
        """A method's numbers, seed by seed."""
        pairs = zip(self.said, self.found, strict=True)
        return [measured(said[method], one.label, one.attribute) for said, one in pairs]

    @property
    def gone(self) -> list[int]:
        """How many features every seed ablates."""
        return [sum(self.ablate[n] for n in one.chosen["head"].names) for one in self.found]


@dataclasses.dataclass(frozen=True)
class Table:
    """What a result is made of."""

    numbers: Mapping[str, Interval]
    rows: Sequence[Row]
    arrays: Mapping[str, np.ndarray]
    axes: Mapping[str, Sequence[str]]
    notes: Sequence[str]


def table_of(parts: Mapping[str, Part]) -> Table:
    """Everything that is told of some tasks."""
    numbers: dict[str, Interval] = {}
    rows: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        found = {method: part.of(method) for method in METHODS}
        for method, seeds in found.items():
            row, own = _row(name, method, seeds)
            rows.append(row)
            numbers |= {f"{name}/{method}/{measure}": own[measure] for measure in MEASURES}
        arrays[f"{name}/groups"] = np.asarray(
            [[one.groups for one in seeds] for seeds in found.values()], np.float32
        )
    claims = [claim for part in parts.values() for claim in claims_of(part)]
    rows += [*published_rows(), *(row for part in parts.values() for row in feature_rows(part))]
    rows += [claim.row() for claim in claims]
    axes = {name: ("method", "seed", "group") for name in arrays}
    notes = [*(note for part in parts.values() for note in _notes(part)), *NOTES]
    return Table(numbers, rows, arrays, axes, notes)


def _row(task: str, method: str, seeds: Sequence[Measured]) -> tuple[Row, dict[str, Interval]]:
    own = {measure: over_seeds([getattr(one, measure) for one in seeds]) for measure in MEASURES}
    row: dict[str, Any] = {"section": "shift", "task": task, "method": method}
    for measure, value in own.items():
        row |= {measure: value.value, f"{measure} low": value.low, f"{measure} high": value.high}
    size = seeds[0].size
    row |= {"seeds": len(seeds), "texts": 4 * size, "group": size}
    return row | {"worst, binomial": binomial(own["worst"].value, size)}, own


def published_rows() -> list[Row]:
    """What the authors report, on another task and other models."""
    return [
        {
            "section": "published",
            "task": "bias-in-bios",
            "method": method,
            **dict(zip(MEASURES, values, strict=True)),
            "model": model,
            "source": SOURCE,
        }
        for model, rows in PUBLISHED.items()
        for method, values in rows.items()
    ]


def feature_rows(part: Part) -> list[Row]:
    """The features that were judged."""
    return [
        {
            "section": "feature",
            "task": part.task.name,
            "feature": str(each.node),
            "verdict": "ablate" if each.verdict.ablate else "keep",
            "importance": each.importance,
            "seeds": each.seeds,
            "peaks": each.peaks,
            "why": each.verdict.why,
        }
        for each in part.page.features
    ]


_HIGH = "SHIFT, lowest places left out"


def claims_of(part: Part) -> list[Claim]:
    """What the paper says, and what its critique says, of the worst group."""
    return [
        Claim(
            f"{part.task.name}: {text}",
            f"worst group, {first} less {second}, in points",
            _difference(part, first, second),
            baseline,
            floor,
            paper,
        )
        for text, first, second, baseline, floor, paper in _COMPARED
    ]


_COMPARED = (
    ("SHIFT frees the head", "SHIFT", "original", 0.0, 5.0, "51.6 and 31.8"),
    ("judged features do, random ones do not", "SHIFT", "random features", 0.0, 5.0, ""),
    ("a retrained head does better", "SHIFT + retrain", "SHIFT", 0.0, 0.0, "13.0 and 42.9"),
    ("features beat neurons", "feature skyline", "neuron skyline", 0.0, 5.0, "34.5 and 52.1"),
    ("deleting words does as well (within 5 points)", "word deletion", "SHIFT", -5.0, 0.0, "yes"),
    ("features above the lowest places do it too", _HIGH, "original", 0.0, 5.0, "disputed"),
)
"""Statement, the two methods compared, baseline, floor, and the paper's figures for its two
models (of the last two: what was said afterwards)."""


def _difference(part: Part, first: str, second: str) -> Interval:
    """Of two methods' worst groups, seed by seed."""
    values = [a.worst - b.worst for a, b in zip(part.of(first), part.of(second), strict=True)]
    return interval(np.asarray(values))


def _notes(part: Part) -> list[str]:
    chosen = [len(one.chosen["head"].names) for one in part.found]
    shares = [one.facts["error_share"] for one in part.found]
    gaps = [(one.facts["gap"], one.facts["effect"]) for one in part.found]
    missed = max((abs(gap / effect) for gap, effect in gaps if gap and effect), default=0.0)
    size = part.of("original")[0].size
    said = [
        f"{part.task.name}: of {_span(chosen)} features chosen, {_span(part.gone)} are ablated"
        f" ({part.page.judge}); errors carry {np.mean(shares):.0%} of all effects by size, and the"
        f" scores miss the effect of a residual place by up to {missed:.0%}; a group"
        f" of the test has {size} texts, so that its 50 % has a standard error of"
        f" {binomial(50, size):.1f} points in a seed.",
    ]
    if not any(part.gone):
        said.append(f"{part.task.name}: no feature was judged to be about the attribute.")
    return said


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


NOTES = (
    "Profession: accuracy on the label. Attribute: how often the answer agrees with the attribute,"
    " ideally 50. Worst: accuracy in the worst of four groups, which lies below the mean of groups"
    " by chance too. Intervals are over seeds: texts, heads and features are drawn anew.",
    "The lowest places are those that come first in the run; they hold the embedding only where the"
    " basis begins there.",
)
