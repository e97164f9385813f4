"""`jaxcirc reproduce principled-evaluation`: the study of Makelov, Lange & Nanda 2024, section by
section.

A killed run keeps the sections it has finished; the same command goes on.
"""

import dataclasses
from pathlib import Path

from .. import models
from ..experiments import principled
from ._sections import print_sections
from ._show import bars, console, write

FOLDER = "principled-evaluation"

TITLES = {
    "clean": "the prompts, as the model answers them",
    "site": "where attributes are: decodable, and used",
    "approximation": "test 1: approximation",
    "control": "test 2: sparse control",
    "disentangle": "cause and isolation",
    "meaning": "test 3: how well features tell values, on prompts apart",
    "causal": "test 3: what features of a high F1 do",
    "selection": "sparsities chosen on prompts apart, by what edits leave",
    "attention": "one head's score, as a sum over pairs of features",
    "splitting": "a binary attribute over many features",
    "splitting toy": "two clusters: the ideal dictionary and a rival without training",
    "occlusion toy": "two attributes, one stronger: values told",
    "small transformer": "a small transformer trained from scratch",
    "small occlusion": "its activations, the stronger attribute taken away",
    "occlusion": "the same of the model's own activations",
    "audit": "the metrics themselves",
    "audit controls": "dictionaries of known quality",
    "shipped site": "places of shipped dictionaries",
    "claim": "claims",
}
_WHERE = ("cross-section", "dictionary")
COLUMNS = {
    "site": (
        *("component", "attribute", "decodable", "shuffled labels", "no intervention"),
        *("mean ablation costs", "score", "refused"),
    ),
    "approximation": (*_WHERE, "level", "L0", "FVE", "sufficiency", "necessity", "change each"),
    "control": (
        *("cross-section", "attribute", "dictionary", "level", "edit", "k", "accuracy"),
        *("over seeds", "weight", "x", "y", "no intervention"),
    ),
    "meaning": (*_WHERE, "attribute", "seed", "F1", "lift", "F1 of unions", "MMCS", "L0"),
    "causal": (
        *(*_WHERE, "attribute", "threshold", "features", "sufficiency", "necessity"),
        *("faithful", "complete", "no intervention"),
    ),
    "disentangle": (
        *("cross-section", "attribute", "dictionary", "edit"),
        *("cause", "isolation", "disentangle"),
    ),
    "attention": ("head", "key at", "query", "key", "score"),
    "claim": ("verdict", "claim", "found", "paper (other model)"),
}
"""What is printed of the wide rows; `table.csv` holds all."""

SHOWN = {"site": 16, "shipped site": 8}
"""Rows printed of long sections."""


def reproduce_principled(preset: str, model: str | None, out: Path, seed: int) -> None:
    """Run the study, print its table, and write its figures and claims.

    - `model`: default smollm2-135m.
    """
    loaded, tokenizer = models.load_model(model or "smollm2-135m")
    sizes = principled.principled_sizes(preset, loaded.config.name)
    folder = out / f"{FOLDER}-{preset}"
    with bars() as tell:
        result = principled.study_principled(
            loaded, tokenizer, folder, sizes=sizes, seed=seed, tell=tell
        )
    print_principled(result)
    write(result, out)
    console.print(f"sections kept in {folder}")


def print_principled(result) -> None:
    """The tables, long ones cut."""
    left = dict(SHOWN)
    rows = []
    for row in result.table:
        section = str(row.get("section"))
        left[section] = left.get(section, len(result.table)) - 1
        if left[section] >= 0:
            rows.append(row)
    print_sections(dataclasses.replace(result, table=_filled(rows)), TITLES, COLUMNS)


def _filled(rows):
    """Every row with all columns of its section, so that tables of different things line up."""
    columns: dict[str, dict[str, None]] = {}
    for row in rows:
        columns.setdefault(str(row.get("section")), {}).update(dict.fromkeys(row))
    return [columns[str(row.get("section"))] | dict(row) for row in rows]
