"""`from_jsonl`: prompts from a file, with a report of the lines that cannot be used.

Each line is one object:

    {"clean": "The capital of France is", "corrupt": "The capital of Poland is",
     "answers": [" Paris"], "wrongs": [" Warsaw"], "spans": {"subject": " France"}, "template": 0}

`spans` and `template` may be left out; keys that begin with "_" are the file's own. Imports
`_example`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._types import Bos, TokenizerLike
from ._example import Example, Loaded, gather

REQUIRED = ("clean", "corrupt", "answers", "wrongs")
OPTIONAL = ("spans", "template")


def from_jsonl(
    tokenizer: TokenizerLike, path: str | os.PathLike[str], bos: Bos = "model"
) -> Loaded:
    """Prompts from a file with one JSON object on each line.

    Lines whose pair this tokenizer cannot use (unequal lengths, answers of several tokens, ...) are
    dropped and reported. Prompts with the same `template` form a cluster; one without is its own.

    - `path`: the file; empty lines are skipped. `bos`: as for `from_texts`.

    Returns `Loaded(prompts, drops)`; lines count from 1. Raises `ValueError`, naming the line, for
    malformed JSON, a missing or unknown key or a value of the wrong type; or if no line is usable.

    >>> prompts, drops = from_jsonl(tokenizer, "my.jsonl")
    """
    path = Path(path)
    return gather(tokenizer, map(_example, _rows(path)), bos, path.stem, path)


def _example(numbered: tuple[int, dict[str, Any]]) -> tuple[int, Example]:
    line, row = numbered
    places = {label: _place(place) for label, place in row.get("spans", {}).items()}
    template = row.get("template", ("line", line))
    pair = row["clean"], row["corrupt"], row["answers"], row["wrongs"]
    return line, Example(*pair, spans=places, template=template)


def _rows(path: Path):
    """(line number, checked object) for every line with something on it."""
    for number, line in lines_of(path):
        where = f"{path}, line {number}"
        yield number, _checked(object_of(line, where), where)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something on them, and their numbers. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a JSON Lines file")
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield number, line


def object_of(line: str, where: str) -> dict[str, Any]:
    """The object on a line. Raises `ValueError` naming the line if there is none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg}): write one object on each line"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(f'{where}: not an object: write {{"clean": ..., "corrupt": ..., ...}}')
    return row


def _checked(row: dict[str, Any], where: str) -> dict[str, Any]:
    for key in REQUIRED:
        if key not in row:
            raise ValueError(f"{where}: no key {key!r}: every line needs {', '.join(REQUIRED)}")
    for key, value in row.items():
        _check_field(key, value, where)
    return row


def _check_field(key: str, value: Any, where: str) -> None:
    if key.startswith("_"):
        return
    if key not in REQUIRED + OPTIONAL:
        raise ValueError(
            f"{where}: unknown key {key!r}: use {', '.join(REQUIRED + OPTIONAL)}, or '_{key}' for"
            " a key of your own"
        )
    right, wanted = _FIELDS[key]
    if not right(value):
        raise ValueError(f"{where}: {key!r} is {json.dumps(value)}: it must be {wanted}")


def _place(place: str | list[Any]) -> Any:
    """JSON has no tuples."""
    return place if isinstance(place, str) else tuple(place)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_words(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_spans(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str | list) for v in value.values())


_FIELDS = {
    "clean": (_is_text, "a string"),
    "corrupt": (_is_text, "a string"),
    "answers": (_is_words, 'a string or a list of strings, [" Mary"]'),
    "wrongs": (_is_words, 'a string or a list of strings, [" John"]'),
    "spans": (_is_spans, 'an object of places in clean, {"S2": [" John", 2]}'),
    "template": (lambda value: isinstance(value, str | int), "a string or a whole number"),
}
