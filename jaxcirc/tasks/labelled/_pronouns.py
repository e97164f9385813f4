"""Gendered pronouns with their attributes: gender, and the name that has it.

The sentences are those of `pronouns`. Imports `_labelled`, `_pronouns` and `words`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..._types import Bos, TokenizerLike
from .._example import single
from .._pronouns import ANSWERS, TEMPLATES
from ..words import MEN, WOMEN
from ._labelled import Labelled, Split, drawn

HELD = (5, 7)
"""Templates kept for "templates"."""


@dataclasses.dataclass(frozen=True)
class PronounDraft:
    """A template, and a name as its gender and its place among the names of that."""

    template: int
    gender: int
    name: int


@dataclasses.dataclass(frozen=True)
class PronounMaker:
    """As many men's names as women's."""

    names: tuple[tuple[str, ...], tuple[str, ...]]
    name: str = "pronouns"
    editable: tuple[str, ...] = ("gender",)
    coded: tuple[str, ...] = ("gender",)
    after: tuple[str, ...] = ("name",)

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        return {"gender": ("man", "woman"), "name": self.names[0] + self.names[1]}

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        return tuple((word,) for word in ANSWERS)

    def draw(self, rng: np.random.Generator, split: Split) -> PronounDraft:
        every = range(len(TEMPLATES))
        templates = [i for i in every if (i in HELD) == (split == "templates")]
        while True:
            template, gender = int(rng.choice(templates)), int(rng.integers(2))
            name = int(rng.integers(len(self.names[0])))
            if ((name + template) % 4 == 0) != (split == "train"):
                return PronounDraft(template, gender, name)

    def changed(self, draft: PronounDraft, attribute: str, rng) -> PronounDraft:
        name = int(rng.integers(len(self.names[0])))
        return dataclasses.replace(draft, gender=1 - draft.gender, name=name)

    def labels(self, draft: PronounDraft) -> Mapping[str, int]:
        name = draft.gender * len(self.names[0]) + draft.name
        return {"gender": draft.gender, "name": name}

    def row(self, draft: PronounDraft) -> Mapping[str, Any]:
        text, name = TEMPLATES[draft.template], self.names[draft.gender][draft.name]
        return {
            "text": text.format(name=name),
            "other": text.format(name=self.names[1 - draft.gender][draft.name]),
            "answer": ANSWERS[draft.gender],
            "wrong": ANSWERS[1 - draft.gender],
            "spans": {"name": (f" {name}", 1)},
            "template": draft.template,
        }


def labelled_pronouns(
    tokenizer: TokenizerLike,
    n: int = 256,
    seed: int = 0,
    split: Split = "train",
    bos: Bos = "model",
) -> Labelled:
    """A name and what calls for its pronoun, with the gender and the name.

    Changing the gender takes another name with it. `split`: "test" has other pairs of name and
    template, "templates" other templates.

    Returns `Labelled` with the spans "name", "name+1" and "end".

    >>> labelled_pronouns(tokenizer, 64).labels["gender"]
    """
    men, women = (single(tokenizer, names, 2) for names in (MEN, WOMEN))
    n_names = min(len(men), len(women))
    maker = PronounMaker((tuple(men[:n_names]), tuple(women[:n_names])))
    return drawn(tokenizer, maker, n, seed, split, bos)
