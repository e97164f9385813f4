"""Subject-verb agreement with its attributes: the number of the subject, and which noun it is.

The sentences are those of `agreement`. Imports `_labelled`, `_agreement` and `words`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..._types import Bos, TokenizerLike
from .._agreement import AUXILIARIES, TEMPLATES
from ..words import PEOPLE
from ._labelled import Labelled, Split, drawn

STRUCTURE = "phrase"
OWN = (0, 1, 2)
"""Templates of "train" and "test"; "templates" has the others."""


@dataclasses.dataclass(frozen=True)
class AgreementDraft:
    """A template, the subject and its number, another noun and its."""

    template: int
    noun: int
    number: int
    other: int
    others: int


@dataclasses.dataclass(frozen=True)
class AgreementMaker:
    """Nouns whose both numbers are single tokens, as places in `PEOPLE`."""

    nouns: tuple[int, ...]
    name: str = "agreement"
    editable: tuple[str, ...] = ("number",)
    coded: tuple[str, ...] = ("number", "noun")
    after: tuple[str, ...] = ()

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        nouns = tuple(PEOPLE[i][0] for i in self.nouns)
        return {"number": ("singular", "plural"), "noun": nouns, "other number": ("one", "many")}

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        return AUXILIARIES

    def draw(self, rng: np.random.Generator, split: Split) -> AgreementDraft:
        every = range(len(TEMPLATES[STRUCTURE]))
        templates = [i for i in every if (i not in OWN) == (split == "templates")]
        while True:
            noun, other = (int(i) for i in rng.choice(len(self.nouns), 2, replace=False))
            if ((noun + 2 * other) % 5 == 0) != (split == "train"):
                break
        number, others = (int(i) for i in rng.integers(2, size=2))
        return AgreementDraft(int(rng.choice(templates)), noun, number, other, others)

    def changed(
        self, draft: AgreementDraft, attribute: str, rng: np.random.Generator
    ) -> AgreementDraft:
        return dataclasses.replace(draft, number=1 - draft.number)

    def labels(self, draft: AgreementDraft) -> Mapping[str, int]:
        return {"number": draft.number, "noun": draft.noun, "other number": draft.others}

    def row(self, draft: AgreementDraft) -> Mapping[str, Any]:
        forms = PEOPLE[self.nouns[draft.noun]]
        other = PEOPLE[self.nouns[draft.other]][draft.others]
        text = TEMPLATES[STRUCTURE][draft.template]
        noun = forms[draft.number]
        return {
            "text": text.format(noun=noun, other=other),
            "other": text.format(noun=forms[1 - draft.number], other=other),
            "answer": list(AUXILIARIES[draft.number]),
            "wrong": list(AUXILIARIES[1 - draft.number]),
            "spans": {"noun": (f" {noun}", 1)},
            "template": draft.noun,
        }


def labelled_agreement(
    tokenizer: TokenizerLike,
    n: int = 256,
    seed: int = 0,
    split: Split = "train",
    bos: Bos = "model",
) -> Labelled:
    """Sentences whose subject has another noun behind it, with the number and the noun of the
    subject and the number of the other noun.

    - `split`: "test" has other pairs of nouns, "templates" other templates as well.

    Returns `Labelled` with the spans "noun" and "end"; clusters are nouns.

    >>> labelled_agreement(tokenizer, 64).changed("number").prompts.texts[0]
    """

    def usable(forms: tuple[str, ...]) -> bool:
        return all(len(tokenizer.encode(" " + form)) == 1 for form in forms)

    nouns = tuple(i for i, forms in enumerate(PEOPLE) if usable(forms))
    if len(nouns) < 4:
        raise ValueError("agreement needs 4 nouns of one token in both numbers: use another model")
    return drawn(tokenizer, AgreementMaker(nouns), n, seed, split, bos)
