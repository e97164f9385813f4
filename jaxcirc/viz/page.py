"""A finished result as files: PNG figures, and one HTML page that needs nothing but itself.

The page asks the network for nothing: figures, style and script are inside it. May import
`experiments` for `Result`.
"""

import base64
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..experiments import Result
from . import (
    _reading,
    _table,
    circuit,
    circuits,
    clusters,
    dictionaries,
    discrete,
    feature_circuits,
    figures,
    methods,
    observables,
    principled,
    recovery,
    shift,
    studies,
    style,
)

Draw = Callable[[Result], Figure]

FIGURES: dict[str, dict[str, Draw]] = {
    "discover": {
        "circuit": figures.discover_picture,
        "heads": figures.attribution_map,
        "faithfulness": figures.faithfulness_curve,
        "exact_against_estimate": figures.exact_against_estimate,
        "nodes": figures.node_effects,
    },
    "discover_edges": {"edges": circuits.edge_circuit},
    "patch": {"effects": figures.patch_picture},
    "study_patching": {
        "heads": studies.patching_heads,
        "facts": studies.patching_facts,
        "directions": studies.patching_directions,
    },
    "compare_attribution": {"estimates": studies.attribution_scatter},
    "compare": {"curves": methods.compare_curves},
    "leaderboard": {"auroc": methods.leaderboard_map},
    "dictionary": {"dictionary": dictionaries.dictionary_picture},
    "suite": {"nats": dictionaries.suite_picture},
    "recovery": {"recovered": recovery.recovery_dots},
    "feature_circuit": {"features": feature_circuits.feature_circuit_picture},
    "study_feature_circuits": {
        "curves": feature_circuits.study_faithfulness,
        "errors": feature_circuits.study_errors,
        "layers": feature_circuits.study_layers,
    },
    "observe": {"norms": observables.observe_map},
    "study_observables": {
        "heads": observables.observable_heads,
        "labels": observables.observable_labels,
    },
    "discover_discrete": {"heads": discrete.discrete_heads},
    "study_discrete": {
        "areas": discrete.study_areas,
        "rocs": discrete.study_rocs,
        "sweeps": discrete.study_sweeps,
        "kept": discrete.study_kept,
    },
    "study_principled": {
        "control": principled.control_plane,
        "phenomena": principled.phenomena_picture,
    },
    "principled": {"control": principled.control_plane},
    "study_shift": {"shift": shift.shift_picture},
    "clusters": {"measures": clusters.clusters_picture},
}
"""What is drawn of a result, by its kind; other kinds get a page without figures."""

WIDTHS = {"faithfulness": "seven", "exact_against_estimate": "five"}
ONLY_PNG = ("circuit",)
"""On the page, the other figures say the same in larger letters."""
GRAPH = "circuit.html"
"""The page of a circuit of edges, beside the one with its numbers."""


def write(result: Result, folder: str | os.PathLike) -> list[Path]:
    """Save a result, its figures and its page in `folder`; returns the paths of all files.

    >>> viz.write(result, f"runs/{result.name}")
    """
    folder = result.save(folder)
    saved = [folder / name for name in ("result.json", "arrays.safetensors", "table.csv")]
    drawn = _draw(result)
    return [*saved, *_save(drawn, folder), *_write_pages(result, drawn, folder)]


def write_figures(result: Result, folder: str | os.PathLike) -> list[Path]:
    """Write every figure of the result's kind as PNG; returns their paths.

    >>> write_figures(result, "figures")
    """
    return _save(_draw(result), folder)


def write_page(result: Result, folder: str | os.PathLike) -> Path:
    """Write `index.html`: numbers, figures, a table to sort and to filter, provenance, notes.

    A circuit of edges gets `circuit.html` beside it.

    >>> write_page(load_result("runs/ioi-1a2b3c4d"), "runs/ioi-1a2b3c4d")
    """
    return _write_pages(result, _draw(result), folder)[0]


def _draw(result: Result) -> dict[str, Figure]:
    return {name: draw(result) for name, draw in FIGURES.get(result.kind, {}).items()}


def _save(drawn: Mapping[str, Figure], folder: str | os.PathLike) -> list[Path]:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [style.save_png(figure, folder / f"{name}.png") for name, figure in drawn.items()]


def _write_pages(
    result: Result, drawn: Mapping[str, Figure], folder: str | os.PathLike
) -> list[Path]:
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(result, drawn), encoding="utf-8")
    if result.kind != "discover_edges":
        return [path]
    return [path, circuit.write_circuit(result, path.with_name(GRAPH))]


def _page(result: Result, drawn: Mapping[str, Figure]) -> str:
    title = escape(f"{result.task} · {result.kind} · {result.facts.get('model', '')}")
    seconds = {f"{name} seconds": f"{value:.1f}" for name, value in result.seconds.items()}
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style.asset("page.css")}</style>
</head>
<body>
<main>
<h1>{escape(_title(result))}</h1>
<p class="sub">{escape(_reading.prompts(result))} · {escape(_reading.ends(result))}</p>
{_cards(result)}
{_section("Figures", _figures(result, drawn))}
{_section(_TABLES.get(result.kind, "Rows"), _table.table(result))}
{_section("Notes", _notes(result))}
{_section("All numbers", _facts(_words(result)))}
{_section("Provenance", _facts({**result.facts, **seconds}))}
</main>
<script>
{style.asset("page.js")}</script>
</body>
</html>
"""


_TABLES = {
    "discover": "Nodes",
    "discover_edges": "Edges",
    "patch": "Cells",
    "dictionary": "Dictionaries",
    "suite": "Dictionaries",
}


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>" if body else ""


def _title(result: Result) -> str:
    words = {
        "discover": "the node circuit",
        "discover_edges": "the edge circuit",
        "patch": "exact patching",
        "study_patching": "best practices, measured",
        "compare_attribution": "fast scores against exact patching",
        "dictionary": "a dictionary beside its baselines",
        "suite": "dictionaries beside their baselines",
        "probe": "probes of few features",
        "explain": "features explained",
        "feature_circuit": "the feature circuit",
        "study_feature_circuits": "feature circuits, measured",
        "observe": "the heads that write it",
        "study_observables": "observables, measured",
        "study_principled": "dictionaries judged by control",
        "principled": "a dictionary judged by control",
        "study_shift": "a classifier freed from a confound",
        "clusters": "circuits that nobody named",
    }
    return f"{result.task}: {words.get(result.kind, result.kind)}"


def _cards(result: Result) -> str:
    cards = "\n".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(about)}</span></div>"
        for name, value, about in _reading.headlines(result)
    )
    return f'<div class="cards">\n{cards}\n</div>' if cards else ""


def _figures(result: Result, drawn: Mapping[str, Figure]) -> str:
    shown = {name: figure for name, figure in drawn.items() if name not in ONLY_PNG}
    images = "\n".join(_image(name, figure) for name, figure in shown.items())
    if result.kind == "discover_edges":
        images += f'\n<p class="twelve"><a href="{GRAPH}">walk through the circuit</a></p>'
    return f'<div class="figures">\n{images}\n</div>' if images else ""


def _image(name: str, figure: Figure) -> str:
    data = base64.b64encode(style.svg(figure)).decode("ascii")
    words = escape(name.replace("_", " "))
    width = WIDTHS.get(name, "twelve")
    image = f'<img alt="{words}" src="data:image/svg+xml;base64,{data}">'
    return f'<figure class="{width}">{image}</figure>'


def _words(result: Result) -> dict[str, str]:
    """Every number with its interval and its counts."""
    return {
        name: f"{_reading.interval(found, 3)}, n = {found.n} in {found.clusters} clusters"
        for name, found in result.numbers.items()
    }


def _facts(facts: Mapping[str, Any]) -> str:
    lines = "\n".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(_fact(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">\n{lines}\n</dl>' if lines else ""


def _fact(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _notes(result: Result) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return f"<ul>{lines}</ul>" if lines else ""
