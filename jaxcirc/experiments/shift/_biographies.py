"""Two tasks on made biographies, for which no data set is needed: professors against nurses.

"gender": in training professors are men and nurses women, as in Bias in Bios. "tense": professors
are told of in the present and plain word order, nurses in the past with times in front, so that
the confound lies in the forms of verbs and in style, not in a handful of words. The factor that is
not confounded is drawn at random. Clauses about the profession, asides and names of the test occur
in no training text. May import `_texts` and `_phrases`.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ._phrases import (
    ASIDES,
    CONCEPTS,
    GENDERED,
    MEN,
    NURSE,
    OPENINGS,
    PROFESSOR,
    PRONOUNS,
    SLOTS,
    TIMES,
    WOMEN,
)
from ._texts import Counts, Split, Splits, Task, cells

Confound = Literal["gender", "tense"]

STYLE = 0.9
"""How often a text of the past has its times in front, and one of the present behind."""

_VERBS = re.compile(r"\[(\w+)\|(\w+)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def biographies(confound: Confound = "gender") -> Task:
    """The task with this confound. Raises `ValueError` for another word.

    >>> biographies("tense").draw(0, Counts()).ambiguous.texts[0]
    """
    if confound not in ("gender", "tense"):
        raise ValueError(f'confound={confound!r}: use "gender" or "tense"')

    def draw(seed: int, counts: Counts) -> Splits:
        rng = np.random.default_rng([seed, len(confound)])
        made = (
            _split(rng, confound, n, ambiguous=name == "ambiguous", test=name == "test")
            for name, n in vars(counts).items()
        )
        return Splits(*made)

    attributes = ("male", "female") if confound == "gender" else ("present", "past")
    labels = ("professor", "nurse")
    return Task(confound, labels, attributes, words_of(confound), CONCEPTS, draw)


def words_of(confound: Confound) -> frozenset[str]:
    """The words that carry a confound, in lower case: pronouns, kin and first names, or every form
    of every verb."""
    if confound == "gender":
        return GENDERED | {name.lower() for name in (*MEN, *WOMEN)}
    clauses = (*PROFESSOR, *NURSE, *OPENINGS, *ASIDES)
    return frozenset(form for clause in clauses for pair in _VERBS.findall(clause) for form in pair)


def _split(rng, confound: Confound, n: int, *, ambiguous: bool, test: bool) -> Split:
    label, attribute = cells(n, ambiguous)
    other = rng.integers(0, 2, n)
    gender, tense = (attribute, other) if confound == "gender" else (other, attribute)
    style = tense if confound == "tense" else rng.integers(0, 2, n)
    factors = (x.tolist() for x in (label, gender, tense, style))
    texts = [_text(rng, test, *row) for row in zip(*factors, strict=True)]
    order = rng.permutation(n)
    return Split(tuple(texts[i] for i in order), label[order], attribute[order])


def _text(rng, test: bool, label: int, gender: int, tense: int, style: int) -> str:
    name = _drawn(rng, _part((MEN, WOMEN)[gender], test))
    slots = PRONOUNS[gender] | {"name": name}
    opening = _filled(rng, _drawn(rng, OPENINGS), slots, tense)
    work, aside = (
        _filled(rng, _drawn(rng, _part(some, test)), slots, tense)
        for some in ((PROFESSOR, NURSE)[label], ASIDES)
    )
    said = [_timed(rng, work, slots, style), f"{slots['He']} {aside}."]
    first = int(rng.integers(0, 2))
    return " ".join([opening, said[first], said[1 - first]])


def _timed(rng, clause: str, slots: dict[str, str], style: int) -> str:
    """A clause with its subject and a time: in front, or behind."""
    time = _drawn(rng, TIMES)
    if rng.random() < (STYLE if style else 1 - STYLE):
        return f"{time}, {slots['he']} {clause}."
    return f"{slots['He']} {clause} {time[0].lower()}{time[1:]}."


def _filled(rng, clause: str, slots: dict[str, str], tense: int) -> str:
    """A clause with its verbs in one tense and words in its slots."""
    clause = _VERBS.sub(lambda found: found[1 + tense], clause)
    return _SLOT.sub(lambda found: slots.get(found[1]) or _drawn(rng, SLOTS[found[1]]), clause)


def _part(some: Sequence[str], test: bool) -> Sequence[str]:
    """The last third, for testing, or the others."""
    cut = len(some) * 2 // 3
    return some[cut:] if test else some[:cut]


def _drawn(rng, some: Sequence[str]) -> str:
    return some[int(rng.integers(0, len(some)))]
