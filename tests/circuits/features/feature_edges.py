"""Some nodes of every place, and their edges by hand beside those that were found."""

import numpy as np
from feature_oracle import Case, edge_weights

from jaxcirc.circuits.features import nodes


def chosen(at: Case, by_position: bool | None = None, n: int = 8):
    """Scores, and of every place the best features and some errors."""
    scores = nodes(at.model, at.prompts, at.basis, by_position=by_position)
    columns = []
    for i in range(len(scores.layout.places)):
        part = scores.layout.of_place(i)
        order = part.start + np.argsort(-np.abs(scores.mean[part]), kind="stable")
        errors = scores.layout.errors(order)
        columns += [*order[~errors][:n], *order[errors][:3]]
    return scores, scores.nodes([column for column in columns if scores.mean[column]])


def expected(at: Case, scores, found, kind: str = "atp") -> np.ndarray:
    """The same edges by hand, [example edge]."""
    to_places, to_metric = edge_weights(at, kind)
    n, places, size = to_metric.shape
    width = scores.layout.widths[0] + 1
    shape = (n, places, size // width, width, places, size // width, width)
    to_places, to_metric = to_places.reshape(shape), to_metric.reshape(shape[:4])
    if scores.layout.n_pos is None:
        to_places = to_places.sum(axis=(2, 5), keepdims=True)
        to_metric = to_metric.sum(axis=2, keepdims=True)
    columns = np.asarray([scores.layout.column(node) for node in found.nodes])
    place, pos, index = scores.layout.split(columns)
    pos = np.maximum(pos, 0)
    values = np.zeros((n, len(found)))
    for k, (u, d) in enumerate(zip(found.source, found.reader, strict=True)):
        from_u = place[u], pos[u], index[u]
        if d == len(columns):
            values[:, k] = to_metric[:, *from_u]
        else:
            values[:, k] = to_places[:, *from_u, place[d], pos[d], index[d]]
    return values


def kinds_of(found) -> set:
    """(source site, reader site, source is error, reader is error) with an edge that is not 0."""
    kinds = set()
    for k in np.flatnonzero(np.abs(found.mean) > 1e-7):
        u, d = found.edge(int(k))
        last = ("metric", False) if d == "metric" else (d.site, d.is_error)
        kinds.add((u.site, last[0], u.is_error, last[1]))
    return kinds
