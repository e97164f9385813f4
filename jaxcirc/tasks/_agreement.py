"""Subject-verb agreement: "The teachers near the desk" continues " are", not " is".

The structures are those of Marks et al. 2024 (arXiv 2403.19647), after Finlayson et al. 2021 (arXiv
2106.06087); templates and words here are this project's own. Imports `_example` and `words`.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, pick, turns
from .prompt import Prompts
from .words import PEOPLE

Structure = Literal["simple", "phrase", "within", "across"]
Split = Literal["all", "train", "test"]

TEMPLATES = {
    "simple": (
        "The {noun}",
        "My {noun}",
        "I think that the {noun}",
        "Everyone knows that the {noun}",
        "We are told that my {noun}",
        "At the moment the {noun}",
    ),
    "phrase": (
        "The {noun} near the {other}",
        "The {noun} behind the {other}",
        "The {noun} beside the {other}",
        "The {noun} next to the {other}",
        "I think that the {noun} opposite the {other}",
        "At the moment the {noun} with the {other}",
    ),
    "within": (
        "The {other} that the {noun}",
        "The {other} whom the {noun}",
        "My {other} that the {noun}",
        "We met the {other} that the {noun}",
        "This is about the {other} whom the {noun}",
        "I saw the {other} that my {noun}",
    ),
    "across": (
        "The {noun} that the {other} {verb}",
        "The {noun} whom the {other} {verb}",
        "My {noun} that the {other} {verb}",
        "I think that the {noun} that the {other} {verb}",
        "At the moment the {noun} whom the {other} {verb}",
        "Everyone knows that the {noun} that my {other} {verb}",
    ),
}
"""{noun} is what the verb must agree with, {other} another noun, {verb} the other noun's verb."""

AUXILIARIES = (" is", " has", " was", " does"), (" are", " have", " were", " do")
CLAUSE = ("likes", "knows", "wants", "needs", "loves"), ("like", "know", "want", "need", "love")
"""(singular, plural) verbs: behind a subject, and inside a clause about its object."""


def agreement(
    tokenizer: TokenizerLike,
    n: int = 64,
    seed: int = 0,
    bos: Bos = "model",
    *,
    structure: Structure = "simple",
    split: Split = "all",
) -> Prompts:
    """Subject-verb agreement in number; the corruption changes the number of the subject.

    - `n`: pairs, half of them singular. `bos`: as for `from_texts`.
    - `structure`: "simple" ("The men"), "phrase" ("The men near the boy"), "within" a relative
      clause ("The boy that the men", where the verb is the men's) or "across" one ("The men that
      the boy likes"). The other noun's number is drawn on its own.
    - `split`: "train" and "test" share no noun; then `templates` are the subject's lexemes, so that
      intervals resample nouns. With "all" they are templates.

    Returns `Prompts` with the spans "noun", "other" and "verb" (where there are such) and "end";
    answers are the verbs in the right number, wrongs the same verbs in the other. Raises
    `ValueError` for an unknown structure or split, or too few usable pairs.

    >>> agreement(tokenizer, structure="across", split="train").texts[0]
    """
    if structure not in TEMPLATES:
        known = ", ".join(map(repr, TEMPLATES))
        raise ValueError(f"unknown structure {structure!r}: use one of {known}")
    if split not in ("all", "train", "test"):
        raise ValueError(f'split={split!r}: use split="all", split="train" or split="test"')
    rng = np.random.default_rng(seed)
    examples = _examples(tokenizer, rng, structure, split)
    return draw(tokenizer, examples, n, bos, f"agreement_{structure}")


def lexemes(split: Split = "all") -> list[int]:
    """The nouns of a split as indices of `words.PEOPLE`, whatever the tokenizer and the seed."""
    return [i for i in range(len(PEOPLE)) if split == "all" or (i % 2 == 0) == (split == "train")]


def _examples(
    tokenizer: TokenizerLike, rng: np.random.Generator, structure: Structure, split: Split
) -> Iterator[Example]:
    verbs = CLAUSE if structure == "within" else AUXILIARIES
    right = [[f" {verb.strip()}" for verb in forms] for forms in verbs]
    for turn, (template, text) in enumerate(turns(rng, TEMPLATES[structure])):
        noun, other = pick(rng, lexemes(split), 2)
        number = (turn + turn // len(TEMPLATES[structure])) % 2
        others, verb = rng.integers(2), rng.integers(len(CLAUSE[0]))
        words = {"other": PEOPLE[other][others], "verb": CLAUSE[others][verb]}
        spans = [field for field in ("noun", "other", "verb") if f"{{{field}}}" in text]
        clean, places = fill(tokenizer, text, words | {"noun": PEOPLE[noun][number]}, spans)
        corrupt, _ = fill(tokenizer, text, words | {"noun": PEOPLE[noun][1 - number]})
        cluster = template if split == "all" else noun
        yield Example(clean, corrupt, right[number], right[1 - number], places, cluster)
