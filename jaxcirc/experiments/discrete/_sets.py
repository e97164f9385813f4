"""Sets of heads of equal size: what they keep of the behaviour, what known heads they hold.

O'Neill & Bui 2024 (arXiv 2405.12522), sections 4 and 5. May import `circuits`, `patching`, `tasks`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ... import circuits, patching
from ...circuits.discrete import head_curve
from ...taps import Node
from ...tasks import METRICS, Prompts, interval_of
from .._claim import Claim
from .._result import Row
from ._areas import Ranked, area_cells
from ._known import matched

FAITHFUL = ("logit_difference", "kl")
PLAIN = ("discrete", "EAP-IG", "sequential")
"""Orders that are judged by KL too."""
DRAWS = 3
"""Random orders."""


def order_of(scores: Float[np.ndarray, "trial head"], n_heads: int) -> list[Node]:
    """Heads by their mean score, the best first."""
    order = np.argsort(-scores.mean(axis=0), kind="stable")
    return [Node("z", int(i) // n_heads, int(i) % n_heads) for i in order]


def faithful_rows(
    model,
    task: str,
    prompts: Prompts,
    heads: Mapping[str, np.ndarray],
    sizes,
    reference: Prompts,
    progress=None,
) -> tuple[list[Row], list[Claim], list[str]]:
    """Rows of nested sets of heads under both metrics, what they say, and what is left out.

    Under KL, `PLAIN` and random orders alone. `reference`: prompts whose means ablated heads take.
    """
    n_heads = model.config.n_heads
    total = (model.n_layers - sizes.free) * n_heads
    kept = (0, *(size for size in sizes.kept if size < total), total)
    orders = {name: order_of(own, n_heads) for name, own in heads.items() if name != "random"}
    if sizes.value == "zero":
        value = patching.constant(model, prompts, _zeros(model))
    else:
        value = patching.means(model, prompts, reference=reference)
    rows: list[Row] = []
    claims: list[Claim] = []
    notes: list[str] = []
    options: dict[str, Any] = {"ablation": value, "free": sizes.free, "progress": progress}
    for metric in FAITHFUL:
        some = orders if metric != "kl" else {name: orders[name] for name in PLAIN}
        try:
            curves = head_curve(
                model, prompts, some, kept, metric=METRICS[metric], random=DRAWS, **options
            )
        except ValueError as error:
            notes.append(f"{task}: faithfulness in {metric} is left out: {error}")
            continue
        for name, curve in curves.items():
            row: dict[str, Any] = {"section": "faithful", "task": task, "metric": metric}
            row |= {"method": name, "CPR": curve.area.value if curve.area else None}
            row |= {"CPR low": curve.area.low, "CPR high": curve.area.high} if curve.area else {}
            row |= {f"{k} heads": f.value for k, f in zip(kept, curve.f, strict=True)}
            rows.append(row)
        if metric == "logit_difference":
            claims = _equal_sizes(task, curves, kept, np.asarray(prompts.templates))
    return rows, claims, notes


def _zeros(model) -> dict[str, float]:
    return {site: 0.0 for site in ("z", "mlp_out") if site in model.sites()}


def _equal_sizes(task: str, curves, kept: Sequence[int], clusters) -> list[Claim]:
    """Sets of equal size: ours against others, at the middle of the sizes."""
    at = len(kept) // 2
    claims = []
    for other, floor in (("random", 0.1), ("sequential", 0.1), ("EAP-IG", 0.0)):
        ours, theirs = curves["discrete"], curves[other]

        def gap(a, b, empty, full) -> float:
            return float((a - b) / (full - empty))

        parts = [ours.values[at], theirs.values[at], ours.values[0], ours.values[-1]]
        claims.append(
            Claim(
                f"{task}: {kept[at]} heads by codes keep more of the behaviour than by {other}",
                "difference of faithfulness, logit difference",
                interval_of(gap, parts, [clusters] * 4),
                floor=floor,
            )
        )
    return claims


def overlaps(task: str, heads: Mapping[str, np.ndarray], k: int = 40) -> list[Row]:
    """Heads that methods share with EAP-IG among their best k: no truth, agreement."""
    best = {name: set(np.argsort(-v.mean(axis=0), kind="stable")[:k]) for name, v in heads.items()}
    others = [name for name in heads if name != "EAP-IG"]
    return [
        {
            "section": "overlap",
            "task": task,
            "method": name,
            "heads": min(k, heads[name].shape[1]),
            "shared with EAP-IG": len(best[name] & best["EAP-IG"]) / len(best[name]),
        }
        for name in others
    ]


def references(model, task: str, prompts: Prompts, sizes) -> dict[str, Bool[np.ndarray, "head"]]:
    """Heads that are known to be in the circuit, by the name of the reference: published circuits
    for their models; on IOI, heads of the named classes by their definitions."""
    shape, found = (model.n_layers, model.config.n_heads), {}
    for version in sizes.truths:
        truth = circuits.truth(f"{task}/{version}")
        if truth.head_mask.shape == shape:
            found[truth.name] = truth.head_mask.ravel()
    if task == "ioi" and not found:
        classes = circuits.head_classes(model, prompts)
        mask = np.zeros(shape, bool)
        for node in (node for nodes in classes.heads.values() for node in nodes):
            mask[node.layer, node.index] = True
        if mask.any() and not mask.all():
            found["classes by definition"] = mask.ravel()
    return found


def found_rows(model, task: str, prompts: Prompts, heads, sizes) -> list[Row]:
    """As many heads as the reference has, against it, mean over trials; the AUC only for published
    circuits."""
    rows: list[Row] = []
    for name, truth in references(model, task, prompts, sizes).items():
        k = int(truth.sum())
        for method, scores in heads.items():
            row: dict[str, Any] = {"section": "found", "task": task, "reference": name}
            row |= {"method": method, "heads": k, **matched(scores, truth)}
            ranked = Ranked.of(scores, truth) if "/" in name else None
            rows.append(row | ({} if ranked is None else area_cells([ranked])))
    return rows
