"""What the document says of dictionaries, as claims on the model at hand.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), whose abstract has dictionaries capture
interpretable features "but they are less successful in controlling the model", and the follow-up of
one of them ("SAEs Match Supervised Features for Model Steering on the IOI Task"), where gated and
TopK ones edit as well as codes. May import `tasks`.
"""

from collections.abc import Sequence

import numpy as np

from ...tasks import Interval, interval, interval_of
from .._claim import Claim
from .._result import Row
from ._audit import rank
from ._control import Cell
from ._judge import LEADING, Judged
from ._references import RANDOM

TASK_KINDS = ("l1", "gated", "topk", "batchtopk", "jumprelu")
OWN = "l1"
"""The document's own kind."""

MARGIN = 0.1
"""Of accuracy, the least that counts as less successful."""


def claims_of(found: Judged, kinds: Sequence[str] = TASK_KINDS) -> list[Claim]:
    """The claims of one cross-section on the dictionaries trained for it."""
    claims = []
    for attribute in found.attributes:
        claims += [c for c in _of_attribute(found, attribute, kinds) if c is not None]
    return claims


def _of_attribute(found: Judged, attribute: str, kinds: Sequence[str]) -> list[Claim | None]:
    where = f"{found.section.name}, {attribute}"
    cells = {kind: found.cell(attribute, kind, "nearest", LEADING) for kind in kinds}
    edits = {kind: cell for kind, cell in cells.items() if cell is not None}
    codes = found.cell(attribute, "supervised", "supervised", 1)
    if codes is None:
        return []
    return [
        _works(found, codes, where),
        _less(found, codes, {k: c for k, c in edits.items() if k == OWN}, where),
        _less(found, codes, {k: c for k, c in edits.items() if k != OWN}, where),
        _apart(found, edits, "topk", "l1", where, ".95 against .54 (k = 2, IO)"),
        _apart(found, edits, "gated", "l1", where, ".97 against .54 (k = 2, IO)"),
        _labels(found, attribute, edits, where),
        _ranked(found, attribute, edits, where),
    ]


def _difference(found: Judged, one: Cell, other: Cell) -> Interval:
    return interval(one.hits - other.hits, found.report.clusters)


def _works(found: Judged, codes: Cell, where: str) -> Claim:
    none = found.report.target(codes.attribute).same
    return Claim(
        f"{where}: supervised edits make the model say what the counterfactual would",
        "accuracy less that of no intervention",
        interval(codes.hits - none, found.report.clusters),
        floor=0.5,
        paper="above .8 of the time, but for S",
    )


def _less(found: Judged, codes: Cell, edits: dict[str, Cell], where: str) -> Claim | None:
    """Of the best of some kinds on these prompts: where there are several, their least margin."""
    if not edits:
        return None
    best = max(edits.values(), key=lambda cell: cell.accuracy)
    asked = "L1 dictionaries" if best.kind == OWN else "the best of later kinds"
    return Claim(
        f"{where}: {asked} are less successful in controlling the model than codes",
        f"accuracy of codes less that of {best.kind}, {LEADING} moves",
        _difference(found, codes, best),
        floor=MARGIN,
        paper=".96 against .54 (k = 2, IO)" if best.kind == OWN else "gated and TopK match codes",
    )


def _apart(found: Judged, edits, one: str, other: str, where: str, paper: str) -> Claim | None:
    if one not in edits or other not in edits:
        return None
    return Claim(
        f"{where}: {one} edits better than {other}",
        f"difference in accuracy, {LEADING} moves by distance",
        _difference(found, edits[one], edits[other]),
        floor=0.05,
        paper=paper,
    )


def _labels(found: Judged, attribute: str, edits, where: str) -> Claim | None:
    """At one budget: k moves by distance against k / 2 features out and k / 2 in."""
    pairs = [(c, found.cell(attribute, kind, "by labels", LEADING)) for kind, c in edits.items()]
    apart = [c.hits - own.hits for c, own in pairs if own is not None]
    if not apart:
        return None
    return Claim(
        f"{where}: edits by labels fall behind edits by directions",
        f"accuracy by distance less accuracy by labels, mean over kinds, budget {LEADING}",
        interval(np.mean(apart, axis=0), found.report.clusters),
        floor=0.05,
        paper="the same for task dictionaries; .06, .72, .18 for vanilla, gated, TopK later",
    )


def _ranked(found: Judged, attribute: str, edits, where: str) -> Claim | None:
    known = found.mmcs.get(attribute, {})
    kinds = [kind for kind in edits if kind in known]
    if len(kinds) < 3:
        return None
    cosine = [known[kind] for kind in kinds]
    hits = np.stack([edits[kind].hits for kind in kinds], axis=1)

    def apart(means) -> float:
        return 1 - rank(cosine, means)

    return Claim(
        f"{where}: the largest cosine with codes ranks kinds otherwise than control does",
        "1 - Spearman's correlation over kinds",
        interval_of(apart, [hits], [found.report.clusters]),
        baseline=0.5,  # it is never below 0, so that above 0 would say nothing
        paper="highest for vanilla, which edits worst",
    )


def shipped_claims(found: Judged, kind: str, most: int) -> list[Claim]:
    """The same of a dictionary that was trained on text."""
    claims = []
    for attribute in found.attributes:
        codes = found.cell(attribute, "supervised", "supervised", 1)
        cell = found.cell(attribute, kind, "nearest", most)
        few = found.cell(attribute, kind, "nearest", LEADING)
        chance = found.cell(attribute, RANDOM, "nearest", most)
        if codes is None or cell is None or few is None:
            continue
        where = f"{found.section.name}, {attribute}"
        claims += [
            Claim(
                f"{where}: a full-distribution dictionary is less successful than codes",
                f"accuracy of codes less its own, {LEADING} moves",
                _difference(found, codes, few),
                floor=MARGIN,
                paper="often needs 32 features or more",
            ),
            Claim(
                f"{where}: many features bring it nearer",
                f"accuracy with {most} moves less that with {LEADING}",
                _difference(found, cell, few),
                floor=0.05,
            ),
        ]
        if chance is not None:
            claims.append(_above_chance(found, cell, chance, where))
    return claims


def _above_chance(found: Judged, cell: Cell, chance: Cell, where: str) -> Claim:
    return Claim(
        f"{where}: its directions edit better than random ones",
        f"accuracy with {cell.k} moves less that of as many random directions",
        _difference(found, cell, chance),
        floor=0.05,
        paper="random ones match learned ones (Korznikov et al. 2026)",
    )


def split_claim(row: Row, where: str) -> Claim:
    """How many features share a value of a binary attribute, over seeds and values."""
    name = "features a value"
    value, low, high = (float(row[f"{name}{end}"] or 0) for end in ("", " low", " high"))
    return Claim(
        f"{where}: {row['dictionary']} dictionaries split {row['attribute']} into many features",
        "nearly pure features that it takes to cover nine tenths of a value, if it can be",
        Interval(value, low, high, 4, 4),
        baseline=1.0,
        floor=9.0,
        paper="ten or more, nearly disjoint",
    )
