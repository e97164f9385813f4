"""Indirect object identification: "... Mary and John ... John gave a drink to" continues " Mary".

Wang et al. 2022 (arXiv 2211.00593) posed the task; templates and words here are this project's
own. IO is the name that appears once (the answer), S the one that appears twice. Imports `_texts`
and `words`.
"""

import dataclasses
from typing import Literal

import numpy as np

from .._types import Bos, TokenizerLike
from ._texts import from_texts
from .prompt import Prompts
from .words import NAMES, OBJECTS, PLACES

# Two names {A} and {B} that may change places, then the subject {S}. Where every word is a token,
# ten tokens come before {S} and five from there on, so that batches need no padding and what
# follows the first difference is equally short in all. Every name has a space before it.
TEMPLATES = (
    "While {A} and {B} were walking through the {place}, {S} handed a {object} to",
    "After {A} and {B} finished work at the {place}, {S} gave a {object} to",
    "Last week {A} and {B} met at the {place}. {S} sold a {object} to",
    "Before {A} and {B} went home from the {place}, {S} offered a {object} to",
    "At the {place}, {A} joined {B} for lunch. {S} showed a {object} to",
    "Once {A} and {B} were back inside the {place}, {S} lent a {object} to",
    "Late yesterday {A} visited {B} at the old {place}. {S} brought a {object} to",
    "In the {place}, {A} stood beside {B}, and {S} gave a {object} to",
    "Earlier {A} and {B} were busy at the {place}. {S} sent a {object} to",
    "As soon as {A} saw {B} near the {place}, {S} passed a {object} to",
    "My friends {A} and {B} left the old {place}. {S} returned a {object} to",
    "Though {A} rarely spoke with {B} at the {place}, {S} delivered a {object} to",
)

Corruption = Literal["s2_io", "random", "abc"]


@dataclasses.dataclass(frozen=True)
class Roles:
    """Who fills which place: `first` and `second` as mentioned, then `subject`."""

    first: str
    second: str
    subject: str


def s2_io(roles: Roles, others: list[str]) -> Roles:
    """The second subject becomes the indirect object, so the answer flips to S."""
    io = roles.second if roles.subject == roles.first else roles.first
    return dataclasses.replace(roles, subject=io)


def random(roles: Roles, others: list[str]) -> Roles:
    """The second subject becomes somebody new, so IO and S are equally likely."""
    return dataclasses.replace(roles, subject=others[0])


def abc(roles: Roles, others: list[str]) -> Roles:
    """Three new names, all different, so that nothing points to IO or S."""
    return Roles(*others)


CORRUPTIONS = {"s2_io": s2_io, "random": random, "abc": abc}
"""Corruptions of IOI by name."""


def ioi(
    tokenizer: TokenizerLike,
    n: int = 64,
    seed: int = 0,
    corruption: Corruption = "s2_io",
    bos: Bos = "model",
) -> Prompts:
    """Indirect object identification, half of it ABBA (IO first) and half BABA.

    - `n`: pairs; templates and orders take turns, so any first k are balanced within one.
    - `corruption`: "s2_io" (S2 becomes IO: the answer flips), "random" (S2 becomes somebody new) or
      "abc" (three new names). The clean prompts of a seed are the same under all three.
    - `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "IO", "S1", "S1+1", "S2" and "end", answer IO, wrong S. Raises
    `ValueError` for an unknown corruption, n < 1, or a tokenizer with fewer than five names of one
    token.

    >>> prompts = ioi(tokenizer, n=32, seed=1)
    >>> prompts.texts[0]
    """
    if n < 1:
        raise ValueError(f"n={n}: ioi needs at least one pair, ioi(tokenizer, n=64)")
    if corruption not in CORRUPTIONS:
        known = ", ".join(map(repr, CORRUPTIONS))
        raise ValueError(f"unknown corruption {corruption!r}: use one of {known}")
    rng, words = np.random.default_rng(seed), _single_words(tokenizer)
    drawn = [_draw(rng, *words) for _ in range(n)]
    order = rng.permutation(len(TEMPLATES))
    templates = [int(order[i % len(TEMPLATES)]) for i in range(n)]
    # Shifted by one each time round, so that a template meets both orders.
    io_first = [(i + i // len(TEMPLATES)) % 2 == 0 for i in range(n)]
    pairs = [
        _pair(*drawn[i], TEMPLATES[templates[i]], io_first[i], CORRUPTIONS[corruption])
        for i in range(n)
    ]
    clean, corrupt, io, subject = zip(*pairs, strict=True)
    return from_texts(
        tokenizer,
        clean=clean,
        corrupt=corrupt,
        answer=io,
        wrong=subject,
        bos=bos,
        spans=[_spans(tokenizer, *pair) for pair in zip(clean, io, subject, strict=True)],
        templates=templates,
        name="ioi",
    )


def _single_words(tokenizer: TokenizerLike) -> tuple[list[str], list[str], list[str]]:
    """Names, places and objects of one token each (all of them where none is)."""

    def single(words: tuple[str, ...]) -> list[str]:
        return [word for word in words if len(tokenizer.encode(" " + word)) == 1]

    names = single(NAMES)
    if len(names) < 5:
        raise ValueError(
            f"ioi needs 5 names of one token, and this tokenizer has {len(names)}: use another"
            " tokenizer, or your own pairs with from_texts(...)"
        )
    return names, single(PLACES) or list(PLACES), single(OBJECTS) or list(OBJECTS)


def _draw(rng: np.random.Generator, names, places, objects) -> tuple[list[str], str, str]:
    """Five different names (IO, S, three others), a place and an object."""
    people = [names[i] for i in rng.choice(len(names), 5, replace=False)]
    return people, places[rng.integers(len(places))], objects[rng.integers(len(objects))]


def _pair(people, place, thing, template, io_first, corruption) -> tuple[str, str, str, str]:
    """(clean, corrupt, IO, S), the names with their leading space."""
    io, subject, *others = people
    roles = Roles(io, subject, subject) if io_first else Roles(subject, io, subject)

    def fill(roles: Roles) -> str:
        names = {"A": roles.first, "B": roles.second, "S": roles.subject}
        return template.format(**names, place=place, object=thing)

    return fill(roles), fill(corruption(roles, others)), " " + io, " " + subject


def _spans(
    tokenizer: TokenizerLike, clean: str, io: str, subject: str
) -> dict[str, tuple[int, int]]:
    """Where the names stand, found by their token: one name may be the beginning of another."""
    ids = tokenizer.encode(clean)
    once, (first, second) = _places(tokenizer, ids, io), _places(tokenizer, ids, subject)
    columns = {"IO": once[0], "S1": first, "S1+1": first + 1, "S2": second, "end": len(ids) - 1}
    return {label: (column, column + 1) for label, column in columns.items()}


def _places(tokenizer: TokenizerLike, ids: list[int], name: str) -> list[int]:
    (token,) = tokenizer.encode(name)
    return [column for column, id in enumerate(ids) if id == token]
