"""Fast scores of nodes against exact ones, place by place, and what each leaves unexplained.

Marks et al. 2024 (arXiv 2403.19647), appendix: attribution patching is worst in early layers, and
integrated gradients mend most of that. May import `circuits`.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from ..._types import Progress
from ...circuits import spearman
from ...circuits.features import Basis, FeatureScores, nodes
from ...tasks import Prompts, interval_of
from .._claim import Claim
from .._result import Row
from ._baselines import names_of
from ._prompts import clusters
from ._scores import dense, pack
from ._store import Section

METHODS: dict[str, dict[str, Any]] = {
    "AtP": {"method": "atp"},
    "IG": {"method": "ig"},
    "IG, left, 10 steps": {"method": "ig", "steps": 10, "rule": "left"},
    "RelP": {"method": "relp"},
}
"""Estimators; the third is the paper's own rule."""


def compare_layers(
    model,
    task: str,
    prompts: Prompts,
    basis: Basis,
    *,
    steps: int | None = None,
    rule: Any = "gauss",
    early: float = 1 / 3,
    metric: Any = "logit_difference",
    batch: int = 16,
    progress: Progress | None = None,
) -> Section:
    """Every node exactly and by every estimator, counterfactual patches.

    - `early`: the share of places that count as early. `steps`, `rule`: of "IG".

    Returns a section: a row for every place and estimator, and the claim about early places.
    """
    exact = nodes(model, prompts, basis, metric, method="exact", batch=batch, progress=progress)
    found = {}
    for name, options in METHODS.items():
        own = {"steps": steps, "rule": rule, "gaps": False, "batch": batch} | options
        scores = nodes(model, prompts, basis, metric, **own)
        found[name] = dataclasses.replace(scores, joint=exact.joint)
    places = names_of(basis)
    rows = [
        _row(task, name, scores, exact, i, places[i])
        for i in range(len(places))
        for name, scores in found.items()
    ]
    claim = early_claim(task, exact, found["IG"], found["AtP"], early, clusters(prompts))
    like = {"method": "exact", "metric": exact.metric, "sign": exact.sign}
    return Section(rows, pack(exact, "exact"), [claim], facts=like)


def _columns(scores: FeatureScores, exact: FeatureScores, place: slice) -> Int[np.ndarray, "node"]:
    """Nodes of some places with an effect by either."""
    either = (scores.mean[place] != 0) | (exact.mean[place] != 0)
    return np.flatnonzero(either) + place.start


def _row(
    task: str, name: str, scores: FeatureScores, exact: FeatureScores, i: int, place: str
) -> Row:
    columns = _columns(scores, exact, scores.layout.of_place(i))
    pair = scores.mean[columns], exact.mean[columns]
    joint = float(scores.joints[i])
    return {
        "section": "layers",
        "task": task,
        "place": place,
        "estimator": name,
        "points": scores.steps[i],
        "nodes": len(columns),
        "r": pearson(*pair),
        "rank": spearman(*pair) if len(columns) > 2 else float("nan"),
        "sum": float(scores.sums[i]),
        "joint effect": joint,
        "gap": float(scores.gap[i]),
        "gap, share": float(scores.gap[i] / joint) if joint else float("nan"),
        "error share": float(scores.error_shares[i]),
    }


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two lists, NaN if either is constant or short."""
    if len(one) < 3 or not np.std(one) or not np.std(other):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def early_claim(
    task: str, exact: FeatureScores, ig: FeatureScores, atp: FeatureScores, early: float, templates
) -> Claim:
    """Integrated gradients are closer to exact than attribution patching where it is early."""
    layout = exact.layout
    first = max(1, round(early * len(layout.places)))
    place = slice(0, int(layout.offsets[first]))
    columns = np.union1d(_columns(ig, exact, place), _columns(atp, exact, place))
    parts = [dense(scores, columns) for scores in (exact, ig, atp)]

    def closer(e, i, a) -> float:
        return pearson(i, e) - pearson(a, e)

    names = f"{layout.places[0].site}.{layout.places[0].layer}"
    last = layout.places[first - 1]
    return Claim(
        f"{task}: IG is closer to exact than AtP in early places ({names} to"
        f" {last.site}.{last.layer})",
        "correlation with exact effects over nodes, IG less AtP",
        interval_of(closer, parts, [templates] * 3),
        paper="AtP is worst in early layers",
    )
