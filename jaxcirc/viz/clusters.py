"""The page of clusters (search, sort, samples, nodes with their contexts), and their figure.

The data lie in the page; `list.js` draws a row when it comes into sight and its samples when it
is opened. May import `experiments` for `Result` and `ClusterPage`.
"""

import math
import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from ..experiments.clusters import Cluster, ClusterPage
from ..tasks import Interval
from . import _reading, style
from ._document import write_document


def write_clusters(page: ClusterPage, path: str | os.PathLike) -> Path:
    """Write the page; its folder is made.

    Returns the path. Raises `ValueError` for a page without clusters.

    >>> write_clusters(page, "clusters.html")
    """
    if not page.clusters:
        raise ValueError("a page without clusters: study_clusters(...) gives one that has some")
    model = page.facts.get("model", "a model")
    title = f"{len(page.clusters):,} circuits of {model} that nobody named"
    scripts = ["rows.js", "list.js", "clusters.js"]
    return write_document(path, title, "clusters", _body(title, page), _data(page), scripts)


def _body(title: str, page: ClusterPage) -> str:
    said = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    names = page.clusters[0].measures
    options = "".join(f"<option>{escape(name)}</option>" for name in ("size", *names))
    return f"""<main>
<h1>{escape(title)}</h1>
<p class="sub">Each row is a cluster of tokens that the model predicts well: its samples with the
predicted token marked, the nodes of its circuit, and how far the circuit carries it.</p>
<details><summary>How to read this</summary><ul>{said}</ul></details>
<form class="tools">
<input id="find" type="search" placeholder="a token, a node, a label"
 aria-label="find clusters: every word must occur in samples, nodes or labels">
<label>sort by <select id="sort" aria-label="sort by"><option>number</option>{options}
</select></label>
<label><input id="rise" type="checkbox"> smallest first</label>
<label><input id="hide" type="checkbox"> without one token, bigram or copies</label>
<span id="count" class="note" role="status"></span>
</form>
<div id="list"></div>
<p id="more" class="note"></p>
</main>"""


def _data(page: ClusterPage) -> dict[str, Any]:
    """All that the page knows: tokens by their place in a list of words."""
    ids = sorted(page.words)
    lookup = {token: i for i, token in enumerate(ids)}
    rows = [
        [lookup[token] for token, real in zip(row, mask, strict=True) if real]
        for row, mask in zip(page.tokens.tolist(), page.mask.tolist(), strict=True)
    ]
    padding = (~page.mask).sum(axis=1).tolist()
    peaks = {
        name: [[i, pos - padding[i], _short(value)] for i, pos, value in found]
        for name, found in page.peaks.items()
    }
    return {
        "words": [page.words[token] for token in ids],
        "rows": rows,
        "answers": [lookup[token] for token in page.answers.tolist()],
        "measures": list(page.clusters[0].measures),
        "clusters": [_cluster(cluster) for cluster in page.clusters],
        "labels": dict(page.labels),
        "peaks": {name: found for name, found in peaks.items() if found},
    }


def _cluster(cluster: Cluster) -> dict[str, Any]:
    """Short keys: number, size, samples, how many judge, nodes, measures."""
    return {
        "i": cluster.number,
        "s": cluster.size,
        "r": list(cluster.samples),
        "h": cluster.held_out,
        "n": [[name, _short(value)] for name, value in cluster.nodes],
        "m": [_short(value) for value in cluster.measures.values()],
    }


def _short(value: float) -> float | int | None:
    """As few digits as one can see; None for what is not known."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short


@style.styled
def clusters_picture(result: Result) -> Figure:
    """Held-out faithfulness, and what less would explain: clusters beside shuffled ones.

    >>> clusters_picture(study_clusters(model, tokenizer, basis, contexts, out)[0])
    """
    _reading.expect(result, "clusters", "clusters_picture")
    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_pairs(left, result, "faithfulness_", "shuffled_")
    left.set(xlabel="held-out faithfulness")
    style.heading(left, "Circuits of clusters", "found on half of each, judged on the rest")
    _draw_pairs(right, result, "explained_", "shuffled_explained_")
    right.set(xlabel="share of clusters")
    style.heading(right, "What less would explain", "one next token, one bigram, copied trigrams")
    left.legend(loc="best", fontsize=8.5)
    return figure


def _draw_pairs(axes: Axes, result: Result, own: str, other: str) -> None:
    """Numbers whose names begin alike, a line each: of clusters, and of shuffled ones."""
    names = [name.removeprefix(own) for name in result.numbers if name.startswith(own)]
    y = np.arange(len(names))[::-1]
    looks = ((own, "clusters", "o", style.HELPS, 0.1), (other, "shuffled", "x", style.MUTED, -0.1))
    for prefix, label, marker, colour, shift in looks:
        found = [(at, result.numbers.get(prefix + name)) for at, name in zip(y, names, strict=True)]
        known: list[tuple[float, Interval]] = [(at + shift, x) for at, x in found if x is not None]
        if known:
            at, value, low, high = zip(
                *((a, x.value, x.low, x.high) for a, x in known), strict=True
            )
            axes.hlines(at, low, high, colors=colour, lw=1.3)
            axes.scatter(value, at, marker=marker, color=colour, s=34, label=label)
    axes.set_yticks(y, [name.replace("_", " ") for name in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.6, len(names) - 0.4)
