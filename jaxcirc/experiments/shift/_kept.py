"""What a seed found, kept in a folder so that a killed study goes on where it was.

A section is a `Result` of its own; its result.json is written last, so that what is there is whole.
May import `_section`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .._result import Result, load_result
from ._head import Head
from ._section import Chosen, Found

Answers = Mapping[str, Int[np.ndarray, "text"]]

HEAD = ("weight", "bias", "centre", "scale")


def key_of(asked: Mapping[str, Any]) -> str:
    """Eight letters that stand for all that a section depends on."""
    said = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def save_found(found: Found, folder: Path, task: str) -> None:
    """Write the first step of a section."""
    arrays = {f"said/{name}": np.asarray(answers, np.int8) for name, answers in found.said.items()}
    arrays |= {f"head/{name}": np.asarray(getattr(found.head, name)) for name in HEAD}
    arrays |= {f"centre/{i:03}": centre for i, centre in enumerate(found.centres)}
    arrays |= {name: np.asarray(getattr(found, name), np.int8) for name in ("label", "attribute")}
    chosen = {name: vars(each) for name, each in found.chosen.items()}
    _save(arrays, {"chosen": chosen, "numbers": dict(found.facts)}, folder, task)


def read_found(folder: Path) -> Found | None:
    """Read it back; None if it is not there."""
    result = _read(folder)
    if result is None:
        return None
    arrays = result.arrays
    head = Head(*(jnp.asarray(arrays[f"head/{name}"]) for name in HEAD))
    centres = tuple(arrays[name] for name in sorted(arrays) if name.startswith("centre/"))
    chosen = {
        name: Chosen(tuple(each["names"]), tuple(each["importance"]))
        for name, each in result.facts["chosen"].items()
    }
    label, attribute = (arrays[name].astype(int) for name in ("label", "attribute"))
    numbers = result.facts["numbers"]
    return Found(_answers(result), label, attribute, head, centres, chosen, numbers)


def save_answers(answers: Answers, folder: Path, task: str) -> None:
    """Write the second step of a section."""
    arrays = {f"said/{name}": np.asarray(said, np.int8) for name, said in answers.items()}
    _save(arrays, {}, folder, task)


def read_answers(folder: Path) -> Answers | None:
    """Read it back; None if it is not there."""
    result = _read(folder)
    return None if result is None else _answers(result)


def _answers(result: Result) -> dict[str, Int[np.ndarray, "text"]]:
    named = {n.removeprefix("said/"): x for n, x in result.arrays.items() if n.startswith("said/")}
    return {name: array.astype(int) for name, array in named.items()}


def _save(arrays: Mapping[str, np.ndarray], facts: dict[str, Any], folder: Path, task: str) -> None:
    axes = {name: tuple(f"axis {i}" for i in range(x.ndim)) for name, x in arrays.items()}
    Result("shift_section", task, {}, [], arrays, axes, facts, {}).save(folder)


def _read(folder: Path) -> Result | None:
    return load_result(folder) if (folder / "result.json").is_file() else None
