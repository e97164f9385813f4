"""Greater-than: "The war lasted from 1649 to 16" continues with digits that make a later year.

Hanna, Liu & Variengien 2023 (arXiv 2305.00586) posed the task for a tokenizer that keeps pairs of
digits. Where every digit is a token of its own, the first digit that may differ is scored.
Templates and words here are this project's own. Imports `_example` and `words`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, single, turns
from .prompt import Prompts
from .words import EVENTS

_YEAR = "{century}{digits}{rest}"

TEMPLATES = (
    f"The {{noun}} began in the year {_YEAR} and ended in the year {{again}}",
    f"The {{noun}} lasted from {_YEAR} until {{again}}",
    f"Records of the {{noun}} exist from {_YEAR} to {{again}}",
    f"The {{noun}}, which started in {_YEAR}, was over in {{again}}",
    f"The long {{noun}} went on from {_YEAR} to the year {{again}}",
    f"Between {_YEAR} and the end of the {{noun}} in {{again}}",
)
CENTURIES = range(11, 18)
PAIRS = tuple(f"{i:02d}" for i in range(100))
DIGITS = tuple("0123456789")


class Year(NamedTuple):
    """A year in three parts, `dawn` for its corrupt digits, and what may come after its century."""

    century: str
    digits: str
    rest: str
    dawn: str
    greater: list[str]
    others: list[str]


def greater_than(
    tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model"
) -> Prompts:
    """A year after the given one, in the same century; the corruption moves the start to its dawn.

    Two digits of one token: the answers are all pairs above those of the year, the wrongs all
    others, and the corrupt year ends in 01. Digits apart: years end in 9, so a later one has a
    greater third digit; answers are the greater digits, wrongs the others, and the corrupt year's
    third digit is 0. Pairs of digits that the tokenizer would join to the century are neither. All
    answers share the weight, and so do all wrongs.

    - `n`: pairs. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "noun", "digits" (what the corruption changes) and "end". The
    corrupt prompt makes no wrong answer right. Raises `ValueError` for n < 1 or a tokenizer that
    writes years in another way.

    >>> prompts = greater_than(tokenizer, n=32)
    >>> prompts.texts[0], [tokenizer.decode([i]) for i in prompts.answers[0]]
    """
    years = later_years(tokenizer)
    examples = _examples(tokenizer, np.random.default_rng(seed), years)
    return draw(tokenizer, examples, n, bos, "greater_than")


def later_years(tokenizer: TokenizerLike) -> list[Year]:
    """Every year that the task can use. Raises `ValueError` if the tokenizer allows none."""
    years = list(_years(tokenizer, PAIRS, "01", "")) or list(_years(tokenizer, DIGITS, "0", "9"))
    if years:
        return years
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(" 1649")]
    raise ValueError(
        f"greater_than: this tokenizer writes 1649 as {pieces}: use one that keeps pairs of digits"
        " or splits all, or your own pairs with from_texts(...)"
    )


def _years(
    tokenizer: TokenizerLike, digits: tuple[str, ...], dawn: str, rest: str
) -> Iterator[Year]:
    for century in map(str, CENTURIES):
        after = [d for d in digits if follows(tokenizer, century, d)]
        starts = [d for d in after if not rest or follows(tokenizer, century, d, rest)]
        for i, start in enumerate(after):
            if dawn in starts and start in starts and start > dawn and after[i + 1 :]:
                yield Year(century, start, rest, dawn, after[i + 1 :], after[: i + 1])


def follows(tokenizer: TokenizerLike, century: str, *parts: str) -> bool:
    """Whether every part is a token of its own behind the century."""
    ones = [tokenizer.encode(part) for part in parts]
    whole = tokenizer.encode(" " + century) + sum(ones, [])
    apart = all(len(one) == 1 for one in ones)
    return apart and tokenizer.encode(f" {century}{''.join(parts)}") == whole


def _examples(
    tokenizer: TokenizerLike, rng: np.random.Generator, years: list[Year]
) -> Iterator[Example]:
    nouns = single(tokenizer, EVENTS)
    for template, text in turns(rng, TEMPLATES):
        year, noun = years[rng.integers(len(years))], nouns[rng.integers(len(nouns))]
        words = {"noun": noun, "century": year.century, "rest": year.rest, "again": year.century}
        clean, places = fill(tokenizer, text, words | {"digits": year.digits}, ["noun", "digits"])
        corrupt, _ = fill(tokenizer, text, words | {"digits": year.dawn})
        yield Example(clean, corrupt, year.greater, year.others, places, template)
