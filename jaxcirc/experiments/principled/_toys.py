"""The parts of the study that need no language model: over-splitting, occlusion, the audit of the
metrics, and a small transformer trained from scratch."""

import numpy as np

from ..._types import Progress
from ...dictionaries import supervised
from ...tasks import Interval
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ._audit import audit
from ._occlusion import interpolated_rows, toy_rows
from ._presets import Sizes
from ._small import accuracy, at_the_end, trained_small
from ._splitting import compare

PENALTIES = (0.5, 2.0, 4.0, 6.0)
PAPER = {0.5: "99.9 / 77.9", 2.0: "102.1 / 89.3", 4.0: "103.5 / 100.9"}
"""Ideal and rival, as computed from the paper's description."""


def splitting(seed: int) -> Section:
    """The ideal dictionary against the rival that needs no training."""
    rows: list[Row] = []
    claims = []
    for found in compare(PENALTIES, seed=seed):
        rows.append(
            {
                "section": "splitting toy",
                "penalty": found.penalty,
                "ideal": found.ideal,
                "rival": found.rival,
                "standard error of the difference": found.error,
                "ideal fires": found.fires,
                "ideal / rival elsewhere": PAPER.get(found.penalty, ""),
            }
        )
        if found.penalty in PAPER:
            apart, wide = found.ideal - found.rival, 1.96 * found.error
            claims.append(
                Claim(
                    f"two clusters, penalty {found.penalty:g}: random directions have the smaller"
                    " loss",
                    "loss of the ideal dictionary less that of the rival",
                    Interval(apart, apart - wide, apart + wide, 4000, 4000),
                    paper=PAPER[found.penalty],
                )
            )
    return Section(rows, claims=claims)


def occlusion(sizes: Sizes, seed: int) -> Section:
    """The toy of two attributes."""
    rows = toy_rows(sizes.toy, seed)
    return Section(rows, claims=_occluded(rows, "occlusion toy"))


def _occluded(rows: list[Row], where: str) -> list[Claim]:
    """At the largest ratio and the middle penalty: how much more of the stronger is found."""
    last = rows[-1]
    pick = [r for r in rows if r["ratio"] == last["ratio"]]
    row = pick[len(pick) // 2]
    ends = [
        float(row[f"{name}, F1 0.9{e}"] or 0)
        for name in ("stronger", "weaker")
        for e in ("", " low", " high")
    ]
    value, low, high = ends[0] - ends[3], ends[1] - ends[5], ends[2] - ends[4]
    return [
        Claim(
            f"{where}: with a norm ratio of {row['ratio']:g} the weaker attribute is found less",
            "share of values told with F1 of 0.9, stronger less weaker, over seeds",
            Interval(value, low, high, 3, 3),
            floor=0.1,
            paper="about 216 IO names against 22 S names of 216 at L10H0",
        )
    ]


def small(sizes: Sizes, seed: int) -> Section:
    """The small transformer: what it learned, its codes, and occlusion with known strengths."""
    model, losses = trained_small(sizes.small, seed)
    right = accuracy(model, sizes.small)
    x, labels = at_the_end(model, sizes.small, layer=0, n=4096)
    counts = {"IO": sizes.small.names, "S": sizes.small.names, "Pos": 2}
    codes, means = (supervised(x, labels, counts, m) for m in ("least_squares", "mean"))
    apart = [np.abs(np.asarray(codes.codes[n] - means.codes[n])).max() for n in counts]
    lengths = {n: float(np.linalg.norm(np.asarray(codes.codes[n]), axis=1).mean()) for n in counts}
    rows: list[Row] = [
        {
            "section": "small transformer",
            "accuracy": right,
            "loss": losses[-1],
            **{f"length of {name}": length for name, length in lengths.items()},
            "mean against fitted codes": float(max(apart)),
        }
    ]
    strong, weak = sorted(("IO", "S"), key=lambda name: -lengths[name])
    found = interpolated_rows(x, labels, codes, strong, weak, sizes.toy)
    rows += [{**row, "section": "small occlusion"} for row in found]
    return Section(rows, claims=[freed(found, weak, "small transformer")])


def freed(rows: list[Row], weak: str, where: str) -> Claim:
    first, last = (row[f"{weak}, F1 0.5"] for row in (rows[0], rows[-1]))
    ends = [
        float(row[f"{weak}, F1 0.5{e}"] or 0)
        for row in (rows[-1], rows[0])
        for e in (" low", " high")
    ]
    value = float(last or 0) - float(first or 0)
    return Claim(
        f"{where}: taking the stronger attribute away brings out {weak}",
        "share of its values told with F1 of 0.5, without the other less with it, over seeds",
        Interval(value, ends[0] - ends[3], ends[1] - ends[2], 3, 3),
        floor=0.1,
        paper="IO counts fall and S counts rise",
    )


def _ranked(row: Row) -> Interval:
    value, low, high = (float(row[f"rank with truth{end}"] or 0) for end in ("", " low", " high"))
    n = int(row["dictionaries"] or 0)
    return Interval(value, low, high, n, n)


def audited(sizes: Sizes, progress: Progress | None = None) -> Section:
    """Every metric against seeds, truth and training."""
    rows = audit(sizes.audit)
    claims = [
        Claim(
            f"metrics: {row['metric']} ranks dictionaries as the truth does",
            "Spearman's correlation over trained ones, checkpoints and controls",
            _ranked(row),
            floor=0.7,
        )
        for row in rows
        if row["section"] == "audit"
    ]
    return Section(rows, claims=claims)
