"""What the study is run on, and how: a model with dictionaries, checked and loaded.

May import `models`, `dictionaries`, `circuits`.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ... import models
from ...circuits.features import Basis
from ...dictionaries import shipped_places
from ._presets import NEXT, Subject
from ._prompts import check_task
from ._suites import paper_basis, paper_files, suite_basis


@dataclasses.dataclass(frozen=True)
class Ready:
    """A subject with its model, tokenizer and basis of dictionaries."""

    subject: Subject
    model: Any
    tokenizer: Any
    basis: Basis


@dataclasses.dataclass(frozen=True)
class How:
    """Choices of the whole study.

    - `method`: of node scores ("ig", "atp" or "relp"). `value`: what ablation sets nodes to
      ("mean", "resample" or "zero"). `text`: files or folders of text (default: the model's own).
      `known`: keep prompts alone that the model answers right both ways.
    """

    method: str = "ig"
    value: str = "mean"
    text: tuple[Path, ...] = ()
    seed: int = 0
    batch: int = 24
    known: bool = True


def digest(basis: Basis) -> str:
    """The first digits of the sha256 of a basis's arrays and places."""
    found = hashlib.sha256(repr(basis.places).encode())
    for leaf in jax.tree.leaves(basis):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def check_subject(subject: Subject, folder: Path | None = None, root: Path | None = None) -> None:
    """Refuse a subject before its model is loaded.

    Raises `ValueError` or `FileNotFoundError` for a suite that is not there, no folder or one
    without the paper's dictionaries, and a task that is not known.
    """
    for task in subject.tasks:
        if task != NEXT:
            check_task(task)
    if subject.suite:
        shipped_places(subject.suite, root)
    elif folder is None:
        raise ValueError(
            f"{subject.model} has no shipped dictionaries: --dictionaries FOLDER, as downloaded"
        )
    else:
        paper_files(folder, 1)


def load_subject(subject: Subject, folder: Path | None = None, root: Path | None = None) -> Ready:
    """Load a subject's model and dictionaries.

    - `folder`: of the paper's dictionaries, where a subject has no suite. `root`: of the suites.

    Raises what `check_subject`, `load_model`, `suite_basis` and `paper_basis` raise.

    >>> load_subject(subjects_of("paper", "pythia-70m-deduped")[0], Path("pythia-70m-deduped"))
    """
    check_subject(subject, folder, root)
    model, tokenizer = models.load_model(subject.model)
    if subject.suite:
        model, basis = suite_basis(model, subject.suite, root)
    else:
        assert folder is not None
        model, basis = paper_basis(model, folder)
    return Ready(subject, model, tokenizer, basis)
