"""Text and JSON files, written whole or not at all. Imports nothing of jaxcirc."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> Path:
    return write(path, json.dumps(document, allow_nan=False))


def write(path: str | os.PathLike, text: str) -> Path:
    """Under a temporary name first, so that a reader sees all of it or nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path
