"""A feature circuit as rows: its nodes, and what every place leaves unexplained.

May import `circuits`, `dictionaries`.
"""

from collections.abc import Sequence

import numpy as np

from ...circuits.features import Basis, FeatureEdges, FeatureScores
from .._result import Row
from ..dictionaries import Annotation
from ._prompts import Split


def node_rows(
    scores: FeatureScores,
    found: FeatureEdges,
    labels: Sequence[Annotation],
    split: Split,
    tokenizer,
) -> list[Row]:
    """A row a node: importance with its interval, label, and the first prompt's token there."""
    notes = {(note.place, note.feature): note.text for note in labels}
    tokens = np.asarray(split.discovery.clean[0])
    first = len(tokens) - int(np.asarray(split.discovery.mask[0]).sum())
    rows: list[Row] = []
    for node in found.nodes:
        column = scores.layout.column(node)
        spread, place = scores.interval(column), f"{node.site}.{node.layer}"
        ends = sorted((scores.sign * spread.low, scores.sign * spread.high))
        word = "" if node.pos is None else tokenizer.decode([int(tokens[first + node.pos])])
        rows.append(
            {
                "section": "node",
                "node": str(node),
                "place": place,
                "pos": node.pos,
                "token": word,
                "importance": scores.sign * spread.value,
                "low": ends[0],
                "high": ends[1],
                "label": "error" if node.is_error else notes.get((place, int(node.index)), ""),
            }
        )
    return rows


def place_rows(scores: FeatureScores) -> list[Row]:
    """A row a place: its joint effect, its completeness gap, and the share of its errors."""
    joint = scores.joints
    rows: list[Row] = []
    for i, place in enumerate(scores.layout.places):
        rows.append(
            {
                "section": "place",
                "place": f"{place.site}.{place.layer}",
                "cut": "yes" if i in scores.cuts else "",
                "points": scores.steps[i] if scores.steps else None,
                "joint effect": float(joint[i]),
                "sum": float(scores.sums[i]),
                "gap": float(scores.gap[i]),
                "gap, share": float(scores.gap[i] / joint[i]) if joint[i] else None,
                "error share": float(scores.error_shares[i]),
            }
        )
    return rows


def notes_of(split: Split, scores: FeatureScores, basis: Basis) -> list[str]:
    gaps = {place["place"]: place["gap, share"] for place in place_rows(scores) if place["cut"]}
    said = ", ".join(f"{p} {g:+.1%}" for p, g in gaps.items() if isinstance(g, float))
    words = f"{split.told}; " if split.told else ""
    return [
        f"{words}{len(split.discovery)} prompts to find it, {len(split.evaluation)} to judge it",
        f"error nodes carry {scores.error_share:.0%} of all effects by size",
        f"completeness gaps, as shares of the effect of each residual cut: {said or 'no cut'}",
        f"{len(scores.active):,} of {scores.layout.size:,} nodes have an effect, at"
        f" {len(basis.places)} places",
    ]
