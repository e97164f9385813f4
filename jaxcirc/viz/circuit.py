"""The page of a circuit of edges: a graph to walk through, in one file that needs nothing else.

The places are computed here, for a few numbers of edges; `circuit.js` shows and hides, and
`controls.js` asks it to. May import
`experiments` for `Result`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..experiments import Result
from . import _reading
from ._document import write_document
from ._graph_page import graph_body
from ._layered import Layered, Part, layered
from ._places import TALL, Places, places, width

AT_MOST = 1000
"""Edges on a page; the result holds the order of all."""
STAGES = (30, 100, 300, AT_MOST)
"""Up to each of these numbers of edges the boxes keep their places."""
START = 60
UNIT = np.array([64, 52])
"""Pixels of a unit of `Places` across and up, before zooming."""


def write_circuit(result: Result, path: str | os.PathLike) -> Path:
    """Write a `discover_edges` result as one page: its best edges as a graph, with a slider.

    - `path`: of the file; its folder is made.

    Returns the path. Raises `ValueError` for a result of another kind.

    >>> write_circuit(load_result("runs/ioi-1a2b3c4d"), "circuit.html")
    """
    _reading.expect(result, "discover_edges", "write_circuit")
    whole = layered(result, AT_MOST)
    title = f"{result.task}: the edge circuit of {result.facts.get('model', 'the model')}"
    shown = {"find": "9.9", "reads": "the circuit: input below, logits above"}
    body = graph_body(title, _about(result, whole), legend=LEGEND, note=NOTE, **shown)
    data, scripts = _data(result, whole), ["circuit.js", "controls.js"]
    return write_document(path, title, "circuit", body, data, scripts)


LEGEND = (
    ("helps", "helps"),
    ("opposes", "works against"),
    ("query", "into queries"),
    ("key", "into keys"),
    ("other", "into all others"),
)
NOTE = (
    "Thicker: more important. Drag to move, turn the wheel to zoom, click a node to keep it; arrow"
    " keys change the number of edges, with Shift to the next measured one."
)


def _about(result: Result, whole: Layered) -> str:
    method = [f"edges ordered by {result.facts['method']}"] if "method" in result.facts else []
    shown = f"the best {len(whole.edge):,} of {whole.wiring.n_edges:,} edges"
    return " · ".join([_reading.prompts(result), *method, shown])


def _data(result: Result, whole: Layered) -> dict[str, Any]:
    """All that the page knows. Line i is the edge of rank i + 1."""
    count = len(whole.edge)
    stages = [stage for stage in STAGES if stage < count]
    return {
        "parts": [[part.name, part.kind, part.layer, *_size(part)] for part in whole.parts],
        "edge": whole.edge.tolist(),
        "source": whole.source.tolist(),
        "reader": whole.reader.tolist(),
        "slot": list(whole.slot),
        "importance": _numbers(whole.importance),
        "strength": [round(float(size), 3) for size in whole.strength],
        "stages": [_stage(layered(result, stage), whole) for stage in [*stages, count]],
        "curve": _curve(result),
        "start": min(START, count),
    }


def _stage(drawn: Layered, whole: Layered) -> dict[str, Any]:
    """The places of the parts that the first edges touch; y grows downwards, as in SVG."""
    found = places(drawn)
    lookup = {part: i for i, part in enumerate(whole.parts)}
    return {
        "edges": len(drawn.edge),
        "part": [lookup[part] for part in drawn.parts],
        "xy": _pixels(np.stack([found.x, found.y], 1)),
        "paths": [_path(curve) for curve in found.curves],
        "links": [_path(curve) for curve in found.links],
        "ends": [[lookup[drawn.parts[i]] for i in link] for link in drawn.links],
        "box": _box(found),
    }


def _size(part: Part) -> list[int]:
    return np.rint(UNIT * (width(part.kind), TALL)).astype(int).tolist()


def _box(found: Places) -> list[int]:
    """Left, top, width and height of a picture with all of the lines in it; never tiny."""
    points = np.concatenate([np.stack([found.x, found.y], 1), *found.curves, *found.links])
    low, high = points.min(0) - (1.8, 0.5), points.max(0) + (0.8, 0.5)
    spare = np.maximum((10, 9) - (high - low), 0) / 2
    low, high = low - spare, high + spare
    corner, opposite = _pixels(np.array([[low[0], high[1]], [high[0], low[1]]]))
    return [*corner, opposite[0] - corner[0], opposite[1] - corner[1]]


def _path(points: np.ndarray) -> str:
    start, *rest = (f"{x},{y}" for x, y in _pixels(points))
    return f"M{start}C{' '.join(rest)}"


def _pixels(points: np.ndarray) -> list[list[int]]:
    return np.rint(points * UNIT * (1, -1)).astype(int).tolist()


def _curve(result: Result) -> dict[str, list]:
    """Faithfulness with its interval, and random sets: lowest, mean, highest."""
    arrays = result.arrays
    found = {part: _numbers(arrays[f"faithfulness_{part}"]) for part in ("value", "low", "high")}
    random = np.asarray(arrays["random"])
    drawn = [random.min(1), random.mean(1), random.max(1)] if random.size else []
    return {"sizes": arrays["sizes"].tolist(), "random": [_numbers(r) for r in drawn]} | found


def _numbers(values: np.ndarray) -> list[float | None]:
    """As few digits as the array's precision needs, and None for what is not finite."""
    return [float(str(value)) if np.isfinite(value) else None for value in np.asarray(values)]
