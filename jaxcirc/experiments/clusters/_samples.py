"""`find_samples`: tokens of a text that a model predicts well, each with the context before it.

Marks et al. 2024 (arXiv 2403.19647), section 5, after Michaud et al. 2023 (arXiv 2303.13506): the
next token costs less than a threshold, one sample a document (or a window of text), and tokens that
copy an n-gram of their own context are set aside. May import `taps`, `tasks`, `dictionaries`.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._types import Mask, Progress, Tokens
from ...dictionaries.train import Contexts
from ...taps import run
from ...tasks import Prompts
from ._parts import part

Repeats = Literal["drop", "keep"]
Each = Literal["window", "document"]

TRIGRAM = 3
"""Tokens of an n-gram that counts as copied, the answer among them."""

BLOCK = 256
"""Windows whose losses one file holds."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Next tokens that a model predicts well, and the contexts that it predicts them from.

    - `tokens`, `mask`: [sample pos], padded on the left. `answers`: the next token. `loss`: its
      -log probability, in nats. `document`: of the text. `copied`: how many tokens of the longest
      n-gram that ends in the answer and stood in the context before, at most 3.
    - `bos`: whether contexts begin with that token.
    """

    tokens: Int[np.ndarray, "sample pos"]
    mask: Bool[np.ndarray, "sample pos"]
    answers: Int[np.ndarray, "sample"]
    loss: Float[np.ndarray, "sample"]
    document: Int[np.ndarray, "sample"]
    copied: Int[np.ndarray, "sample"]
    bos: str = "never"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def before(self) -> Int[np.ndarray, "sample 2"]:
        """The two tokens in front of each answer."""
        return self.tokens[:, -2:]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Samples":
        """Some of the samples."""
        fields = ("tokens", "mask", "answers", "loss", "document", "copied")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in fields})

    def prompts(self) -> Prompts:
        """Each sample as a prompt whose answer is its next token; no wrongs, corrupt as clean.

        >>> nodes(model, samples.prompts(), basis, "log_probability", patch="zero")
        """
        n, tokens = len(self), jnp.asarray(self.tokens)
        return Prompts(
            clean=tokens,
            corrupt=tokens,
            mask=jnp.asarray(self.mask),
            answers=jnp.asarray(self.answers)[:, None],
            answer_weights=jnp.ones((n, 1)),
            wrongs=jnp.zeros((n, 0), int),
            wrong_weights=jnp.zeros((n, 0)),
            spans={},
            templates=jnp.arange(n),
            name="clusters",
            bos=self.bos,
        )

    def hash(self) -> str:
        """sha256 of contexts and answers."""
        parts = (self.tokens, self.mask, self.answers)
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(p).tobytes() for p in parts)
        ).hexdigest()


def find_samples(
    model,
    contexts: Contexts,
    n: int,
    *,
    threshold: float = 0.3,
    shortest: int = 8,
    repeats: Repeats = "drop",
    each: Each = "window",
    seed: int = 0,
    bos: str = "never",
    batch: int = 16,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Samples:
    """The first `n` samples of some windows of text, one a window or a document.

    - `contexts`: windows; a sample's context is what stands before it in its window.
    - `threshold`: nats that the next token may cost. `shortest`: tokens a context has at least.
      `repeats`: "drop" leaves out answers that copy a trigram of their context.
    - `seed`: of the draw among a window's tokens. `folder`: keeps losses, so that a second call
      does not run what is there.

    Raises `ValueError` for windows that are too short, and where no token is predicted so well.

    >>> find_samples(model, contexts, 1000, threshold=0.3).loss.max()
    """
    _check(contexts, n, threshold, shortest, repeats, each)
    found: list[tuple] = []
    used: set[int] = set()
    for begin in range(0, len(contexts), BLOCK):
        some = contexts.take(slice(begin, begin + BLOCK))
        path = None if folder is None else folder / f"loss-{begin // BLOCK:04}.safetensors"
        make = partial(_losses, model, some, shortest, batch)
        loss = part(path, make)["loss"]
        for row in range(len(some)):
            document = int(some.document[row])
            if len(found) < n and not (each == "document" and document in used):
                one = _pick(some, row, loss[row], threshold, shortest, repeats, (seed, begin + row))
                found += one
                used.update([document] * len(one))
        if progress is not None:
            progress(len(found), n)
        if len(found) == n:
            break
    if not found:
        raise ValueError(
            f"no token of {len(contexts)} windows costs less than {threshold} nats behind"
            f" {shortest} tokens: --threshold {2 * threshold:g}"
        )
    return _laid(found, contexts.length - 1, bos)


def _check(contexts: Contexts, n: int, threshold: float, shortest: int, repeats, each) -> None:
    if n < 1 or threshold <= 0:
        raise ValueError("find_samples(model, contexts, 1000, threshold=0.3): both above 0")
    if not 2 <= shortest < contexts.length:
        raise ValueError(
            f"shortest={shortest}: windows have {contexts.length} tokens, so give 2 to"
            f" {contexts.length - 1}"
        )
    for name, value, known in (("repeats", repeats, Repeats), ("each", each, Each)):
        if value not in get_args(known):
            words = " or ".join(map(repr, get_args(known)))
            raise ValueError(f"{name}={value!r}: use {words}")


def _losses(model, contexts: Contexts, shortest: int, batch: int) -> dict[str, np.ndarray]:
    """-log probability of the tokens behind `shortest` or more, inf at padding."""
    rows = []
    with jax.default_matmul_precision("highest"):
        for begin in range(0, len(contexts), batch):
            at = np.arange(begin, min(begin + batch, len(contexts)))
            some = contexts.take(np.resize(at, batch))
            tokens, mask = jnp.asarray(some.tokens), jnp.asarray(some.mask, bool)
            found = next_losses(model, tokens, mask, shortest=shortest)
            rows.append(np.asarray(found, np.float32)[: len(at)])
    return {"loss": np.concatenate(rows)}


@partial(jax.jit, static_argnames=("shortest",))
def next_losses(model, tokens: Tokens, mask: Mask, *, shortest: int) -> Float[Array, "batch from"]:
    """-log P of every token that has `shortest` or more before it, in nats; inf at padding."""
    at = jnp.arange(shortest - 1, tokens.shape[1] - 1)
    columns = jnp.broadcast_to(at, (len(tokens), len(at)))
    logits, _ = run(model, tokens, mask=mask, logits_at=columns)
    assert logits is not None
    told = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    loss = -jnp.take_along_axis(told, tokens[:, shortest:, None], axis=-1)[..., 0]
    return jnp.where(mask[:, shortest:], loss, jnp.inf)


def _pick(contexts: Contexts, row: int, loss, threshold, shortest, repeats, seed) -> list[tuple]:
    """One sample of a window, or none."""
    ids = contexts.tokens[row].tolist()
    good = [
        (shortest + int(i), copied(ids[: shortest + int(i)], ids[shortest + int(i)]))
        for i in np.flatnonzero(loss < threshold)
    ]
    if repeats == "drop":
        good = [(at, n) for at, n in good if n < TRIGRAM]
    if not good:
        return []
    at, n = good[int(np.random.default_rng(seed).integers(len(good)))]
    return [(ids[:at], ids[at], float(loss[at - shortest]), int(contexts.document[row]), n)]


def copied(context: Sequence[int], answer: int) -> int:
    """How many tokens of the longest n-gram ending in `answer` stood in the context before, from 0
    to 3.

    >>> copied([5, 6, 7, 8, 5, 6], 7), copied([5, 6, 7, 8, 9, 6], 7), copied([5, 6, 7], 4)
    (3, 2, 0)
    """
    text = [*context, answer]
    n = 0
    while n < min(TRIGRAM, len(context)):
        end = text[-n - 1 :]
        if not any(text[i : i + n + 1] == end for i in range(len(text) - n - 1)):
            break
        n += 1
    return n


def _laid(found: Sequence[tuple], width: int, bos: str) -> Samples:
    contexts, answers, loss, document, copies = zip(*found, strict=True)
    tokens, mask = np.zeros((len(found), width), np.int32), np.zeros((len(found), width), bool)
    for i, ids in enumerate(contexts):
        tokens[i, width - len(ids) :], mask[i, width - len(ids) :] = ids, True
    return Samples(
        tokens,
        mask,
        np.asarray(answers, np.int32),
        np.asarray(loss, np.float32),
        np.asarray(document),
        np.asarray(copies),
        bos,
    )


def commonest(values: Sequence) -> tuple[object, float]:
    """The most frequent of some values, and its share."""
    value, count = Counter(values).most_common(1)[0]
    return value, count / len(values)
