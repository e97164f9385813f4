"""Figures of finished results: each function takes a `Result` (or an array) and returns a `Figure`.

Maps show raw effects, metric(patched) - metric(base); blue always helps the behaviour. May import
`experiments` for `Result`.
"""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments import Result
from . import _maps, _panels, _reading, style


@style.styled
def layer_head_map(
    array: Float[np.ndarray, "layer head"],
    title: str,
    *,
    mlps: Float[np.ndarray, "layer"] | None = None,
    note: str = "",
    label: str = "effect",
    direction: str = "denoise",
    names: int = 10,
) -> Figure:
    """A map of heads, colours centred at 0, the strongest called by name ("23.3").

    - `mlps`: a row of MLPs below the heads. `names`: how many heads are named.
    - `direction`: "denoise" draws positive values blue, "noise" negative ones.

    >>> layer_head_map(result.arrays["lens_direct"], "Direct logit attribution")
    """
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(
            f"layer_head_map takes [layer head], got shape {array.shape}:"
            " average over examples first, layer_head_map(raw.mean(axis=0), title)"
        )
    n_layers, n_heads = array.shape
    width = max(6.0, min(14.0, 3.0 + 0.34 * n_layers))
    height = max(3.0, min(9.0, 1.6 + 0.33 * (n_heads + (mlps is not None) * 1.5)))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _maps.draw_heads(axes, array, mlps, style.colours(direction), label=label, names=names)
    style.heading(axes, title, note)
    return figure


def attribution_map(result: Result) -> Figure:
    """AtP of every head and MLP of a `discover` result.

    >>> attribution_map(discover_task(model, prompts))
    """
    _reading.expect(result, "discover", "attribution_map")
    return layer_head_map(
        result.arrays["atp_z"],
        f"Attribution patching of every node · {result.task}",
        mlps=result.arrays.get("atp_mlp_out"),
        note=f"one backward pass; {_reading.done(result)}; blue helps, orange works against",
        label=f"estimated change in\n{_reading.metric(result)}",
        direction=_reading.direction(result),
    )


@style.styled
def faithfulness_curve(result: Result) -> Figure:
    """How much of the behaviour circuits of each size keep, and how much is left without them.

    >>> faithfulness_curve(discover_task(model, prompts))
    """
    _reading.expect(result, "discover", "faithfulness_curve")
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    _panels.draw_faithfulness(axes, result)
    style.heading(axes, _reading.summary(result), CURVE_NOTE)
    return figure


CURVE_NOTE = "other nodes at their mean over corrupt prompts; bands: intervals, range of draws"


@style.styled
def node_effects(result: Result, top: int = 20) -> Figure:
    """The nodes with the largest exact effects: interval, AtP estimate, and what the lens says.

    >>> node_effects(discover_task(model, prompts), top=10)
    """
    _reading.expect(result, "discover", "node_effects")
    rows = _reading.strongest(result, top)
    figure = Figure(figsize=(12, 1.4 + 0.31 * len(rows)), layout="constrained")
    bars, roles = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1])
    _draw_nodes(result, rows, bars, roles, width=86)
    return figure


def _draw_nodes(result: Result, rows, bars, roles, width: int) -> None:
    label = f"change in {_reading.metric(result)}"
    _panels.draw_nodes(bars, rows, _reading.direction(result), label)
    _panels.write_roles(roles, rows, width)
    style.heading(bars, f"The {len(rows)} strongest nodes, patched exactly", NODES_NOTE)
    style.heading(roles, "", "what the lens says")


NODES_NOTE = "● exact, with interval   ◇ AtP"


@style.styled
def exact_against_estimate(result: Result) -> Figure:
    """AtP against exact patching over the verified nodes.

    >>> exact_against_estimate(discover_task(model, prompts))
    """
    _reading.expect(result, "discover", "exact_against_estimate")
    figure = Figure(figsize=(6.3, 5.9), layout="constrained")
    axes = figure.add_subplot()
    _panels.draw_scatter(axes, result.table, f"change in {_reading.metric(result)}")
    heads = [row for row in result.table if row["site"] == "z"]
    every, only = (_reading.number(_reading.correlation(rows)) for rows in (result.table, heads))
    title = f"AtP against exact: r = {every} over {len(result.table)} nodes"
    style.heading(axes, title, f"heads alone: r = {only}; on the grey line the two agree")
    return figure


@style.styled
def discover_picture(result: Result) -> Figure:
    """The whole finding in one picture: map, curve, and the strongest nodes with their roles.

    >>> discover_picture(discover_task(model, prompts)).savefig("ioi.png")
    """
    _reading.expect(result, "discover", "discover_picture")
    figure = Figure(figsize=(16, 9.2))
    head, heat, curve, bars, roles = (figure.add_axes(place) for place in PLACES)
    roles.sharey(bars)
    _write_head(head, result)
    colours = style.colours(_reading.direction(result))
    label = f"change in {_reading.metric(result)}"
    mlps = result.arrays.get("atp_mlp_out")
    _maps.draw_heads(heat, result.arrays["atp_z"], mlps, colours, label="")
    style.heading(heat, "Where it is: attribution patching", MAP_NOTE.format(label=label))
    _panels.draw_faithfulness(curve, result)
    style.heading(curve, f"How much it explains: {_reading.summary(result)}", CURVE_NOTE)
    _draw_nodes(result, _reading.strongest(result, 20), bars, roles, width=55)
    return figure


MAP_NOTE = "estimated {label} of each head and MLP; blue helps, orange works against"
PLACES = (
    (0.045, 0.925, 0.93, 0.058),
    (0.045, 0.5, 0.515, 0.345),
    (0.045, 0.075, 0.4, 0.31),
    (0.607, 0.075, 0.15, 0.77),
    (0.767, 0.075, 0.23, 0.77),
)
"""Left, bottom, width, height of: head, map, curve, bars, roles, in shares of the picture."""


def _write_head(axes: Axes, result: Result) -> None:
    axes.set_axis_off()
    place = {"x": 0, "transform": axes.transAxes}
    title = f"{result.task}: the node circuit of {result.facts.get('model', 'the model')}"
    axes.text(y=1, s=title, fontsize=19, fontweight="bold", va="top", **place)
    line = f"{result.facts.get('prompts', '')} prompts · {_reading.ends(result)}".lstrip()
    axes.text(y=0, s=line, fontsize=11, color=style.MUTED, va="bottom", **place)


@style.styled
def patch_picture(result: Result) -> Figure:
    """Mean effects of exact patching: a map [layer head] or [layer pos], or bars [layer].

    `result.facts["columns"]` may name the positions. Of more than two axes, the strongest cell of
    each further one is drawn.

    >>> patch_picture(load_result("runs/ioi-1a2b3c4d"))
    """
    _reading.expect(result, "patch", "patch_picture")
    effects, names, note = _flat(np.asarray(result.arrays["effects"]), result.axes["effects"])
    note = f"{_patch_note(result)}{note}"
    draw = _patch_bars if effects.ndim == 1 else _patch_map
    return draw(result, effects, names, note)


def _flat(effects: np.ndarray, names) -> tuple[np.ndarray, tuple[str, ...], str]:
    """At most two axes: of each further one, the cell with the largest effect."""
    names, note = tuple(names), ""
    while effects.ndim > 2:
        best = np.abs(effects).argmax(axis=-1)[..., None]
        effects = np.take_along_axis(effects, best, axis=-1)[..., 0]
        names, note = names[:-1], f"{note}; the strongest {names[-1]} of each cell"
    return effects, names, note


def _patch_map(result: Result, effects: np.ndarray, names: tuple[str, ...], note: str) -> Figure:
    label, way = f"change in {_reading.metric(result)}", _reading.direction(result)
    if names[1] in ("head", "kv_head"):
        return layer_head_map(effects, _patch_title(result), direction=way, label=label, note=note)
    columns = [str(word) for word in result.facts.get("columns") or ()]
    words = columns if len(columns) == effects.shape[1] else list(map(str, range(effects.shape[1])))
    rows, count = "" if words is columns else names[1], len(words)
    effects, words = _most(effects, words)
    rows += f" (the {len(words)} strongest of {count})" if len(words) < count else ""
    wide = max(map(len, words)) * 0.085
    size = (max(6.0, min(14.0, 3.6 + wide + 0.32 * len(effects))), 1.7 + 0.31 * len(words))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    _maps.draw_positions(axes, effects, words, style.colours(way), label=label, rows=rows)
    style.heading(axes, _patch_title(result), note)
    return figure


def _most(effects: np.ndarray, words: list[str], at_most: int = 40) -> tuple[np.ndarray, list[str]]:
    """The columns with the largest effects, in their order: a map of 1,536 neurons is a blur."""
    kept = np.sort(np.argsort(-np.abs(effects).max(axis=0), kind="stable")[:at_most])
    return effects[:, kept], [words[i] for i in kept]


def _patch_bars(result: Result, effects: np.ndarray, names: tuple[str, ...], note: str) -> Figure:
    width = max(6.0, min(14.0, 3.0 + 0.3 * len(effects)))
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    axes = figure.add_subplot()
    tints = [style.colour(effect, _reading.direction(result)) for effect in effects.tolist()]
    x = np.arange(len(effects))
    axes.bar(x, effects, width=0.78, color=tints)
    axes.axhline(0, color=style.MUTED, lw=0.8)
    ends = np.stack([_reading.column(result.table, end) for end in ("low", "high")])
    ends = ends if ends.shape[1] == len(effects) else np.stack([effects, effects])
    axes.vlines(x, *ends, colors=style.INK, lw=1)
    reach = 1.08 * max(_maps.limit_of(effects), _maps.limit_of(ends))
    axes.set(ylim=(-reach, reach), xlim=(-0.7, len(effects) - 0.3))
    axes.set(xlabel=names[0], ylabel=f"change in {_reading.metric(result)}")
    axes.grid(axis="y", color=style.FAINT, lw=0.6)
    axes.set_axisbelow(True)
    style.heading(axes, _patch_title(result), note)
    return figure


def _patch_title(result: Result) -> str:
    site = result.facts.get("site")
    return f"{result.task}: patching {site}" if site else f"{result.task}: exact patching"


def _patch_note(result: Result) -> str:
    return f"{_reading.prompts(result)}; {_reading.done(result, 'cell')}"
