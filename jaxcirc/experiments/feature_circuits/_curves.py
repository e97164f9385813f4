"""Faithfulness and completeness against nodes and against scalars, for features and their rivals.

Marks et al. 2024 (arXiv 2403.19647), section 3.3 and its figures; circuits are found on one split
and judged on the other. An error node is one node but as many scalars as its place is wide, so both
axes are told. May import `circuits`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..._types import Progress
from ...circuits.features import (
    Basis,
    Faithfulness,
    FeatureScores,
    errors_of,
    faithfulness,
    random_like,
    select,
)
from ...circuits.features._basis import CUTS
from ...tasks import Interval, interval_of
from .._result import Row
from ._claims import LEVEL, Curve, claims_of, half_of, share_of
from ._prompts import Split, clusters
from ._store import Section

STEPS = (1, 2, 5)

ERRORS = ("default", "attn+mlp removed", "removed", "kept")
"""What becomes of errors; the second ablates those that are not residual."""


def sizes_to(most: int, n: int) -> list[int]:
    """At most n sizes in a 1-2-5 row, and `most`; the smallest are left out first.

    >>> sizes_to(300, 4)
    [50, 100, 200, 300]
    """
    row = [step * 10**power for power in range(8) for step in STEPS]
    return [*[size for size in row if size < most][-(n - 1) :], most] if most else []


def errors_rule(basis: Basis, errors: str) -> Any:
    """What `faithfulness` takes for one of `ERRORS`."""
    if errors != "attn+mlp removed":
        return errors
    return tuple(dict.fromkeys(p.site for p in basis.places if p.site not in CUTS))


def curves_of(
    model,
    split: Split,
    bases: Mapping[str, Basis],
    scores: Mapping[str, FeatureScores],
    *,
    circuits: int = 12,
    draws: int = 3,
    start: int = 0,
    value: str = "mean",
    metric: Any = "logit_difference",
    batch: int = 16,
    progress: Progress | None = None,
) -> Section:
    """Curves of every basis, of features under every rule for errors, and of random features.

    - `scores`: found on the discovery split, by kind as `bases`. `value`: what nodes outside are
      set to ("mean", "resample" or "zero"); means are those of the discovery split's corrupt
      prompts. `start`: places below this layer are free.

    Returns a section: rows "curve", "half" and "errors only", claims, and arrays of the metric.
    """
    options = {"metric": metric, "start": start, "value": value, "batch": batch}
    options |= {"reference": split.discovery if value == "mean" else None}
    jobs: list[tuple[str, str]] = [("features", errors) for errors in ERRORS]
    jobs += [(kind, "default") for kind in bases if kind != "features"]
    found, total = [], len(jobs) + 2
    for i, (kind, errors) in enumerate(jobs):
        found.append(_curve(model, split, bases[kind], scores, kind, errors, circuits, options))
        _told(progress, i + 1, total)
    features = scores["features"]
    random = _random(model, split, bases["features"], features, circuits, draws, options)
    _told(progress, total - 1, total)
    alone = _alone(model, split, bases["features"], features, options)
    _told(progress, total, total)
    name = split.name
    rows = [row for curve in [*found, random] for row in curve_rows(curve, name)]
    rows += [{"section": "half", "task": name, **half_row(curve)} for curve in found]
    rows.append({"section": "errors only", "task": name, **_point(alone, 0)})
    arrays = {k: v for curve in found for k, v in _arrays(curve).items()}
    return Section(rows, arrays, claims_of(found, name))


def _told(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def judged_columns(scores: FeatureScores, start: int) -> Int[np.ndarray, "node"]:
    """Nodes with an effect at places that are judged, best first."""
    best = select(scores, scores.layout.size)
    place, _, _ = scores.layout.split(best)
    layers = np.asarray([place.layer for place in scores.layout.places])
    return best[layers[place] >= start]


def _sets(scores: FeatureScores, circuits: int, start: int) -> list[np.ndarray]:
    best = judged_columns(scores, start)
    return [best[:size] for size in sizes_to(len(best), circuits)]


def _curve(
    model,
    split: Split,
    basis: Basis,
    scores: Mapping[str, FeatureScores],
    kind: str,
    errors: str,
    circuits: int,
    options: Mapping[str, Any],
) -> Curve:
    own = scores[kind]
    found = faithfulness(
        model,
        split.evaluation,
        basis,
        own.layout,
        _sets(own, circuits, options["start"]),
        errors=errors_rule(basis, errors),
        complement=errors == "default",
        **options,
    )
    return Curve(kind, errors, found, clusters(split.evaluation))


def _random(
    model, split: Split, basis: Basis, scores: FeatureScores, circuits: int, draws: int, options
) -> Curve:
    """Random features in the circuits' sizes, their errors as they are; the mean of the draws."""
    sets = _sets(scores, circuits, options["start"])
    every = [random_like(scores, chosen, seed) for seed in range(draws) for chosen in sets]
    found = faithfulness(
        model, split.evaluation, basis, scores.layout, every, complement=False, **options
    )
    values = found.values.reshape(draws, len(sets), -1).mean(axis=0)
    n, templates = len(sets), clusters(split.evaluation)
    faithful = tuple(_faithful(row, found, templates) for row in values)
    sizes, scalars = found.sizes[:n], found.scalars[:n]
    mean = dataclasses.replace(
        found, sizes=sizes, scalars=scalars, faithful=faithful, values=values
    )
    return Curve("random features", "default", mean, templates)


def _faithful(values: Float[np.ndarray, "example"], found: Faithfulness, templates) -> Interval:
    columns = [values, found.empty, found.full]
    return interval_of(share_of, columns, [templates] * 3)


def _alone(model, split: Split, basis: Basis, scores: FeatureScores, options) -> Curve:
    """All errors and no feature."""
    columns = [errors_of(scores.layout)]
    found = faithfulness(model, split.evaluation, basis, scores.layout, columns, **options)
    return Curve("errors only", "kept", found, clusters(split.evaluation))


def curve_rows(curve: Curve, task: str) -> list[Row]:
    """A row for every size."""
    n = len(curve.found.sizes)
    return [{"section": "curve", "task": task, **_point(curve, i)} for i in range(n)]


def _point(curve: Curve, i: int) -> Row:
    found = curve.found
    row: dict[str, Any] = {
        "kind": curve.kind,
        "errors": curve.errors,
        "nodes": found.sizes[i],
        "scalars": found.scalars[i],
        "faithfulness": found.faithful[i].value,
        "faithfulness low": found.faithful[i].low,
        "faithfulness high": found.faithful[i].high,
    }
    if found.complement:
        row |= {"without it": found.complement[i].value}
        row |= {"without it low": found.complement[i].low}
        row |= {"without it high": found.complement[i].high}
    return row


def half_row(curve: Curve) -> Row:
    """Nodes and scalars at a faithfulness of one half, and the best that is reached.

    With the interval of the node count over resampled lexemes in which it is reached.
    """
    found, sizes = curve.found, np.asarray(curve.found.sizes)
    nodes = half_of(found, curve.templates, sizes)
    scalars = dataclasses.replace(found, sizes=found.scalars).size_at(LEVEL)
    without = [x.value for x in found.complement]
    return {
        "kind": curve.kind,
        "errors": curve.errors,
        "nodes at 0.5": nodes.value,
        "nodes at 0.5 low": nodes.low,
        "nodes at 0.5 high": nodes.high,
        "scalars at 0.5": scalars,
        "all nodes": int(sizes[-1]),
        "best": max(x.value for x in found.faithful),
        "half broken by": _broken(found.sizes, without),
        "metric, whole": float(found.full.mean()),
        "metric, nothing": float(found.empty.mean()),
    }


def _broken(sizes: Sequence[int], without: Sequence[float]) -> float:
    """The fewest of the measured nodes without which less than half is left; NaN for none."""
    below = [size for size, f in zip(sizes, without, strict=False) if f < LEVEL]
    return float(below[0]) if below else float("nan")


def _arrays(curve: Curve) -> dict[str, np.ndarray]:
    """The metric of every circuit and prompt, and the sizes."""
    name, found = f"{curve.kind}, errors {curve.errors}", curve.found
    return {
        f"{name}/values": found.values,
        f"{name}/sizes": np.asarray(found.sizes),
        f"{name}/scalars": np.asarray(found.scalars),
        f"{name}/full": found.full,
        f"{name}/empty": found.empty,
    }
