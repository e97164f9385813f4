"""Indirect object identification with its attributes: IO, S, Pos (and the names by place, gender).

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 3.1 and appendix A.4: held-out prompts have
other pairs of names, other objects and places, and if asked other templates; names are shared,
since a name never seen has no code. Imports `_labelled`, the templates of `ioi`, and `words`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..._types import Bos, TokenizerLike
from .._example import single
from .._ioi import TEMPLATES
from ..words import MEN, NAMES, OBJECTS, PLACES
from ._labelled import Labelled, Split, drawn

TRAIN = (0, 1, 3)
"""Templates whose prompts codes are made from."""
OTHERS = (4, 5, 8)
"""Templates kept for "templates"."""
HELD = 5
"""One pair of names in so many is kept for "test"."""


@dataclasses.dataclass(frozen=True)
class IOIDraft:
    """Who gave what to whom where: names and words as places in their lists."""

    template: int
    io: int
    subject: int
    io_first: bool
    place: str
    thing: str


@dataclasses.dataclass(frozen=True)
class IOIMaker:
    """Names, places and objects that are single tokens."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]
    spare: str
    name: str = "ioi"
    editable: tuple[str, ...] = ("IO", "S", "Pos")
    coded: tuple[str, ...] = ("IO", "S", "Pos")
    after: tuple[str, ...] = ("S1", "S2")

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        names = self.names
        order = ("IO first", "S first")
        places = {"1st": names, "2nd": names, "3rd": names}
        return {"IO": names, "S": names, "Pos": order, "S gender": ("man", "woman"), **places}

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        return tuple((" " + name,) for name in self.names)

    def draw(self, rng: np.random.Generator, split: Split) -> IOIDraft:
        templates = OTHERS if split == "templates" else TRAIN
        odd = int(split != "train")
        io, subject = self._pair(rng, split)
        return IOIDraft(
            template=int(rng.choice(templates)),
            io=io,
            subject=subject,
            io_first=bool(rng.integers(2)),
            place=str(rng.choice(self.places[odd::2])),
            thing=str(rng.choice(self.objects[odd::2])),
        )

    def _pair(self, rng: np.random.Generator, split: Split) -> tuple[int, int]:
        while True:
            io, subject = (int(i) for i in rng.choice(len(self.names), 2, replace=False))
            if ((io + 2 * subject) % HELD == 0) != (split == "train"):
                return io, subject

    def changed(self, draft: IOIDraft, attribute: str, rng: np.random.Generator) -> IOIDraft:
        if attribute == "Pos":
            return dataclasses.replace(draft, io_first=not draft.io_first)
        taken = {draft.io, draft.subject}
        free = [i for i in range(len(self.names)) if i not in taken]
        field = "io" if attribute == "IO" else "subject"
        return dataclasses.replace(draft, **{field: int(rng.choice(free))})

    def labels(self, draft: IOIDraft) -> Mapping[str, int]:
        first, second = self._order(draft)
        gender = int(self.names[draft.subject] not in MEN)
        named = {"IO": draft.io, "S": draft.subject, "Pos": int(not draft.io_first)}
        return {**named, "S gender": gender, "1st": first, "2nd": second, "3rd": draft.subject}

    def _order(self, draft: IOIDraft) -> tuple[int, int]:
        pair = draft.io, draft.subject
        return pair if draft.io_first else (pair[1], pair[0])

    def row(self, draft: IOIDraft) -> Mapping[str, Any]:
        names = [self.names[i] for i in self._order(draft)]
        subject, io = self.names[draft.subject], self.names[draft.io]

        def fill(third: str) -> str:
            words = dict(zip("AB", names, strict=True)) | {"S": third}
            return TEMPLATES[draft.template].format(**words, place=draft.place, object=draft.thing)

        text = fill(subject)
        spans = {
            "IO": (f" {io}", 1),
            "S1": (f" {subject}", 1),
            "S2": (f" {subject}", 2),
        }
        return {
            "text": text,
            "other": fill(self.spare),
            "answer": f" {io}",
            "wrong": f" {subject}",
            "spans": spans,
            "template": draft.io,
        }


def labelled_ioi(
    tokenizer: TokenizerLike,
    n: int = 256,
    seed: int = 0,
    split: Split = "train",
    bos: Bos = "model",
    *,
    names: int = 48,
) -> Labelled:
    """IOI prompts with the attributes IO, S and Pos, the names by place, and the gender of S.

    - `split`: "train"; "test" with other pairs of names, objects and places; "templates" with
      other templates as well. `names`: how many there are.

    Returns `Labelled` with the spans "IO", "S1", "S1+1", "S2", "S2+1" and "end"; clusters are the
    names of IO, since there are but three templates. Raises
    `ValueError` for a tokenizer with too few names of one token.

    >>> labelled_ioi(tokenizer, 64, split="test").labels["IO"]
    """
    known = _apart(single(tokenizer, NAMES))
    if names + 1 > len(known):
        raise ValueError(
            f"names={names}: too many for this tokenizer, labelled_ioi(..., names={len(known) - 1})"
        )
    chosen = np.random.default_rng(7).permutation(len(known))[: names + 1]
    picked = [known[i] for i in chosen]
    places, objects = (tuple(single(tokenizer, words, 2)) for words in (PLACES, OBJECTS))
    maker = IOIMaker(tuple(picked[:-1]), places, objects, picked[-1])
    return drawn(tokenizer, maker, n, seed, split, bos)


def _apart(names: list[str]) -> list[str]:
    """Names that are not the beginning of another, so that a text finds each by itself."""
    return [a for a in names if not any(b != a and b.startswith(a) for b in names)]
