"""`Contrast`: texts that show a behaviour, and texts that do not. Imports `_texts` and the tasks.

What methods look at that compare two classes of text and never patch one into the other (O'Neill &
Bui 2024, arXiv 2405.12522). The classes need not pair up, nor have one length.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from .._types import Bos, Mask, TokenizerLike, Tokens
from ._jsonl import lines_of, object_of
from ._tasks import TASKS
from ._texts import bos_ids
from .prompt import Prompts

NEGATIVES: dict[str, dict[str, Any]] = {
    "ioi": {"corruption": "abc"},
    "docstring": {"corruption": "random_random"},
}
"""What a task is asked for so that its corrupt prompts do not show the behaviour at all: three
different names, years that all end in 01 (as they are), arguments that do not match."""


class Contrast(eqx.Module):
    """Texts of two classes, the positive ones first.

    - `tokens`: Int[example pos], padded on the left. `mask`: Bool[example pos], False on padding.
    - `positive`: Bool[example]. `bos`: "always" or "never", as the rows were made.

    Raises `ValueError` for fewer than two texts of a class, or two classes of the same texts.

    >>> Contrast.of(ioi(tokenizer, n=32, corruption="abc")).positive.sum()
    """

    tokens: Tokens
    mask: Mask
    positive: Bool[np.ndarray, "example"]
    name: str = eqx.field(static=True, default="")
    bos: str = eqx.field(static=True, default="never")

    def __check_init__(self) -> None:
        counts = int(self.positive.sum()), int((~self.positive).sum())
        if min(counts) < 2:
            raise ValueError(
                f"{counts[0]} positive and {counts[1]} negative texts: give at least two of each,"
                " contrast_texts(tokenizer, positives=[...], negatives=[...])"
            )
        rows = self.rows()
        both = [
            {row for row, flag in zip(rows, self.positive, strict=True) if flag == kind}
            for kind in (True, False)
        ]
        if both[0] == both[1]:
            raise ValueError(
                "positives and negatives are the same texts: give negatives that do not show the"
                " behaviour"
            )

    @classmethod
    def of(cls, prompts: Prompts) -> "Contrast":
        """Clean prompts as positives, corrupt ones as negatives."""
        n = len(prompts)
        return cls(
            jnp.concatenate([prompts.clean, prompts.corrupt]),
            jnp.concatenate([prompts.mask, prompts.mask]),
            np.arange(2 * n) < n,
            prompts.name,
            prompts.bos,
        )

    def __len__(self) -> int:
        return len(self.positive)

    def rows(self) -> list[tuple[int, ...]]:
        """The token ids of every text, padding left out."""
        both = zip(np.asarray(self.tokens).tolist(), np.asarray(self.mask).tolist(), strict=True)
        return [tuple(t for t, real in zip(*row, strict=True) if real) for row in both]

    def take(self, indices: Sequence[int] | np.ndarray) -> "Contrast":
        """Some of the texts."""
        at = np.asarray(indices)
        arrays = self.tokens[at], self.mask[at], self.positive[at]
        return Contrast(*arrays, self.name, self.bos)

    def first(self, n: int) -> "Contrast":
        """The first n texts of either class. Raises `ValueError` if there are fewer."""
        each = [np.flatnonzero(self.positive == kind)[:n] for kind in (True, False)]
        if min(map(len, each)) < n:
            raise ValueError(
                f"there are {min(map(len, each))} texts of a class: first({n}) needs {n} of each"
            )
        return self.take(np.concatenate(each))

    def ordered(self) -> "Contrast":
        """The texts in an order that depends on nothing but themselves: positives by their ids,
        then negatives."""
        rows = self.rows()
        return self.take(sorted(range(len(self)), key=lambda i: (not self.positive[i], rows[i])))

    def hash(self) -> str:
        """sha256 of classes and ids, in the order of `ordered`."""
        rows = sorted(zip(self.positive.tolist(), self.rows(), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def contrast(
    task: str, tokenizer: TokenizerLike, n: int = 32, seed: int = 0, bos: Bos = "model"
) -> Contrast:
    """A task's prompts beside negatives that do not show its behaviour (see `NEGATIVES`).

    - `task`: a name in `TASKS`. `n`: texts of each class.

    Raises `ValueError` for an unknown task, and what the task raises.

    >>> contrast("greater_than", tokenizer, n=250)
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: the tasks are {', '.join(TASKS)}")
    return Contrast.of(TASKS[task](tokenizer, n=n, seed=seed, bos=bos, **NEGATIVES.get(task, {})))


def contrast_texts(
    tokenizer: TokenizerLike,
    positives: Sequence[str],
    negatives: Sequence[str],
    bos: Bos = "model",
    name: str = "texts",
) -> Contrast:
    """Your own texts of either class.

    - `positives`, `negatives`: lists of strings, of any lengths and any number from two on.
    - `bos`: as for `from_texts`.

    Raises `ValueError` for a string in place of a list, an empty text, and as `Contrast`.

    >>> contrast_texts(tokenizer, ["A b A", "C d C"], ["A b E", "C d F"])
    """
    for kind, texts in (("positives", positives), ("negatives", negatives)):
        if isinstance(texts, str):
            raise ValueError(f"{kind} is one string: give a list, {kind}=[{texts!r}]")
    prefix, ids = bos_ids(tokenizer, bos), []
    for text in (*positives, *negatives):
        ids.append(prefix + tokenizer.encode(text))
        if not ids[-1]:
            raise ValueError("a text is empty: leave it out, or give it a word")
    length = max(map(len, ids), default=1)
    pad = [[tokenizer.pad_id] * (length - len(row)) + row for row in ids]
    real = [np.arange(length) >= length - len(row) for row in ids]
    return Contrast(
        jnp.asarray(np.asarray(pad, np.int32).reshape(len(ids), length)),
        jnp.asarray(np.asarray(real, bool).reshape(len(ids), length)),
        np.arange(len(ids)) < len(positives),
        name,
        "always" if prefix else "never",
    )


def contrast_files(
    tokenizer: TokenizerLike,
    positives: str | os.PathLike[str],
    negatives: str | os.PathLike[str],
    bos: Bos = "model",
) -> Contrast:
    """Two text files with a text on every line; "\\n" in a line stands for a new line.

    Raises `FileNotFoundError`, and as `contrast_texts`.

    >>> contrast_files(tokenizer, "positives.txt", "negatives.txt")
    """
    read = [
        [line.replace("\\n", "\n") for _, line in lines_of(Path(p))] for p in (positives, negatives)
    ]
    return contrast_texts(tokenizer, *read, bos=bos, name=Path(positives).stem)


def contrast_jsonl(
    tokenizer: TokenizerLike, path: str | os.PathLike[str], bos: Bos = "model"
) -> Contrast:
    """A file with one object on each line: {"text": "A b A", "positive": true}.

    Raises `FileNotFoundError`, `ValueError` naming the line for another form, and as
    `contrast_texts`.

    >>> contrast_jsonl(tokenizer, "my.jsonl")
    """
    rows = list(_labelled(Path(path)))
    classes = [[text for text, flag in rows if flag == kind] for kind in (True, False)]
    return contrast_texts(tokenizer, *classes, bos=bos, name=Path(path).stem)


def _labelled(path: Path) -> Iterator[tuple[str, bool]]:
    for number, line in lines_of(path):
        row = object_of(line, f"{path}, line {number}")
        text, flag = row.get("text"), row.get("positive")
        if not isinstance(text, str) or not isinstance(flag, bool):
            raise ValueError(
                f'{path}, line {number}: write {{"text": "A b A", "positive": true}}, or false for'
                " a text without the behaviour"
            )
        yield text, flag
