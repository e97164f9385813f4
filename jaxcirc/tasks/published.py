"""Prompt sets in the forms that others publish them in, encoded anew with the tokenizer at hand.

Token ids and lengths in such files belong to the model they were made for, so every pair is checked
again, and those that do not fit are dropped and reported. Imports `_example` and `_jsonl`.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from .._types import Bos, TokenizerLike
from ._example import Example, Loaded, gather
from ._greater_than import DIGITS, PAIRS, follows
from ._jsonl import lines_of, object_of
from ._places import Place

Column = Literal["corrupted", "corrupted_hard"]


def from_feature_circuits(
    tokenizer: TokenizerLike, path: str | os.PathLike[str], bos: Bos = "model"
) -> Loaded:
    """Pairs of `saprmarks/feature-circuits`, subject-verb agreement and others, in JSON lines.

    Each line is `{"clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case"}`. Lines
    with the same clean prefix form a cluster.

    - `bos`: as for `from_texts`.

    Returns `Loaded(prompts, drops)`. Raises `ValueError`, naming line and key, for a line of
    another form; or if no line is usable.

    >>> prompts, drops = from_feature_circuits(tokenizer, "nounpp_train.json")
    """
    path = Path(path)
    return gather(tokenizer, _feature_circuits(path), bos, path.stem, path)


def _feature_circuits(path: Path) -> Iterator[tuple[int, Example]]:
    keys = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")
    for number, line in lines_of(path):
        where = f"{path}, line {number}"
        row = object_of(line, where)
        clean, corrupt, answer, wrong = (_text(row, key, where) for key in keys)
        yield number, Example(clean, corrupt, answer, wrong, template=clean)


def from_auto_circuit(
    tokenizer: TokenizerLike, path: str | os.PathLike[str], bos: Bos = "model"
) -> Loaded:
    """Pairs of `UFO-101/auto-circuit`: one JSON document with a list of prompts.

    The document is `{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}, ...],
    "seq_labels": [...], "word_idxs": {...}}`. The labels count the tokens of another tokenizer:
    `word_idxs` become spans in those prompts that have as many tokens as there are labels, BOS not
    counted. Prompts with the same clean text form a cluster.

    - `bos`: as for `from_texts`.

    Returns `Loaded(prompts, drops)`; prompts count from 1. Raises `ValueError`, naming prompt and
    key, for another form (such as token ids in place of texts); or if no prompt is usable.

    >>> prompts, drops = from_auto_circuit(tokenizer, "ioi_vanilla_template_prompts.json")
    """
    path = Path(path)
    return gather(tokenizer, _auto_circuit(tokenizer, path), bos, path.stem, path)


def _auto_circuit(tokenizer: TokenizerLike, path: Path) -> Iterator[tuple[int, Example]]:
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("prompts"), list):
        raise ValueError(f'{path}: no list under "prompts": give a file of auto-circuit\'s form')
    length, places = _labelled(document, path)
    for number, row in enumerate(document["prompts"], start=1):
        where = f"{path}, prompt {number}"
        if not isinstance(row, dict):
            raise ValueError(f'{where}: not an object: it must be {{"clean": ..., ...}}')
        clean, corrupt = _text(row, "clean", where), _text(row, "corrupt", where)
        answers = _texts(row, "answers", where), _texts(row, "wrong_answers", where)
        spans = places if len(tokenizer.encode(clean)) == length else {}
        yield number, Example(clean, corrupt, *answers, spans=spans, template=clean)


def _labelled(document: Mapping[str, Any], path: Path) -> tuple[int, dict[str, Place]]:
    """How many tokens are labelled, and the labelled ones, BOS not counted."""
    labels, columns = document.get("seq_labels") or [], document.get("word_idxs") or {}
    numbers = isinstance(columns, dict) and all(type(i) is int for i in columns.values())
    if not isinstance(labels, list) or not numbers:
        raise ValueError(
            f'{path}: "seq_labels" must be a list and "word_idxs" an object of whole numbers:'
            " correct them or leave both out"
        )
    first = int(bool(labels) and labels[0] == "BOS")
    kept = {label: i - first for label, i in columns.items() if first <= i < len(labels)}
    return len(labels) - first, {label: (i, i + 1) for label, i in kept.items()}


def from_eap_ig(
    tokenizer: TokenizerLike,
    path: str | os.PathLike[str],
    bos: Bos = "model",
    *,
    corrupt: Column = "corrupted",
) -> Loaded:
    """Pairs of `hannamw/EAP-IG` in CSV: indirect object identification, or greater-than.

    IOI has the columns clean, corrupted (a new second subject) and corrupted_hard (the indirect
    object there): the names are read off the texts, since the ids in the file are of another
    tokenizer. Greater-than has clean, corrupted and label, the last two digits of the year: answers
    and wrongs are as for `greater_than`, and where digits are tokens apart, the label's own first
    digit is neither. Rows with the same clean text form a cluster.

    - `bos`: as for `from_texts`. `corrupt`: which column of IOI is the corrupt prompt.

    Returns `Loaded(prompts, drops)`; lines count from 1, the header's. Raises `ValueError`, naming
    line and column, for another form; or if no row is usable.

    >>> prompts, drops = from_eap_ig(tokenizer, "ioi_llama.csv", corrupt="corrupted_hard")
    """
    if corrupt not in ("corrupted", "corrupted_hard"):
        raise ValueError(f'corrupt={corrupt!r}: use corrupt="corrupted" or "corrupted_hard"')
    path = Path(path)
    return gather(tokenizer, _eap_ig(tokenizer, path, corrupt), bos, path.stem, path)


def _eap_ig(tokenizer: TokenizerLike, path: Path, column: Column) -> Iterator[tuple[int, Example]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a CSV file")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        years = "label" in (reader.fieldnames or ())
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            example = _later(tokenizer, row, where) if years else _named(row, column, where)
            yield reader.line_num, example


def _named(row: Mapping[str, Any], column: Column, where: str) -> Example:
    """IOI: S stands where corrupted_hard has IO."""
    keys = ("clean", column, "corrupted_hard")
    clean, corrupt, hard = (_text(row, key, where) for key in keys)
    changed = [
        pair for pair in zip(clean.split(), hard.split(), strict=False) if pair[0] != pair[1]
    ]
    if len(changed) != 1 or len(clean.split()) != len(hard.split()):
        raise ValueError(f"{where}: 'corrupted_hard' must differ from 'clean' in one name")
    subject, io = (" " + word.strip(".,;:!?") for word in changed[0])
    return Example(clean, corrupt, io, subject, template=clean)


def _later(tokenizer: TokenizerLike, row: Mapping[str, Any], where: str) -> Example:
    """Greater-than: all that makes a later year, against all that does not."""
    clean, corrupt, label = (_text(row, key, where) for key in ("clean", "corrupted", "label"))
    if len(label) > 2 or not label.isdecimal():
        raise ValueError(f"{where}: 'label' is {label!r}: it must be the last two digits of a year")
    label = label.zfill(2)
    after = [pair for pair in PAIRS if follows(tokenizer, clean[-2:], pair)]
    if not after:
        after, label = list(DIGITS), label[0]
        others = [digit for digit in after if digit < label]
    else:
        others = [pair for pair in after if pair <= label]
    return Example(clean, corrupt, [d for d in after if d > label], others, template=clean)


def read_json(path: Path) -> Any:
    """A JSON document. Raises `FileNotFoundError`, or `ValueError` naming line and column."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if row.get(key) is None:
        raise ValueError(f"{where}: no {key!r}: it has {', '.join(map(repr, row))}")
    if not isinstance(row[key], str):
        raise ValueError(f"{where}: {key!r} is {json.dumps(row[key])}: it must be a string")
    return row[key]


def _texts(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    values = row.get(key)
    if values is None:
        raise ValueError(f"{where}: no {key!r}: it has {', '.join(map(repr, row))}")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(
            f'{where}: {key!r} is {json.dumps(values)}: it must be a list of strings, [" Mary"]'
        )
    return values
