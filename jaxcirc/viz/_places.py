"""Where the parts of a layered graph stand, and how the lines run between them.

Order and routes are igraph's, by K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual
understanding of hierarchical system structures" (1981); here they are only pushed together.
"""

import dataclasses
from typing import Any

import igraph
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression

from ._layered import HEAD, Layered

STEP, WITHIN = 1.0, 0.66
"""Height from layer to layer, and from row to row within a layer; parts in a row are 1 apart."""
TALL, PORT = 0.38, 0.21
"""Height of a box, and how far from its middle queries and values go in."""
SIDES = {"query": -PORT, "key": 0.0, "value": PORT}
LANE, LANES = 0.24, 6.0
"""Room for a line that passes a row, and for all lines that pass it."""
SHAPE = 0.7
"""The least width, in heights."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Places of a layered graph, input below.

    - `x`, `y`: the middles of the parts. `curves`, `links`: cubic Bézier points of every line and
      link, [point 2] with 3 n + 1 points, from source to reader.
    """

    x: Float[np.ndarray, "part"]
    y: Float[np.ndarray, "part"]
    curves: tuple[Float[np.ndarray, "_ 2"], ...]
    links: tuple[Float[np.ndarray, "_ 2"], ...]


def width(kind: str) -> float:
    """The width of a part's box."""
    return 0.7 if kind == HEAD else 0.9


def places(drawn: Layered) -> Places:
    """The places of all parts and lines.

    >>> places(layered(result, 60)).x
    """
    count, lines = len(drawn.parts), len(drawn.edge)
    rows, heights = _rows(drawn)
    ends = _ends(drawn)
    middles, routes = _sugiyama(drawn, rows)
    wanted = np.concatenate([middles, *routes])
    row = wanted[:, 1].astype(int) - 1
    x = _pushed(wanted[:, 0], row, _room(row, count), SHAPE * heights[-1])
    points = np.stack([x, heights[row]], axis=1)
    middles, stops = points[:count], count + np.cumsum([0, *map(len, routes)])
    lanes = [points[start:stop] for start, stop in zip(stops, stops[1:], strict=False)]
    sides = [SIDES.get(slot) for slot in drawn.slot] + [0.0] * len(drawn.links)
    curves = tuple(
        _curve(middles[source], lane, middles[reader], side)
        for (source, reader), lane, side in zip(ends, lanes, sides, strict=True)
    )
    return Places(middles[:, 0], middles[:, 1], curves[:lines], curves[lines:])


def _ends(drawn: Layered) -> list[tuple[int, int]]:
    """The two parts of every line, then of every link."""
    return [*zip(drawn.source.tolist(), drawn.reader.tolist(), strict=True), *drawn.links]


def _rows(drawn: Layered) -> tuple[Int[np.ndarray, "part"], Float[np.ndarray, "row"]]:
    """The row of every part, counted from the input, and the heights of the rows."""
    rows = sorted({part.row for part in drawn.parts})
    layers = np.asarray([layer for layer, _ in rows])
    steps = np.where(np.diff(layers) == 0, WITHIN, STEP)
    return np.asarray([rows.index(part.row) for part in drawn.parts]), np.cumsum([0.0, *steps])


def _sugiyama(
    drawn: Layered, rows: Int[np.ndarray, "part"]
) -> tuple[Float[np.ndarray, "part 2"], list[Float[np.ndarray, "_ 2"]]]:
    """Parts and routes as igraph wants them, in rows from 1: all that reads nothing stands on 0."""
    lines = _ends(drawn)
    reads, ground = {reader for _, reader in lines}, len(drawn.parts)
    # igraph 1.0 writes past its memory on a graph of several pieces; the ground makes it one.
    ties = [(ground, part) for part in range(ground) if part not in reads]
    graph = igraph.Graph(ground + 1, lines + ties, directed=True)
    layout: Any = graph.layout_sugiyama(layers=[*(rows + 1).tolist(), 0])
    routes = [np.asarray(layout.edge_routing[i], float) for i in range(len(lines))]
    return np.asarray(layout.coords)[:ground], [route.reshape(-1, 2) for route in routes]


def _room(row: Int[np.ndarray, "point"], count: int) -> Float[np.ndarray, "point"]:
    """What every point needs in its row: 1 for the first `count`, the parts; less for lanes."""
    lanes = np.maximum(np.bincount(row[count:], minlength=row.max() + 1), 1)
    room = np.minimum(LANE, LANES / lanes)[row]
    room[:count] = 1.0
    return room


def _pushed(
    wanted: np.ndarray, row: np.ndarray, room: np.ndarray, least: float
) -> Float[np.ndarray, "point"]:
    """The nearest places to the wanted ones that keep order and room in every row."""
    wide = max(np.bincount(row, room).max(), least)
    wanted = (wanted - wanted.min()) / max(np.ptp(wanted), 1e-9) * wide
    x = np.zeros(len(wanted))
    for here in (np.flatnonzero(row == i) for i in range(row.max() + 1)):
        here = here[np.argsort(wanted[here], kind="stable")]
        offset = np.cumsum(room[here]) - room[here] / 2
        x[here] = isotonic_regression(wanted[here] - offset).x + offset
    return x - (x.max() + x.min()) / 2


def _curve(
    source: np.ndarray, lanes: np.ndarray, reader: np.ndarray, side: float | None
) -> Float[np.ndarray, "point 2"]:
    """From the top of one box to the bottom of another; `side`: where a slot is, if it has one."""
    start, stop = source + (0, TALL / 2), reader - (0, TALL / 2)
    nearest = (lanes[0], lanes[-1]) if len(lanes) else (stop, start)
    start = start + (_lean(start, nearest[0]), 0)
    stop = stop + (_lean(stop, nearest[1]) if side is None else side, 0)
    if not len(lanes):
        rise = np.array([0, 0.4 * (stop[1] - start[1])])
        return np.stack([start, start + rise, stop - rise, stop])
    points = np.stack([start, *lanes, stop])
    points[1:-1] = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
    return _spline(points)


def _lean(end: np.ndarray, other: np.ndarray) -> float:
    """Lines leave a box on the side to which they go."""
    across, up = np.abs(other - end)
    return PORT * float(np.clip(across / (0.5 * up + 0.3), 0, 1) * np.sign(other[0] - end[0]))


def _spline(points: Float[np.ndarray, "knot 2"]) -> Float[np.ndarray, "point 2"]:
    """A cubic B-spline from the first to the last point, as Bézier points."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    joints = (padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6
    joints[[0, -1]] = points[[0, -1]]
    thirds = (2 * points[:-1] + points[1:]) / 3, (points[:-1] + 2 * points[1:]) / 3
    return np.concatenate([joints[:1], np.stack([*thirds, joints[1:]], 1).reshape(-1, 2)])
