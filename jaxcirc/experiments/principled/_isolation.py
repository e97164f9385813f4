r"""Cause and isolation of edits, after RAVEL (Huang et al. 2024, arXiv 2402.17700).

Cause: how often an edit has its effect where the counterfactual has one. Isolation: how often it
leaves the answer where the counterfactual does. Their mean $\tfrac12 (\mathrm{cause} +
\mathrm{isolation})$ is beside that of supervised edits and of every reference. May import `tasks`.
"""

from collections.abc import Sequence

import numpy as np

from ...tasks import interval
from .._result import Row
from ._approximation import cells
from ._bench import Bench
from ._control import Cell


def isolation_rows(bench: Bench, tried: Sequence[Cell], k: int) -> list[Row]:
    """A row for every way of editing: by distance with k moves, by codes, in a subspace."""
    asked = [c for c in tried if c.edit in ("supervised", "subspace") or _by_distance(c, k)]
    return [_row(bench, cell) for cell in asked]


def _by_distance(cell: Cell, k: int) -> bool:
    return (cell.edit, cell.k) == ("nearest", k)


def _row(bench: Bench, cell: Cell) -> Row:
    same = bench.target(cell.attribute).same
    sides = {"cause": ~same, "isolation": same}
    found = {n: interval(cell.hits[at], bench.clusters[at]) for n, at in sides.items() if at.any()}
    mean = float(np.mean([x.value for x in found.values()])) if len(found) == 2 else None
    return {
        "section": "disentangle",
        "cross-section": bench.section.name,
        "attribute": cell.attribute,
        "dictionary": cell.kind,
        "edit": cell.edit,
        "k": cell.k,
        **cells(found),
        "disentangle": mean,
    }
