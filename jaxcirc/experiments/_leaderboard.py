"""`jaxcirc leaderboard`: every method of edge discovery on models whose circuit is known exactly.

A quarter of an hour on two cores. Expect gradients to fail where attention saturates (compiled
programs), ACDC with zero ablation to be right there, and averaged gradients to lead on the trained
models.
"""

import statistics
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from .. import circuits, zoo
from .._types import Tell
from ._clock import clock
from ._result import Result, Row, finite

METHODS_RANKED = (
    "eap",
    "eap-qk",
    "eap-ig",
    "eap-ig-activations",
    "clean-corrupted",
    "relp",
    "ifr",
    "hisp",
    "sp",
    "edge-sp",
    "acdc",
    "discrete",
    "discrete-nodes",
    "exact",
    "random",
)
GRID = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def leaderboard(
    *,
    methods: Mapping[str, circuits.Method] | Sequence[str] = METHODS_RANKED,
    cases: Sequence[str] | None = None,
    n: int = 32,
    seed: int = 0,
    progress: Tell | None = None,
) -> Result:
    """Score the edges of every case by every method, and compare with the truth.

    - `methods`: names, or functions by name: `(model, prompts, *, metric, wiring)` to edge scores.
    - `cases`: names in `zoo.names()` (default: all). `n`: prompts of each.

    Returns `Result`: a row for each case and method (edge AUROC, recall at the true number of
    edges, CPR, CMD, seconds), and the medians by method. True edges that carry the same between
    prompts are not scored, since exchange cannot show them.

    >>> leaderboard(methods={"mine": mine}, cases=["induction"]).table
    """
    chosen = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    cases = zoo.names() if cases is None else tuple(cases)
    rows: list[Row] = []
    with clock() as seconds:
        for i, name in enumerate(cases):
            case = zoo.load(name)
            prompts = case.prompts(n, seed)
            for j, (label, method) in enumerate(chosen.items()):
                if progress is not None:
                    progress("leaderboard", i * len(chosen) + j, len(cases) * len(chosen))
                rows.append(_row(case, prompts, label, method))
    if progress is not None:
        progress("leaderboard", len(cases) * len(chosen), len(cases) * len(chosen))
    return Result(
        kind="leaderboard",
        task="zoo",
        numbers={},
        table=finite([*_medians(rows, chosen), *rows]),
        arrays={},
        axes={},
        facts={
            "cases": list(cases),
            "methods": list(chosen),
            "prompts": n,
            "seed": seed,
            "precision": "highest",
            "device": jax.devices()[0].device_kind,
        },
        seconds=seconds,
        notes=[
            "AUROC and recall over the edges that are known to be true or false, by size of score;"
            " constant edges are left out.",
            "Exchange ablation (corrupt runs) throughout. CPR and CMD over shares"
            f" {', '.join(map(str, GRID))} of all edges.",
        ],
    )


def _row(case: zoo.Case, prompts, label: str, method: circuits.Method | str) -> Row:
    with clock() as spent:
        found = circuits.score(case.model, prompts, method, case.metric, wiring=case.wiring)
    size = np.abs(found.importance)
    counted = case.scored & ~case.constant
    truth = case.true[counted]
    areas = _areas(case, prompts, found.importance)
    return {
        "section": "case",
        "case": case.name,
        "method": label,
        "AUROC": circuits.auroc(size[counted], truth),
        "recall": circuits.recall_at(size[counted], truth, int(truth.sum())),
        "CPR": areas[0],
        "CMD": areas[1],
        "seconds": spent["run"],
    }


def _areas(case: zoo.Case, prompts, importance: Float[np.ndarray, "edge"]) -> list[float | None]:
    """CPR and CMD, where dropping everything changes the metric."""
    found: list[float | None] = []
    for distance in (False, True):
        try:
            curve = circuits.edge_curve(
                case.model,
                prompts,
                case.wiring,
                importance,
                case.metric,
                distance=distance,
                grid=GRID,
            )
            found.append(curve.area.value)
        except ValueError:
            found.append(None)
    return found


def _medians(rows: Sequence[Row], methods) -> list[Row]:
    found: list[Row] = []
    for label in methods:
        own = [row for row in rows if row["method"] == label]
        row: Row = {"section": "median", "method": label, "cases": len(own)}
        for column in ("AUROC", "recall", "CPR", "CMD", "seconds"):
            values = [value for r in own if isinstance(value := r[column], float)]
            row[column] = statistics.median(values) if values else None
        found.append(row)
    return sorted(found, key=lambda row: -float(row["AUROC"] or 0))
