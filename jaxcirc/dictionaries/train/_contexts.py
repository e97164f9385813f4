"""`Contexts`: token ids in rows of one length, with the document and the place each came from.

May import `_text`, `formats` and the tokenizer's type.
"""

import dataclasses
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from ..._types import Bos, Progress, TokenizerLike
from ...taps import generate
from ..formats import write_file
from ._text import Document


@dataclasses.dataclass(frozen=True)
class Contexts:
    """Rows of tokens, each of one document.

    - `document`: the number of each row's document. `begins`: where in its document each row
      begins, in tokens. `mask`: False at padding. `sources`: each document's file.
    """

    tokens: Int[np.ndarray, "context pos"]
    mask: Bool[np.ndarray, "context pos"]
    document: Int[np.ndarray, "context"]
    begins: Int[np.ndarray, "context"]
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Tokens in a row."""
        return self.tokens.shape[1]

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> "Contexts":
        """Some of the rows."""
        tokens, mask, document, begins = (
            part[rows] for part in (self.tokens, self.mask, self.document, self.begins)
        )
        return Contexts(tokens, mask, document, begins, self.sources)

    def hash(self) -> str:
        """sha256 of tokens and mask."""
        parts = np.asarray(self.tokens, np.int32), np.asarray(self.mask, bool)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def pack(
    documents: Iterable[Document],
    tokenizer: TokenizerLike,
    length: int = 128,
    tokens: int | None = None,
    *,
    bos: Bos = "model",
    seed: int = 0,
) -> Contexts:
    """Cut documents into rows of `length` tokens, and shuffle the rows.

    - `tokens`: keep so many to learn from (padding and the first of each row do not count), drawn
      from all of the text. `bos`: whether each row begins with that token. `seed`: of the order.

    A document's last row is filled up with padding, which the mask leaves out; one of less than a
    quarter is dropped. Raises `ValueError` if there is nothing to cut.

    >>> pack(read_texts("corpus/"), tokenizer, length=128, tokens=1_000_000)
    """
    begin = _begin(tokenizer, bos)
    room, rows, sources = length - len(begin), [], []
    for number, document in enumerate(documents):
        sources.append(document.source)
        ids = np.asarray(tokenizer.encode(document.text), np.int32)
        for at in range(0, len(ids), room):
            if len(ids) - at >= room or (len(ids) - at >= length // 4):
                rows.append((number, at, ids[at : at + room]))
    if not rows:
        raise ValueError(
            f"the text is shorter than a quarter of a row: give more, or --context {length // 4}"
        )
    found = _laid(rows, begin, length, tokenizer.pad_id, tuple(sources), seed)
    return found if tokens is None else found.take(slice(_enough(found.mask, tokens)))


def _enough(mask: Bool[np.ndarray, "context pos"], tokens: int) -> int:
    """Rows whose tokens, without padding and the first of each, are so many."""
    return 1 + int(np.searchsorted(np.cumsum(mask[:, 1:].sum(axis=1)), tokens))


def _begin(tokenizer: TokenizerLike, bos: Bos) -> list[int]:
    if bos == "never" or (bos == "model" and not tokenizer.adds_bos):
        return []
    if tokenizer.bos_id is None:
        raise ValueError('this tokenizer has no token to begin with: bos="never"')
    return [tokenizer.bos_id]


def _laid(rows, begin: list[int], length: int, pad: int, sources, seed: int) -> Contexts:
    order = np.random.default_rng(seed).permutation(len(rows))
    tokens = np.full((len(rows), length), pad, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(order):
        ids = np.concatenate([begin, rows[row][2]]).astype(np.int32)
        tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
    document, begins = (np.asarray([rows[row][part] for row in order]) for part in (0, 1))
    return Contexts(tokens, mask, document, begins, sources)


def sampled(
    model,
    tokenizer: TokenizerLike,
    tokens: int,
    length: int = 128,
    *,
    seed: int = 0,
    stream: str = "train",
    bos: Bos = "model",
    temperature: float = 1.0,
    batch: int = 128,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Contexts:
    """Text drawn from the model itself: no data is needed, and none is more its own.

    Every row starts from a token drawn among the whole vocabulary (or from the one that texts begin
    with, if `bos` says so) and goes on by sampling. `seed` and `stream`, which says what the text
    is for ("train", "judge"), name it in `sources`; no draw of one stream is one of another.

    - `folder`: keeps every batch as soon as it is drawn; what lies there is not drawn again.

    >>> sampled(model, tokenizer, tokens=200_000)
    """
    number = zlib.crc32(stream.encode())
    own = jax.random.fold_in(jax.random.key(seed), number)
    begin = _begin(tokenizer, bos)

    def draw(i: int) -> Int[np.ndarray, "batch pos"]:
        rng = np.random.default_rng([seed, number, i])
        first = rng.integers(0, model.config.vocab, (batch, 1)).astype(np.int32)
        first = np.full_like(first, begin[0]) if begin else first
        key = jax.random.fold_in(own, i)
        rest = generate(model, jnp.asarray(first), n=length - 1, key=key, temperature=temperature)
        return np.concatenate([first, np.asarray(rest)], axis=1)

    n = max(1, -(-tokens // length))
    parts = []
    for i, at in enumerate(range(0, n, batch)):
        parts.append(draw(i) if folder is None else _kept(folder / f"{i:05}.npy", partial(draw, i)))
        if progress is not None:
            progress(min(n, at + batch), n)
    found = np.concatenate(parts)[:n]
    numbers, source = np.arange(n), f"sampled from the model ({stream}, seed {seed})"
    return Contexts(found, np.ones_like(found, bool), numbers, np.zeros_like(numbers), (source,))


def _kept(path: Path, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """An array from its file, or drawn and then written there at once or not at all."""
    if not path.exists():
        buffer = io.BytesIO()
        np.save(buffer, draw())
        write_file(path, buffer.getvalue())
    return np.load(path)
