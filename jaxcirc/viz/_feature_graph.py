"""A `feature_circuit` result as a layered graph: a row of boxes for every place, the metric on top.

May import `experiments` for `Result`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..experiments import Result
from . import _reading

METRIC = "metric"
ACROSS, ROW, PLACE = 1.25, 0.72, 1.15
"""From box to box, from row to row of one place, and from place to place, in units."""
WIDE, TALL = 1.1, 0.46
"""Of a box."""
MOST = 14
"""Boxes in a row; a place with more takes several."""

_NODE = re.compile(r"(?P<site>\w+)\.(?P<layer>\d+)/(?P<index>\w+)(?: at (?P<pos>\d+))?")


@dataclasses.dataclass(frozen=True)
class Box:
    """A node: its full name, what is written on it, its place, and where it stands."""

    name: str
    words: str
    place: str
    x: float
    y: float
    importance: float
    row: Any

    @property
    def is_error(self) -> bool:
        """Whether this is what a dictionary leaves out."""
        return "/error" in self.name

    @property
    def layer(self) -> int:
        """The block it lies in, -1 for the metric."""
        found = _NODE.fullmatch(self.name)
        return int(found["layer"]) if found else -1


@dataclasses.dataclass(frozen=True)
class FeatureGraph:
    """Boxes (the metric last), and edges by number of box, the strongest first.

    - `places`: the height of the first row of every place. `positions`: the token of each position
      that a node has, such as the first prompt's.
    """

    boxes: tuple[Box, ...]
    places: dict[str, float]
    positions: dict[int, str]
    source: Int[np.ndarray, "edge"]
    reader: Int[np.ndarray, "edge"]
    importance: Float[np.ndarray, "edge"]

    @property
    def told(self) -> str:
        """What is written on boxes, and which token stands at each position."""
        each = ", ".join(f"{pos} “{token}”" for pos, token in self.positions.items())
        if len(self.positions) > 1:
            return f"a box is a feature · its position ({each})"
        return f"a box is a feature, all at position {each}" if each else "a box is a feature"

    @property
    def strength(self) -> Float[np.ndarray, "edge"]:
        """The size of every edge over that of the largest, its root taken."""
        size = np.abs(self.importance)
        return np.sqrt(size / size.max()) if len(size) else size

    def curve(self, edge: int) -> Float[np.ndarray, "point 2"]:
        """A cubic Bézier curve from the top of the source to the bottom of the reader."""
        a, b = (self.boxes[int(end[edge])] for end in (self.source, self.reader))
        begin, end = np.array([a.x, a.y + TALL / 2]), np.array([b.x, b.y - TALL / 2])
        lift = np.array([0.0, max(0.5, 0.5 * (end[1] - begin[1]))])
        return np.stack([begin, begin + lift, end - lift, end])


def feature_graph(result: Result, edges: int | None = None) -> FeatureGraph:
    """The graph of a result, with the strongest edges alone if a number is given.

    >>> feature_graph(result, 60).boxes[-1].name
    'metric'
    """
    _reading.expect(result, "feature_circuit", "feature_graph")
    rows = [row for row in result.table if row.get("section") == "node"]
    order = [str(place) for place in result.facts["places"]]
    positions = {int(r["pos"]): str(r["token"]).strip() for r in rows if r["pos"] is not None}
    boxes, places = _stacked(rows, order, len(positions) > 1)
    number = {box.name: i for i, box in enumerate(boxes)}
    lines = [row for row in result.table if row.get("section") == "edge"][:edges]
    return FeatureGraph(
        tuple(boxes),
        places,
        dict(sorted(positions.items())),
        np.asarray([number[str(row["source"])] for row in lines], int),
        np.asarray([number[str(row["reader"])] for row in lines], int),
        np.asarray([float(row["importance"] or 0) for row in lines]),
    )


def _stacked(
    rows: Sequence[Any], order: Sequence[str], told: bool
) -> tuple[list[Box], dict[str, float]]:
    """Places from below, in each the nodes by position, and by importance where that is equal."""
    boxes: list[Box] = []
    places: dict[str, float] = {}
    y = 0.0
    for place in order:
        own = [row for row in rows if row["place"] == place]
        own.sort(key=lambda row: (row["pos"] or 0, -abs(row["importance"])))
        if not own:
            continue
        places[place] = y
        for begin in range(0, len(own), MOST):
            some = own[begin : begin + MOST]
            boxes += [_box(row, i - (len(some) - 1) / 2, y, told) for i, row in enumerate(some)]
            y += ROW
        y += PLACE - ROW
    boxes.append(Box(METRIC, METRIC, METRIC, 0.0, y, 0.0, None))
    return boxes, places | {METRIC: y}


def _box(row: Any, across: float, y: float, told: bool) -> Box:
    """The box of a node; its position is written on it where there are several."""
    name = str(row["node"])
    words = short(name if told else name.partition(" at ")[0])
    importance = float(row["importance"] or 0)
    return Box(name, words, str(row["place"]), ACROSS * across, y, importance, row)


def short(name: str) -> str:
    """What is written on a box: the feature and its position.

    >>> short("resid_post.12/317 at 4"), short("mlp_out.5/error")
    ('317 · 4', 'ε')
    """
    found = _NODE.fullmatch(name)
    if found is None:
        return name
    index = "ε" if found["index"] == "error" else found["index"]
    return index if found["pos"] is None else f"{index} · {found['pos']}"
