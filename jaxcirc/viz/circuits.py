"""The figure of a circuit of edges: the graph, and beside it how much of the behaviour it keeps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from ..experiments import Result
from . import _panels, _reading, style
from ._layered import Layered, layered
from ._places import TALL, Places, places, width

DASHES = {"query": (0, (1, 1.1)), "key": (0, (4, 1.8))}
"""How lines into queries and keys are broken; all others are whole."""
INCH = (0.62, 0.5)
"""Inches of a unit across and up, where the figure has room for them."""
SIDE, CURVE = 6.3, (3.4, 3.0)
"""Inches for what stands beside the graph, and the width and height of the curve in it."""
LEAST = (3.4, 7.0)
"""Half the least width and the least height of a graph, in units: few boxes stay small."""


@style.styled
def edge_circuit(result: Result, edges: int = 60) -> Figure:
    """The best edges of a `discover_edges` result as a layered graph, beside its faithfulness.

    - `edges`: how many of them.

    >>> edge_circuit(load_result("runs/ioi-1a2b3c4d"), edges=40).savefig("circuit.png")
    """
    _reading.expect(result, "discover_edges", "edge_circuit")
    drawn = layered(result, edges)
    found = places(drawn)
    wide = float(np.clip(INCH[0] * (np.ptp(found.x) + 1.6), 6, 11))
    high = float(np.clip(INCH[1] * (np.ptp(found.y) + 1.2) + 1, 6.2, 13))
    size = np.array([wide + SIDE, high])
    figure = Figure(figsize=tuple(size))
    graph = figure.add_axes((0.2 / size[0], 0.1 / high, (wide - 0.2) / size[0], 1 - 0.9 / high))
    corner = np.array([wide + 0.8, high - 0.8 - CURVE[1]])
    curve = figure.add_axes((*(corner / size).tolist(), *(CURVE / size).tolist()))
    _draw_graph(graph, drawn, found)
    style.heading(graph, _title(result), _note(result, drawn))
    _draw_curve(curve, result)
    _draw_legend(curve, bool(drawn.links))
    return figure


def _title(result: Result) -> str:
    return f"{result.task}: the edge circuit of {result.facts.get('model', 'the model')}"


def _note(result: Result, drawn: Layered) -> str:
    count, total = len(drawn.edge), drawn.wiring.n_edges
    method = result.facts.get("method")
    return f"the best {count:,} of {total:,} edges" + (f" by {method}" if method else "")


def _draw_graph(axes: Axes, drawn: Layered, found: Places) -> None:
    axes.set_axis_off()
    axes.set(xlim=(min(found.x.min() - 0.6, -LEAST[0]), max(found.x.max() + 0.6, LEAST[0])))
    spare = max(LEAST[1] - found.y.max(), 0.8) / 2
    axes.set(ylim=(-spare, found.y.max() + spare))
    for link in found.links:
        axes.add_patch(_line(link, style.FAINT, 1.5, "-"))
    strokes = 0.4 + 5 * drawn.strength
    for i in range(len(drawn.edge))[::-1]:
        colour = style.HELPS if drawn.importance[i] > 0 else style.OPPOSES
        dashes = DASHES.get(drawn.slot[i], "-")
        axes.add_patch(_line(found.curves[i], colour, float(strokes[i]), dashes))
    size = _font(axes)
    for i, part in enumerate(drawn.parts):
        idle = i not in drawn.source and i not in drawn.reader
        place = (float(found.x[i]), float(found.y[i]), width(part.kind))
        _draw_box(axes, part.name, *place, size, style.MUTED if idle else style.INK)


def _line(points: np.ndarray, colour: str, stroke: float, dashes) -> PathPatch:
    path = Path(points, [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)])
    look = {"linewidth": stroke, "linestyle": dashes, "alpha": 0.8, "capstyle": "butt"}
    return PathPatch(path, facecolor="none", edgecolor=colour, **look)


def _font(axes: Axes) -> float:
    """The largest letters that fit into the boxes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    spans = np.ptp([axes.get_xlim(), axes.get_ylim()], axis=1)
    across, up = (axes.bbox.size / spans * 72 / figure.dpi).tolist()
    return float(np.clip(min(across * 0.7 / 3.3, up * TALL / 1.35), 4, 9.5))


def _draw_box(
    axes: Axes, word: str, x: float, y: float, wide: float, size: float, ink: str
) -> None:
    look = {"facecolor": style.PAPER, "edgecolor": style.MUTED, "linewidth": 0.8, "zorder": 3}
    corner = (x - wide / 2, y - TALL / 2)
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, wide, TALL, boxstyle=shape, **look))
    middle = {"ha": "center", "va": "center_baseline", "zorder": 4}
    axes.text(x, y, word, fontsize=size, color=ink, **middle)


def _draw_curve(axes: Axes, result: Result) -> None:
    if not len(result.arrays["sizes"]):
        axes.set_axis_off()
        return
    _panels.draw_faithfulness(axes, result, "edges")
    style.heading(axes, "How much it explains", "bands: intervals, range of draws")


def _draw_legend(axes: Axes, links: bool) -> None:
    lines = [
        ("helps the behaviour", style.HELPS, "-"),
        ("works against it", style.OPPOSES, "-"),
        ("into queries", style.MUTED, DASHES["query"]),
        ("into keys", style.MUTED, DASHES["key"]),
        ("into values, MLPs, logits", style.MUTED, "-"),
    ] + [("keys and values that a head uses", style.FAINT, "-")] * links
    shown = [Line2D([], [], color=c, linestyle=dash, linewidth=2.4) for _, c, dash in lines]
    place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.2), "borderaxespad": 0.0}
    words = [word for word, *_ in lines]
    axes.legend(shown, words, title="thicker: more important", alignment="left", **place)
