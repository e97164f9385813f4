"""`part`: arrays made once and kept, so that a job that was killed goes on where it stopped.

May import `_result`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from .._result import _atomic

Arrays = dict[str, np.ndarray]


def part(path: Path | None, make: Callable[[], Mapping[str, Any]]) -> Arrays:
    """The arrays of a file; where there is none they are made, and written whole or not at all.

    >>> part(folder / "batch-0000.safetensors", lambda: {"score": score(batch)})["score"]
    """
    if path is not None and path.exists():
        return load_file(path)
    found = {name: np.ascontiguousarray(array) for name, array in make().items()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _atomic(path, lambda to: save_file(found, to))
    return found


def claim(folder: Path, facts: Mapping[str, Any]) -> Path:
    """The folder, if it is new or belongs to this very job.

    Raises `ValueError` for one that holds another.
    """
    words, mark = (
        json.dumps(facts, indent=1, sort_keys=True, default=str) + "\n",
        folder / "job.json",
    )
    if mark.exists() and mark.read_text() != words:
        raise ValueError(f"{folder} holds another job: give another folder, --out runs/clusters-2")
    folder.mkdir(parents=True, exist_ok=True)
    _atomic(mark, lambda to: Path(to).write_text(words))
    return folder


def joined(parts: list[Arrays]) -> Arrays:
    """The arrays of several parts, end to end."""
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
