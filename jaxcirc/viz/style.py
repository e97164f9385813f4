"""One quiet look for every figure: fonts, colours, sizes, and how a figure becomes a file.

Blue helps the behaviour and orange works against it, everywhere; both survive colour blindness and
grey printing. Nothing here touches pyplot, so drawing has no global state. Imports nothing of
jaxcirc.
"""

import io
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

P = ParamSpec("P")
T = TypeVar("T")

INK, MUTED, FAINT, PAPER = "#1f2933", "#66727f", "#dde2e7", "#ffffff"
HELPS, OPPOSES = "#1f6fae", "#cf6a17"

_ORANGE_TO_BLUE = ("#7f3a06", "#cf6a17", "#f2b87c", "#f6f6f4", "#93c1e3", "#2f7fbe", "#0b3d6b")
POSITIVE_HELPS = LinearSegmentedColormap.from_list("positive_helps", _ORANGE_TO_BLUE)
NEGATIVE_HELPS = LinearSegmentedColormap.from_list("negative_helps", _ORANGE_TO_BLUE[::-1])

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a token may be a dollar sign
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "jaxcirc",
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 3,
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a function that draws under `RC`, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return drawn


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as 0.01, 10, 1k: matplotlib's own need mathematics to be read."""
    axis.set_major_formatter(lambda x, _: f"{x:g}" if abs(x) < 1000 else f"{x / 1000:g}k")
    axis.set_minor_formatter(NullFormatter())


def colours(direction: str) -> LinearSegmentedColormap:
    """The colormap of raw effects: blue where the component helps, whatever the direction."""
    return NEGATIVE_HELPS if direction == "noise" else POSITIVE_HELPS


def colour(effect: float, direction: str) -> str:
    """Blue if a raw effect says that the component helps, orange if it works against it."""
    return HELPS if (effect < 0) == (direction == "noise") else OPPOSES


def heading(axes: Axes, text: str, note: str = "") -> None:
    """A bold title at the left and, below it, a muted line that says what is drawn."""
    axes.set_title(text, pad=21 if note else 7)
    if note:
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(note, (0, 1), (0, 7), color=MUTED, fontsize=8.5, **place)


@styled
def save_png(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> Path:
    """Write a figure as PNG: 16 inches make 2400 pixels."""
    path = Path(path)
    _settle(figure)
    figure.savefig(path, dpi=dpi, metadata={"Software": "jaxcirc"})
    return path


@styled
def svg(figure: Figure) -> bytes:
    """A figure as SVG, its letters as outlines: it looks the same on every machine."""
    buffer = io.BytesIO()
    _settle(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "jaxcirc"})
    return buffer.getvalue()


def asset(name: str) -> str:
    """The text of a style sheet or a script that lies beside this file."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _settle(figure: Figure) -> None:
    """Lay the figure out once: a second layout moves things by a hair, and files differ."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
