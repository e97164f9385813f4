"""The texts of the study as rows of tokens with a place, a label and a cluster each. May import
`tasks`."""

import dataclasses
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ...tasks import Prompts, bos_ids


@dataclasses.dataclass(frozen=True)
class Rows:
    """Texts of two kinds.

    - `tokens`, `mask`: [row pos], padded on the left. `place`: [row pos], what the label is about.
    - `labels`: Bool[row], the first kind. `clusters`: Int[row], rows about the same; `templates`.
    """

    tokens: Int[Array, "row pos"]
    mask: Bool[Array, "row pos"]
    place: Bool[Array, "row pos"]
    labels: Bool[np.ndarray, "row"]
    clusters: Int[np.ndarray, "row"]
    templates: Int[np.ndarray, "row"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows) -> "Rows":
        """Some of the rows."""
        rows = np.asarray(rows)
        parts = (getattr(self, field.name)[rows] for field in dataclasses.fields(self))
        return Rows(*parts)

    def spread(self, n: int) -> "Rows":
        """At most n of the rows of `filled`: whole pairs, evenly over templates and words."""
        n_pairs = len(self) // 2
        pairs = np.linspace(0, n_pairs - 1, max(1, min(n // 2, n_pairs))).astype(int)
        return self.take(np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel())


def behind_first(mask) -> Bool[Array, "row pos"]:
    """All tokens but each row's first, where the stream is an outlier in most models."""
    mask = jnp.asarray(mask, bool)
    return mask & (jnp.cumsum(mask, axis=1) > 1)


def filled(tokenizer, templates: Sequence[str], kinds: tuple[Sequence[str], Sequence[str]]) -> Rows:
    """Every template with every word of both kinds in place of {name}; the i-th words of both kinds
    are a cluster."""
    prefix = bos_ids(tokenizer, "model")
    found = []
    for t, template in enumerate(templates):
        for i, pair in enumerate(zip(*kinds, strict=True)):
            for word, label in zip(pair, (True, False), strict=True):
                ids, place = _encoded(tokenizer, template, word)
                found.append((prefix + ids, [len(prefix) + p for p in place], label, i, t))
    return _collated(tokenizer, found)


def plain(tokenizer, texts: Sequence[str]) -> Rows:
    """Texts as they are, each its own cluster."""
    prefix = bos_ids(tokenizer, "model")
    found = [(prefix + tokenizer.encode(text), [], False, i, i) for i, text in enumerate(texts)]
    return _collated(tokenizer, found)


def _encoded(tokenizer, template: str, word: str) -> tuple[list[int], list[int]]:
    """Token ids of a filled template, and the columns of the word."""
    before, after = template.split("{name}")
    ids = tokenizer.encode(before + word + after)
    behind = len(tokenizer.encode(after)) if after else 0
    front = len(tokenizer.encode(before.rstrip())) if before.strip() else 0
    return ids, list(range(front, len(ids) - behind))


def _collated(tokenizer, found) -> Rows:
    length = max(len(ids) for ids, *_ in found)
    tokens = np.full((len(found), length), tokenizer.pad_id, np.int32)
    mask, place = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, bool)
    for row, (ids, columns, *_) in enumerate(found):
        start = length - len(ids)
        tokens[row, start:], mask[row, start:] = ids, True
        place[row, start + np.asarray(columns, int)] = True
    labels, clusters, templates = (np.asarray(c) for c in list(zip(*found, strict=True))[2:])
    made = jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(place)
    return Rows(made[0], made[1], made[2], labels, clusters, templates)


def pairs_of(rows: Rows, n: int) -> Prompts:
    """n pairs of a cluster and a template, spread over all, as prompts: one kind clean, the other
    corrupt.

    Raises `ValueError` if the two texts of a pair differ in length.
    """
    sides = [np.flatnonzero(rows.labels == label) for label in (True, False)]
    chosen = np.linspace(0, len(sides[0]) - 1, min(n, len(sides[0]))).astype(int)
    one, other = (rows.take(side[chosen]) for side in sides)
    if (np.asarray(one.mask) != np.asarray(other.mask)).any():
        raise ValueError("the words of a pair differ in length: take words of one token each")
    ones = jnp.ones((len(one), 1))
    ids = jnp.zeros((len(one), 1), int)
    return Prompts(
        clean=one.tokens,
        corrupt=other.tokens,
        mask=one.mask,
        answers=ids,
        answer_weights=ones,
        wrongs=ids,
        wrong_weights=ones,
        spans={"name": one.place},
        templates=jnp.asarray(one.templates),
        name="names",
    )


def code_rows(tokenizer, n: int, window: int, seed: int) -> Rows:
    """Windows of C from the headers of this Python and of numpy, and of its standard library; the
    first half of the windows and the second share no file.

    Raises `ValueError` where there are no headers.
    """
    rng = np.random.default_rng(seed)
    prefix = bos_ids(tokenizer, "model")
    found = []
    for label, files in ((True, _headers()), (False, _modules())):
        for i in range(n):
            ids = _window(tokenizer, files[int(i >= n // 2) :: 2], window, rng)
            place = list(range(len(prefix), len(prefix) + window))
            found.append((prefix + ids, place, label, i, 0))
    return _collated(tokenizer, found)


def _headers() -> list[Path]:
    folders = [Path(sysconfig.get_paths()["include"]), Path(np.get_include())]
    files = [file for folder in folders for file in sorted(folder.rglob("*.h"))]
    if not files:
        raise ValueError("no C headers beside this Python or numpy: install python3-dev")
    return files


def _modules() -> list[Path]:
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def _window(tokenizer, files: Sequence[Path], window: int, rng) -> list[int]:
    """Tokens from the middle of a file drawn at random, beginning at a line."""
    while True:
        text = files[int(rng.integers(len(files)))].read_text(encoding="utf-8", errors="ignore")
        begin = text.find("\n", int(rng.integers(max(len(text), 1)))) + 1
        ids = tokenizer.encode(text[begin : begin + 12 * window])[:window]
        if len(ids) == window:
            return ids
