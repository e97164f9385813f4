"""Text to read: plain files, JSON lines, parquet, a folder of them, data sets of the Hub.

A document is one plain file, one line of JSON lines (its "text"), or one row of parquet or of a
data set. May import `_hub`.
"""

import gzip
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ._hub import PREFIX, hub_texts, parse_hub

KINDS = (".txt", ".md", ".jsonl", ".jsonl.gz", ".parquet")

PIECE = 2000
"""Characters, some rows of tokens."""


class Document(NamedTuple):
    """A text and the file or data set it came from."""

    source: str
    text: str


def read_texts(*paths: str | os.PathLike, most: int | None = None) -> Iterator[Document]:
    """The documents of files and folders, in the order of their names; empty ones left out.

    - `paths`: also `hub:OWNER/NAME[:CONFIG[:SPLIT[:FIELD]]]`, a data set of the Hugging Face Hub,
      which is read as its documents are asked for (see `_hub`).
    - `most`: characters read of each data set, from its beginning (default: all of it).

    Raises `FileNotFoundError` for a path that is not there; `ValueError` for a file of another
    kind, a broken line, a data set that cannot be read, or nothing to read at all.

    >>> [document.source for document in read_texts("corpus/")]
    """
    if not paths:
        raise ValueError("no text: give files or folders, as in --text corpus/")
    found = 0
    for path in map(str, paths):
        every = _streamed(path, most) if path.startswith(PREFIX) else _read(Path(path))
        for document in every:
            if document.text.strip():
                found += 1
                yield document
    if not found:
        named = ", ".join(map(str, paths))
        raise ValueError(f"no text in {named}: give files of kind {', '.join(KINDS)}")


def excerpts(documents: Iterable[Document], characters: int, seed: int = 0) -> list[Document]:
    """About so many characters in all: of every document one piece, drawn at random, in proportion
    to its length; of some documents, drawn alike, where the pieces would be crumbs.

    All documents are read first, so of a data set that has no end give the beginning: `most`.

    >>> excerpts(read_texts("corpus/", most=5_000_000), characters=5_000_000)
    """
    whole = _some(list(documents), characters, seed)
    share = min(1.0, characters / max(1, sum(len(document.text) for document in whole)))
    rng = np.random.default_rng(seed)
    found = []
    for source, text in whole:
        size = round(share * len(text))
        begin = int(rng.integers(0, len(text) - size + 1))
        begin = text.find(" ", begin) + 1 if begin else 0  # at a word
        found.append(Document(source, text[begin : begin + size]))
    return [document for document in found if document.text.strip()]


def _some(documents: list[Document], characters: int, seed: int) -> list[Document]:
    """As many that their pieces have `PIECE` characters on average, or are the whole of them."""
    mean = sum(len(document.text) for document in documents) / max(1, len(documents))
    n = math.ceil(characters / max(1, min(PIECE, mean)))
    if n >= len(documents):
        return documents
    drawn = np.random.default_rng((seed, 1)).choice(len(documents), n, replace=False)
    return [documents[i] for i in np.sort(drawn)]


def _streamed(words: str, most: int | None) -> Iterator[Document]:
    """A data set's documents; with `most`, as many as have so many characters."""
    source, left = parse_hub(words), most
    for text in hub_texts(source):
        text = text[:left]
        yield Document(source.name, text)
        if left is not None:
            left -= len(text)
            if left <= 0:
                return


def _read(path: Path) -> Iterator[Document]:
    for file in _files(path):
        for text in _documents(file):
            yield Document(file.name, text)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: give --text the path of your text")
    if path.is_file():
        if not path.name.endswith(KINDS):
            raise ValueError(f"{path.name}: text is read from {', '.join(KINDS)}")
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.name.endswith(KINDS))
    return [file for file in inside if file.is_file() and file.name.lower() != "readme.md"]


def _documents(file: Path) -> Iterator[str]:
    if file.name.endswith(".parquet"):
        yield from _rows(file)
    elif ".jsonl" in file.name:
        opened = gzip.open(file, "rt") if file.suffix == ".gz" else file.open()
        with opened as lines:
            yield from _lines(file, lines)
    else:
        yield file.read_text(encoding="utf-8", errors="replace")


def _lines(file: Path, lines: io.TextIOBase | gzip.GzipFile | io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(
                f'{file.name}, line {number}: each line is JSON such as {{"text": "..."}}'
            ) from None


def _rows(file: Path) -> Iterator[str]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ValueError('parquet needs pyarrow: pip install "jaxcirc[data]"') from None
    for batch in parquet.ParquetFile(file).iter_batches(columns=["text"]):
        yield from batch.column("text").to_pylist()
