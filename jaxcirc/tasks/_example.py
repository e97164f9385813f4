"""Examples in words, and how they become `Prompts`. Imports `_texts`, `_places` and `prompt`.

Tasks draw examples without end, and `draw` keeps the first that fit the tokenizer; files hold a
number of them, and `gather` keeps those that fit and reports the rest.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .._types import Bos, TokenizerLike
from ._places import Place, edges_of, touching
from ._texts import Pair, Words, bos_ids, collate, encode_pair
from .prompt import Prompts

T = TypeVar("T")

PATIENCE = 1000
"""Examples in a row that may be unusable, or drawn before, until `draw` gives up."""


class Example(NamedTuple):
    """One pair in words, as `from_texts` takes it, and the cluster it belongs to."""

    clean: str
    corrupt: str
    answer: Words
    wrong: Words
    spans: Mapping[str, Place] = {}
    template: Hashable = 0


class Drop(NamedTuple):
    """A line that is not among the prompts, and why."""

    line: int
    reason: str


class Loaded(NamedTuple):
    """What a file held: its usable prompts, and the lines dropped."""

    prompts: Prompts
    drops: tuple[Drop, ...]


def gather(
    tokenizer: TokenizerLike,
    examples: Iterable[tuple[int, Example]],
    bos: Bos,
    name: str,
    source: Any,
    drops: Sequence[Drop] = (),
) -> Loaded:
    """The usable ones of numbered examples; equal `template`s form a cluster.

    - `source`: the file, for the error. `drops`: lines that were left out before.

    Raises `ValueError` if none is usable.
    """
    prefix = bos_ids(tokenizer, bos)
    pairs, templates, dropped = [], [], list(drops)
    for line, example in examples:
        try:
            pairs.append(_encode(tokenizer, prefix, example))
        except ValueError as error:
            dropped.append(Drop(line, str(error)))
        else:
            templates.append(example.template)
    if not pairs:
        why = f"; line {dropped[0].line}: {dropped[0].reason}" if dropped else ""
        raise ValueError(f"{source} holds no usable pair{why}")
    clusters = {template: i for i, template in enumerate(dict.fromkeys(templates))}
    ids = [clusters[template] for template in templates]
    prompts = collate(pairs, ids, tokenizer.pad_id, prefix, name)
    return Loaded(dataclasses.replace(prompts, dropped=len(dropped)), tuple(dropped))


def draw(
    tokenizer: TokenizerLike, examples: Iterator[Example], n: int, bos: Bos, name: str
) -> Prompts:
    """The first n different examples that the tokenizer can use, with the span "end" added.

    Raises `ValueError` for n < 1, or if there are fewer, with the reason of the last one dropped.
    """
    if n < 1:
        raise ValueError(f"n={n}: {name} needs at least one pair, n=64")
    prefix = bos_ids(tokenizer, bos)
    found: dict[tuple[str, str], tuple[Pair, Any]] = {}
    dropped, idle, reason = 0, 0, ""
    while len(found) < n and idle < PATIENCE:
        example, idle = next(examples), idle + 1
        if (example.clean, example.corrupt) in found:
            continue
        try:
            pair = _encode(tokenizer, prefix, example)
        except ValueError as error:
            dropped, reason = dropped + 1, f"; the last one dropped: {error}"
        else:
            end = {"end": [len(pair.clean) - 1]}
            pair = dataclasses.replace(pair, spans=pair.spans | end)
            found[example.clean, example.corrupt] = pair, example.template
            idle = 0
    if len(found) < n:
        fix = f"n={len(found)}" if found else "use another tokenizer, or from_texts(...)"
        raise ValueError(
            f"{name} has {len(found)} pairs for this tokenizer, not {n}: {fix}{reason}"
        )
    pairs, templates = zip(*found.values(), strict=True)
    prompts = collate(pairs, templates, tokenizer.pad_id, prefix, name)
    return dataclasses.replace(prompts, dropped=dropped)


def _encode(tokenizer: TokenizerLike, prefix: list[int], example: Example) -> Pair:
    clean, corrupt, answer, wrong, places, _ = example
    return encode_pair(tokenizer, prefix, clean, corrupt, answer, wrong, places)


def fill(
    tokenizer: TokenizerLike, template: str, words: Mapping[str, str], spans: Sequence[str] = ()
) -> tuple[str, dict[str, tuple[int, int]]]:
    """A template with its words in place, and the tokens that some of the words lie in.

    >>> fill(tokenizer, "The {noun} near the {other}", {"noun": "man", "other": "cats"}, ["noun"])
    ('The man near the cats', {'noun': (1, 2)})
    """
    text, characters = "", {}
    for literal, field, _, _ in Formatter().parse(template):
        text += literal
        if field is not None:
            characters[field] = len(text), len(text) + len(words[field])
            text += words[field]
    if not spans:
        return text, {}
    edges = edges_of(tokenizer, tokenizer.encode(text))
    touched = {field: touching(edges, *characters[field]) for field in spans}
    return text, {field: (columns[0], columns[-1] + 1) for field, columns in touched.items()}


def turns(rng: np.random.Generator, items: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Items with their numbers, for ever, in one shuffled order: any first k are balanced."""
    order = rng.permutation(len(items)).tolist()
    while True:
        yield from ((i, items[i]) for i in order)


def pick(rng: np.random.Generator, items: Sequence[T], k: int) -> list[T]:
    """k different items."""
    return [items[i] for i in rng.choice(len(items), k, replace=False)]


def single(tokenizer: TokenizerLike, words: Sequence[str], least: int = 1) -> list[str]:
    """The words that are one token behind a space; all of them where fewer than `least` are."""
    ones = [word for word in words if len(tokenizer.encode(" " + word)) == 1]
    return ones if len(ones) >= least else list(words)


def numbered(tokenizer: TokenizerLike, text: str, number: int) -> tuple[str, str]:
    """A text that a number continues, and the number: the space between belongs to either.

    >>> numbered(tokenizer, "2 + 3 =", 5)                       # a tokenizer that splits digits
    ('2 + 3 = ', '5')
    """
    if len(tokenizer.encode(f" {number}")) == 1:
        return text, f" {number}"
    return text + " ", str(number)
