"""Sections of a study, kept as they are finished, so that a killed run loses at most one.

A section is `NAME.json` beside `NAME.safetensors`; `job.json` says what all of them are of. Imports
`_claim`, `_memory` and `_result`.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from ...dictionaries.formats import write_file
from ...tasks import Interval
from .._claim import Claim
from .._memory import relieve
from .._result import Row, finite


@dataclasses.dataclass(frozen=True)
class Section:
    """What a part of a study found.

    - `rows`: of the result's table. `arrays`: by name. `claims`, `notes`: of this part. `facts`:
      what other sections need, as JSON holds it.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    claims: list[Claim] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


class Store:
    """The folder of a study's sections.

    >>> Store("runs/study", facts).section("smollm2 simple curves", lambda: Section(rows))
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]):
        self.folder = Path(folder)
        said = (json.dumps(dict(facts), sort_keys=True, default=str) + "\n").encode()
        mark = self.folder / "job.json"
        if mark.exists() and mark.read_bytes() != said:
            raise ValueError(f"{self.folder} holds another study: give another --out folder")
        if not mark.exists():
            write_file(mark, said)

    def section(self, name: str, make: Callable[[], Section]) -> Section:
        """The section of a name: read if it is there, else made and kept; then programs that a long
        study has piled up are let go."""
        stem = re.sub(r"[^\w.+-]+", "_", name)
        path = self.folder / f"{stem}.json"
        if not path.exists():
            self._keep(path, make())
            relieve()
        return _parsed(path)

    def _keep(self, path: Path, section: Section) -> None:
        arrays = {key: np.ascontiguousarray(array) for key, array in section.arrays.items()}
        write_file(path.with_suffix(".safetensors"), save(arrays))
        document = {
            "rows": finite(section.rows),
            "claims": finite([dataclasses.asdict(claim) for claim in section.claims]),
            "notes": section.notes,
            "facts": section.facts,
        }
        write_file(path, (json.dumps(document, indent=1) + "\n").encode())


def _parsed(path: Path) -> Section:
    document = json.loads(path.read_text())
    arrays = load_file(path.with_suffix(".safetensors"))
    claims = [_claim(claim) for claim in document["claims"]]
    return Section(document["rows"], arrays, claims, document["notes"], document["facts"])


def _claim(kept: Mapping[str, Any]) -> Claim:
    own = kept["found"].items()
    found: dict[str, Any] = {k: float("nan") if v is None else v for k, v in own}
    return Claim(**{**kept, "found": Interval(**found)})
