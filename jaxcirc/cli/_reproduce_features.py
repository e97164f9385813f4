"""`jaxcirc reproduce sparse-feature-circuits`: the study of Marks et al. 2024, section by section.

A killed run keeps the sections it has finished; the same command goes on.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..experiments import feature_circuits
from ..experiments.dictionaries import write_annotations
from ..experiments.feature_circuits import How, Subject
from ._features_source import check_text
from ._sections import print_sections
from ._show import bars, console, write

FOLDER = "sparse-feature-circuits"

TITLES = {
    "mean": "nodes at a faithfulness of 0.5, mean over tasks, beside the paper's other models",
    "half": "the same task by task",
    "errors only": "all errors and no feature",
    "share": "what errors carry of all effects by size",
    "place": "completeness gaps and shares of errors by place, integrated gradients",
    "layers": "fast scores against exact effects, by place",
    "edge quality": "edge scores against exact path patching",
    "edges kept": "faithfulness with few edges kept",
    "detection": "how well n-gram rules tell where it fires",
    "claim": "claims",
}
_TASK = ("model", "task")
_F = ("kind", "errors", "nodes at 0.5", "scalars at 0.5")
COLUMNS = {
    "mean": ("model", *_F, "best", "paper: Pythia-70M", "paper: Gemma-2-2B"),
    "half": (*_TASK, *_F, "best", "half broken by"),
    "errors only": (*_TASK, "nodes", "scalars", "faithfulness", "without it"),
    "place": (*_TASK, "place", "cut", "points", "joint effect", "gap, share", "error share"),
    "layers": (*_TASK, "place", "estimator", "points", "nodes", "r", "rank", "gap, share"),
    "edge quality": (*_TASK, "edges", "patched", "rank", "r", "same sign"),
    "edges kept": (*_TASK, "edges", "kept", "of", "faithfulness"),
    "claim": ("verdict", "claim", "found", "paper (other model)"),
}
"""What is printed of the wide rows; `table.csv` holds all."""


def reproduce_features(
    preset: str,
    model: str | None,
    out: Path,
    *,
    dictionaries: Path | None = None,
    start: int | None = None,
    **how: Any,
) -> None:
    """Run the study, print its table, and write its figures, claims and annotations.

    - `model`: one of the preset's (default: all). `dictionaries`: the folder of the paper's.
      `start`: the first layer that is judged (default: the preset's). `how`: see `How`.
    """
    subjects = feature_circuits.subjects_of(preset, model)
    if start is not None:
        subjects = tuple(dataclasses.replace(subject, start=start) for subject in subjects)
    folder = out / f"{FOLDER}-{preset}"
    _check(subjects, dictionaries, how.get("text", ()))
    with bars() as tell:
        result, notes = feature_circuits.study_feature_circuits(
            _loaded(subjects, dictionaries), folder, how=How(**how), tell=tell
        )
    print_sections(result, TITLES, COLUMNS)
    write(result, out)
    path = write_annotations(notes, out / result.name / "annotations.jsonl")
    console.print(f"and {path.name}; sections kept in {folder}")


def _check(subjects: Sequence[Subject], folder: Path | None, text: Sequence[Path]) -> None:
    """Refuse what can be before any model is loaded."""
    for subject in subjects:
        feature_circuits.check_subject(subject, _own(subject, folder))
    check_text(text)


def _loaded(subjects: Sequence[Subject], folder: Path | None):
    """The subjects, loaded."""
    return [feature_circuits.load_subject(one, _own(one, folder)) for one in subjects]


def _own(subject: Subject, folder: Path | None) -> Path | None:
    """Of the paper's dictionaries, which for several models lie in folders of their names."""
    own = None if folder is None else folder / subject.model
    return own if own is not None and own.is_dir() else folder
