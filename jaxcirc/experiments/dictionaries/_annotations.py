"""Annotations of features as JSON lines: what people, or explainers, say a feature is.

    {"model": "smollm2-135m", "place": "resid_post.12", "feature": 17, "text": "days", "by": "me"}

May import `dictionaries`.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ...dictionaries.formats import write_file


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What a feature is, in words.

    - `place`: "resid_post.12". `by`: who says so. `score`: how well it holds, if that was measured.
    """

    feature: int
    text: str
    model: str = ""
    place: str = ""
    by: str = ""
    score: float | None = None


def write_annotations(annotations: Iterable[Annotation], path: str | os.PathLike) -> Path:
    """One line of JSON an annotation; written under a temporary name first.

    >>> write_annotations([Annotation(17, "days of the week")], "notes.jsonl")
    """
    lines = [json.dumps(dataclasses.asdict(each), ensure_ascii=False) for each in annotations]
    return write_file(path, "".join(f"{line}\n" for line in lines).encode())


def read_annotations(path: str | os.PathLike) -> list[Annotation]:
    """Read them back; keys that are not known are passed over.

    Raises `ValueError`, naming the line, where it is no JSON object with "feature" and "text".

    >>> read_annotations("notes.jsonl")[0].text
    """
    known = {field.name for field in dataclasses.fields(Annotation)}
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            kept = {name: value for name, value in record.items() if name in known}
            found.append(Annotation(int(kept.pop("feature")), str(kept.pop("text")), **kept))
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f'{Path(path).name}, line {number}: write {{"feature": 17, "text": "days"}}'
            ) from None
    return found
