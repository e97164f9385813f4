"""Bias in Bios (De-Arteaga et al. 2019, arXiv 1901.09451), from files that the user has.

Rows hold `hard_text`, `profession` and `gender` (0 male, 1 female), as in JSON lines or parquet of
the data set. Marks et al. 2024 (arXiv 2403.19647), section 4: professors (21) against nurses (13),
in training male professors and female nurses alone. May import `_texts` and `_phrases`.
"""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ._phrases import CONCEPTS, GENDERED, MEN, WOMEN
from ._texts import Counts, Split, Splits, Task, cells

PROFESSOR, NURSE = 21, 13
FIELDS = ("hard_text", "profession", "gender")
KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet")


def bias_in_bios(
    *paths: str | os.PathLike,
    professions: tuple[int, int] = (PROFESSOR, NURSE),
    names: tuple[str, str] = ("professor", "nurse"),
    concepts: tuple[str, ...] = CONCEPTS,
) -> Task:
    """The task of two professions from files of Bias in Bios.

    - `paths`: JSON lines (also gzipped) or parquet, all read as one set and split anew by every
      seed. `professions`: their ids, label 0 and 1; the first is male in training, the second
      female. `names`, `concepts`: for other professions, what they are called and words about them.

    Raises `FileNotFoundError` for a path that is not there, `ValueError` for a broken row, a file
    of another kind, or fewer texts than are asked for.

    >>> bias_in_bios("bios/train.jsonl").draw(0, Counts(1000, 400, 400)).test.texts[0]
    """
    texts, label, attribute = _chosen(paths, professions)

    def draw(seed: int, counts: Counts) -> Splits:
        return _splits(texts, label, attribute, names, seed, counts)

    words = GENDERED | {name.lower() for name in (*MEN, *WOMEN)}
    return Task("bias-in-bios", names, ("male", "female"), words, concepts, draw)


def _chosen(paths, professions: tuple[int, int]):
    """Texts, labels and genders of two professions."""
    if not paths:
        raise ValueError('no files: bias_in_bios("bios/train.jsonl")')
    if len(set(professions)) < 2:
        raise ValueError(f"professions={professions}: give two that differ, as in (21, 13)")
    found = [
        (text, professions.index(profession), gender)
        for path in map(Path, paths)
        for text, profession, gender in _rows(path)
        if profession in professions and text.strip()
    ]
    if not found:
        told = " or ".join(map(str, professions))
        raise ValueError(f"no text of profession {told} in {paths[0]}: give other professions=")
    texts, label, attribute = zip(*found, strict=True)
    return texts, np.asarray(label), np.asarray(attribute)


def _splits(texts, label, attribute, names, seed: int, counts: Counts) -> Splits:
    """Texts apart: the test first, whose cells are scarce."""
    rng = np.random.default_rng(seed)
    left = [rng.permutation(np.flatnonzero(2 * label + attribute == cell)) for cell in range(4)]
    parts: dict[str, Split] = {}
    for name in ("test", "balanced", "ambiguous"):
        n = getattr(counts, name)
        wanted = np.bincount(2 * _pairs(n, name)[0] + _pairs(n, name)[1], minlength=4)
        _check_enough(left, wanted, names, name)
        rows = np.concatenate([cell[:k] for cell, k in zip(left, wanted, strict=True)])
        left = [cell[k:] for cell, k in zip(left, wanted, strict=True)]
        parts[name] = Split(texts, label, attribute).take(rng.permutation(rows))
    return Splits(**parts)


def _pairs(n: int, name: str) -> tuple[Int[np.ndarray, "text"], Int[np.ndarray, "text"]]:
    return cells(n, name == "ambiguous")


def _check_enough(left, wanted, names: tuple[str, str], part: str) -> None:
    for cell, (have, k) in enumerate(zip(left, wanted, strict=True)):
        if len(have) < k:
            who = f"{('male', 'female')[cell % 2]} {names[cell // 2]}"
            raise ValueError(
                f"{len(have)} texts of {who} left for the {part} part, which asks for {k}: ask for"
                f" fewer, as in --{part} {4 * len(have) // (2 if part == 'ambiguous' else 1)}"
            )


def _rows(path: Path) -> Iterator[tuple[str, int, int]]:
    """Text, profession and gender of every row."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give the path of Bias in Bios as JSON lines")
    if not path.name.endswith(KINDS):
        raise ValueError(f"{path.name}: Bias in Bios is read from {', '.join(KINDS)}")
    records = _parquet(path) if path.suffix == ".parquet" else _lines(path)
    for number, record in enumerate(records, 1):
        try:
            text, profession, gender = (record[field] for field in FIELDS)
            row = str(text), int(profession), int(gender)
            if row[2] not in (0, 1):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f'{path.name}, row {number}: write {{"hard_text": "She ..", "profession": 13,'
                ' "gender": 1}'
            ) from None
        yield row


def _lines(path: Path) -> Iterator[Any]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open()
    with opened as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    message = f"{path.name}, line {number} is no JSON: give one object a line"
                    raise ValueError(message) from None


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(f'{path.name} needs pyarrow: pip install "jaxcirc[data]"') from None
    try:
        table = parquet.read_table(path, columns=list(FIELDS))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {str(error).splitlines()[0]}") from None
    yield from table.to_pylist()
