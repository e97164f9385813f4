"""`Rows`: texts as tokens of one length, padded on the left as `Prompts` are. Imports `tasks`."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from ..._types import TokenizerLike
from ...tasks import Prompts, bos_ids


@dataclasses.dataclass(frozen=True)
class Rows:
    """Token ids, and which of them are real."""

    tokens: Int[np.ndarray, "row pos"]
    mask: Bool[np.ndarray, "row pos"]

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Int[np.ndarray, "_"]) -> "Rows":
        """Some of the rows."""
        return Rows(self.tokens[rows], self.mask[rows])

    def batches(self, size: int) -> Iterator[tuple[Int[np.ndarray, "_"], int]]:
        """Rows in batches of one size, the last one filled up; and how many of them are new."""
        size = min(size, len(self))
        for begin in range(0, len(self), size):
            new = min(size, len(self) - begin)
            yield np.resize(np.arange(begin, begin + new), size), new


def rows_of(tokenizer: TokenizerLike, texts: Sequence[str], length: int) -> Rows:
    """Texts as rows of `length` tokens: longer ones lose their end.

    Raises `ValueError` for a text without tokens.

    >>> rows_of(tokenizer, split.texts, 40).tokens.shape
    """
    prefix = bos_ids(tokenizer, "model")
    tokens = np.full((len(texts), length), tokenizer.pad_id, np.int32)
    mask = np.zeros((len(texts), length), bool)
    for i, text in enumerate(texts):
        own = tokenizer.encode(text)
        if not own:
            raise ValueError(f"text {i} has no tokens ({text!r}): leave it out")
        ids = [*prefix, *own][:length]
        tokens[i, length - len(ids) :], mask[i, length - len(ids) :] = ids, True
    return Rows(tokens, mask)


def length_of(tokenizer: TokenizerLike, texts: Sequence[str], most: int) -> int:
    """Tokens of the longest text in fours, so that compiled programs are shared; at most `most`."""
    longest = max(len(tokenizer.encode(text)) for text in texts)
    return min(most, -4 * (-(longest + len(bos_ids(tokenizer, "model"))) // 4))


def prompts_of(rows: Rows, label: Int[np.ndarray, "row"]) -> Prompts:
    """Rows as prompts without pairs, the label as the answer: what nodes are scored on."""
    n = len(rows)
    one, label = jnp.ones((n, 1)), np.asarray(label, np.int32)[:, None]
    tokens = jnp.asarray(rows.tokens)
    return Prompts(
        clean=tokens,
        corrupt=tokens,
        mask=jnp.asarray(rows.mask),
        answers=jnp.asarray(label),
        answer_weights=one,
        wrongs=jnp.asarray(1 - label),
        wrong_weights=one,
        spans={},
        templates=jnp.arange(n),
        name="shift",
    )


def longest_first(rows: Rows, n: int) -> Int[np.ndarray, "row"]:
    """`n` rows, the longest among them, so that every draw is padded alike."""
    first = int(rows.mask.sum(axis=1).argmax())
    others = np.delete(np.arange(len(rows)), first)
    return np.concatenate([[first], others])[:n]
