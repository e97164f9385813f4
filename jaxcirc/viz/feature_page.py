"""The page of a feature circuit: its graph to walk through, and what its features fire on.

It shares `circuit.js` and `controls.js` with the page of edges; `feature_circuit.js` adds the
contexts, and notes that are saved as annotations are read. May import `experiments` for `Result`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..experiments import Result
from ..experiments.dictionaries import Feature, FeaturePage
from . import _reading, style
from ._document import write_document
from ._feature_graph import METRIC, TALL, WIDE, Box, FeatureGraph, feature_graph
from ._graph_page import graph_body

UNIT = np.array([64, 60])
"""Pixels of a unit across and up."""
START = 60
"""Edges shown at first."""


def write_feature_circuit(
    result: Result, path: str | os.PathLike, pages: Mapping[str, FeaturePage] | None = None
) -> Path:
    """Write a `feature_circuit` result as one page.

    - `pages`: what the features of each place fire on (default: nothing to show).

    Returns the path. Raises `ValueError` for a result of another kind.

    >>> write_feature_circuit(report.result, "circuit.html", report.pages)
    """
    graph = feature_graph(result)
    title = f"{result.task}: the feature circuit of {result.facts.get('model', 'the model')}"
    data = _data(result, graph, pages or {})
    scripts = ["circuit.js", "controls.js", "feature_circuit.js"]
    return write_document(path, title, "circuit", _body(title, result, graph), data, scripts)


LEGEND = (("helps", "helps"), ("opposes", "works against"))
NOTE = "ε: what a dictionary leaves out. Click a box to keep it, and to read and write what it is."


def _body(title: str, result: Result, graph: FeatureGraph) -> str:
    frame = graph_body(
        title,
        _about(result),
        find="resid_post.12/317",
        reads="the circuit: early places below, the metric on top",
        legend=LEGEND,
        note=f"{graph.told[0].upper()}{graph.told[1:]}; {NOTE}",
        tool='\n<button id="save" type="button">save notes</button>',
        card='\n<div id="card"></div>',
    )
    return f"<style>\n{style.asset('feature_circuit.css')}</style>\n{frame}"


def _about(result: Result) -> str:
    return " · ".join([_reading.prompts(result), *map(str, result.notes)])


def _data(result: Result, graph: FeatureGraph, pages: Mapping[str, FeaturePage]) -> dict[str, Any]:
    """All that the page knows; what the graph's scripts need, and behind it the features."""
    count = len(graph.source)
    wide, tall = np.rint(UNIT * (WIDE, TALL)).astype(int).tolist()
    return {
        "parts": [[box.name, _kind(box), box.layer, wide, tall] for box in graph.boxes],
        "words": [box.words for box in graph.boxes],
        "edge": list(range(count)),
        "source": graph.source.tolist(),
        "reader": graph.reader.tolist(),
        "slot": [""] * count,
        "importance": [_short(value) for value in graph.importance.tolist()],
        "strength": [round(float(value), 3) for value in graph.strength],
        "stages": [_stage(graph)],
        "curve": _curve(result),
        "start": min(START, count),
        "model": str(result.facts.get("model", "")),
        "rows": [[place, int(-y * UNIT[1])] for place, y in graph.places.items()],
        "cards": [_card(box, pages.get(box.place)) for box in graph.boxes],
    }


def _kind(box: Box) -> str:
    if box.name == METRIC:
        return "logits"
    return "error" if box.is_error else box.place.partition(".")[0]


def _stage(graph: FeatureGraph) -> dict[str, Any]:
    xy = np.asarray([(box.x, -box.y) for box in graph.boxes]) * UNIT
    low, high = xy.min(axis=0) - (170, 40), xy.max(axis=0) + (70, 40)
    box = np.rint([*low, *(high - low)]).astype(int).tolist()
    n = len(graph.boxes)
    return {
        "edges": len(graph.source),
        "part": list(range(n)),
        "xy": np.rint(xy).astype(int).tolist(),
        "paths": [_path(graph.curve(i)) for i in range(len(graph.source))],
        "links": [],
        "ends": [],
        "box": box,
    }


def _path(points: np.ndarray) -> str:
    start, *rest = (f"{x},{y}" for x, y in np.rint(points * UNIT * (1, -1)).astype(int).tolist())
    return f"M{start}C{' '.join(rest)}"


def _curve(result: Result) -> dict[str, list]:
    """Faithfulness with the best edges alone."""
    rows = [row for row in result.table if row.get("section") == "edges kept"]
    columns = {"value": "", "low": " low", "high": " high"}
    found = {
        name: [_short(x) for x in _reading.column(rows, f"faithfulness{end}").tolist()]
        for name, end in columns.items()
    }
    return {"sizes": [row["kept"] for row in rows], "random": []} | found


def _card(box: Box, page: FeaturePage | None) -> dict[str, Any] | None:
    """What is shown of a node: its numbers, its label, its contexts and logits."""
    if box.row is None:
        return None
    card: dict[str, Any] = {
        "place": box.place,
        "importance": _short(box.importance),
        "low": _short(box.row["low"]),
        "high": _short(box.row["high"]),
        "pos": box.row["pos"],
        "token": box.row["token"],
        "feature": None if box.is_error else int(box.name.partition("/")[2].split()[0]),
        "note": "" if box.is_error else str(box.row["label"]),
        "groups": [],
    }
    known = {} if page is None else {feature.index: feature for feature in page.features}
    feature = known.get(card["feature"])
    return card if feature is None or page is None else card | _contexts(page, feature)


def _contexts(page: FeaturePage, feature: Feature) -> dict[str, Any]:
    return {
        "density": _short(feature.density),
        "largest": _short(feature.largest),
        "top": [word for word, _ in feature.top],
        "bottom": [word for word, _ in feature.bottom],
        "groups": [
            [name, [_example(page, example) for example in group]]
            for name, group in feature.quantiles
        ],
    }


def _example(page: FeaturePage, example) -> list[Sequence[Any]]:
    """Tokens and activations."""
    stop = example.start + len(example.values)
    ids = page.tokens[example.context, example.start : stop].tolist()
    return [[page.words[i] for i in ids], [_short(value) for value in example.values.tolist()]]


def _short(value: float | None) -> float | None:
    """As few digits as one can see; None for what is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.3g}")
