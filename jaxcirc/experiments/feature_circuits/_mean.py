"""The mean curve over tasks, as the paper's figures draw it, beside the paper's own figures.

Faithfulness is interpolated over node count in every task, and averaged where all tasks have it.
"""

from collections.abc import Sequence

import numpy as np

from .._result import Row
from ._claims import LEVEL, crossing
from ._reference import paper_cells

POINTS = 100


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """A row "mean" for every basis and rule for errors that all tasks have.

    - `rows`: those of "curve", of one model.

    >>> mean_rows(section.rows)[0]["nodes at 0.5"]
    """
    curves = [row for row in rows if row.get("section") == "curve"]
    tasks = list(dict.fromkeys(row["task"] for row in curves))
    found: list[Row] = []
    for kind, errors in dict.fromkeys((str(r["kind"]), str(r["errors"])) for r in curves):
        own = [row for row in curves if (row["kind"], row["errors"]) == (kind, errors)]
        each = [[row for row in own if row["task"] == task] for task in tasks]
        if all(each):
            found.append(_row(kind, errors, each))
    return found


def _row(kind: str, errors: str, each: Sequence[Sequence[Row]]) -> Row:
    values = {axis: _mean_curve(each, axis) for axis in ("nodes", "scalars")}
    return {
        "section": "mean",
        "kind": kind,
        "errors": errors,
        "tasks": len(each),
        "nodes at 0.5": crossing(*values["nodes"], LEVEL),
        "scalars at 0.5": crossing(*values["scalars"], LEVEL),
        "best": float(np.max(values["nodes"][1])),
        **paper_cells(kind, errors),
    }


def _mean_curve(each: Sequence[Sequence[Row]], axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, and the mean over tasks of their curves; each runs from nothing at no node and stays
    at its end."""
    lines = [_line(rows, axis) for rows in each]
    most = max(x[-1] for x, _ in lines)
    grid = np.unique(
        np.concatenate([np.geomspace(1, max(most, 2), POINTS), *(x for x, _ in lines)])
    )
    grid = grid[grid > 0]
    return grid, np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)


def _line(rows: Sequence[Row], axis: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray([0.0, *(float(row[axis] or 0) for row in rows)])
    y = np.asarray([0.0, *(float(row["faithfulness"] or 0) for row in rows)])
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
