"""`from_texts`: strings to `Prompts`. Every check that a pair must pass is here. Imports `prompt`.

Pairs must align token by token (Zhang & Nanda 2023, arXiv 2309.16042, section 2.1), and answers are
scored on one token.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types import Bos, TokenizerLike
from ._places import Place, columns_of
from .prompt import Prompts

Words = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Pair:
    """One encoded pair: token ids (BOS included), answer ids, and the columns of every span."""

    clean: list[int]
    corrupt: list[int]
    answers: list[int]
    wrongs: list[int]
    spans: dict[str, list[int]]
    texts: tuple[str, str]


def from_texts(
    tokenizer: TokenizerLike,
    clean: Sequence[str],
    corrupt: Sequence[str],
    answer: Sequence[Words],
    wrong: Sequence[Words],
    bos: Bos = "model",
    *,
    spans: Sequence[Mapping[str, Place]] | None = None,
    templates: Sequence[int] | None = None,
    name: str = "texts",
) -> Prompts:
    """Prompts from lists of strings, one entry for each pair.

    - `clean`, `corrupt`: the two texts of a pair must have equally many tokens, and differ.
    - `answer`, `wrong`: for each pair a string or several, of one token each; their leading space
      is kept. Several share the weight equally.
    - `bos`: whether rows begin with BOS: "model" (as the model was meant to), "always" or "never".
    - `spans`: for each pair, names with places in the clean text: a part that occurs once;
      (part, k) for its k-th occurrence, from 1; or (start, stop) in tokens, BOS not counted.
    - `templates`: a cluster for each pair (default: each its own).

    Returns `Prompts`. Raises `ValueError`, naming the pair and the fix, where this does not hold.

    >>> from_texts(
    ...     tokenizer,
    ...     clean=["The capital of France is"],
    ...     corrupt=["The capital of Poland is"],
    ...     answer=[" Paris"],
    ...     wrong=[" Warsaw"],
    ...     spans=[{"subject": " France"}],
    ... )
    """
    columns: dict[str, Sequence[Any]] = {
        "clean": clean,
        "corrupt": corrupt,
        "answer": answer,
        "wrong": wrong,
        "spans": [{}] * len(clean) if spans is None else spans,
        "templates": range(len(clean)) if templates is None else templates,
    }
    _check_columns(columns)
    prefix = bos_ids(tokenizer, bos)
    pairs = []
    for i, (left, right, answers, wrongs, places, _) in enumerate(
        zip(*columns.values(), strict=True)
    ):
        try:
            pairs.append(encode_pair(tokenizer, prefix, left, right, answers, wrongs, places))
        except ValueError as error:
            raise ValueError(f"pair {i}: {error}") from None
    return collate(pairs, list(columns["templates"]), tokenizer.pad_id, prefix, name)


def _check_columns(columns: Mapping[str, Sequence[Any]]) -> None:
    for name, column in columns.items():
        if isinstance(column, str):
            raise ValueError(f"{name} is one string: give a list, {name}=[{column!r}]")
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"lists of different sizes ({told}): give one entry for each pair in each")
    if sizes["clean"] == 0:
        raise ValueError('the prompt list is empty: give at least one pair, clean=["..."]')


def bos_ids(tokenizer: TokenizerLike, bos: Bos) -> list[int]:
    """What every row begins with: [the BOS id] or []."""
    if bos not in ("model", "always", "never"):
        raise ValueError(f'bos={bos!r}: use bos="model", bos="always" or bos="never"')
    if bos == "never" or (bos == "model" and not tokenizer.adds_bos):
        return []
    if tokenizer.bos_id is None:
        raise ValueError(f'bos={bos!r}, but this tokenizer has no BOS token: use bos="never"')
    return [tokenizer.bos_id]


def encode_pair(
    tokenizer: TokenizerLike,
    prefix: list[int],
    clean: str,
    corrupt: str,
    answers: Words,
    wrongs: Words,
    places: Mapping[str, Place],
) -> Pair:
    """Token ids of one pair. Raises `ValueError` for whatever makes it unusable."""
    left, right = tokenizer.encode(clean), tokenizer.encode(corrupt)
    if not left:
        raise ValueError("clean is empty: give it some text")
    if len(left) != len(right):
        raise ValueError(
            f"clean has {len(left)} tokens {_pieces(tokenizer, left)} and corrupt {len(right)}"
            f" {_pieces(tokenizer, right)}: replace words by words of as many tokens"
        )
    if left == right:
        raise ValueError(f"clean and corrupt are identical ({clean!r}): change a word of corrupt")
    good, bad = _single(tokenizer, answers, "answer"), _single(tokenizer, wrongs, "wrong")
    for token in good:
        if token in bad:
            word = tokenizer.decode([token])
            raise ValueError(f"{_quoted(word)} is both answer and wrong: use different words")
    spans = {
        label: [len(prefix) + column for column in columns_of(tokenizer, left, label, place)]
        for label, place in places.items()
    }
    return Pair(prefix + left, prefix + right, good, bad, spans, (clean, corrupt))


def _single(tokenizer: TokenizerLike, words: Words, kind: str) -> list[int]:
    """The ids of one-token words, each once."""
    words = [words] if isinstance(words, str) else list(words)
    if not words:
        raise ValueError(f'no {kind} is given: give at least one, such as " Mary"')
    return list(dict.fromkeys(_one_token(tokenizer, word, kind) for word in words))


def _one_token(tokenizer: TokenizerLike, word: str, kind: str) -> int:
    ids = tokenizer.encode(word)
    if len(ids) == 1:
        return ids[0]
    spaced = " " + word.strip()
    works = word.strip() and len(tokenizer.encode(spaced)) == 1
    example = spaced if works else " Mary"
    raise ValueError(
        f"{kind} {_quoted(word)} is {len(ids)} tokens {_pieces(tokenizer, ids)}: use a single-token"
        f" {kind}{',' if works else ' such as'} {_quoted(example)} with its leading space"
    )


def _pieces(tokenizer: TokenizerLike, ids: Sequence[int]) -> str:
    return f"[{', '.join(_quoted(tokenizer.decode([i])) for i in ids)}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def collate(
    pairs: Sequence[Pair], templates: Sequence[int], pad_id: int, prefix: list[int], name: str
) -> Prompts:
    """Encoded pairs as arrays, padded on the left."""
    length = max(len(pair.clean) for pair in pairs)
    answers, answer_weights = _sets([pair.answers for pair in pairs])
    wrongs, wrong_weights = _sets([pair.wrongs for pair in pairs])
    starts = np.asarray([length - len(pair.clean) for pair in pairs])
    labels = dict.fromkeys(label for pair in pairs for label in pair.spans)
    return Prompts(
        clean=_rows([pair.clean for pair in pairs], length, pad_id),
        corrupt=_rows([pair.corrupt for pair in pairs], length, pad_id),
        mask=jnp.asarray(np.arange(length) >= starts[:, None]),
        answers=answers,
        answer_weights=answer_weights,
        wrongs=wrongs,
        wrong_weights=wrong_weights,
        spans={
            label: _flags([pair.spans.get(label, []) for pair in pairs], starts, length)
            for label in labels
        },
        templates=jnp.asarray(np.asarray(templates, np.int32)),
        texts=tuple(pair.texts for pair in pairs),
        name=name,
        bos="always" if prefix else "never",
    )


def _rows(ids: Sequence[list[int]], length: int, pad_id: int):
    padded = [[pad_id] * (length - len(row)) + row for row in ids]
    return jnp.asarray(np.asarray(padded, np.int32))


def _sets(ids: Sequence[list[int]]):
    """Sets of ids, padded on the right with id 0, and their weights."""
    width = max(map(len, ids))
    padded = np.asarray([row + [0] * (width - len(row)) for row in ids], np.int32)
    weights = np.asarray([[1 / len(row)] * len(row) + [0.0] * (width - len(row)) for row in ids])
    return jnp.asarray(padded), jnp.asarray(weights.astype(np.float32))


def _flags(columns: Sequence[list[int]], starts: np.ndarray, length: int):
    flags = np.zeros((len(columns), length), bool)
    for row, chosen in enumerate(columns):
        flags[row, starts[row] + np.asarray(chosen, int)] = True
    return jnp.asarray(flags)
