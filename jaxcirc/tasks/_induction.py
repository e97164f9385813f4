"""Induction: in "A B ... C D ... A" the next word is B, since B came after A before.

Elhage et al. 2021 ("A mathematical framework for transformer circuits") and Olsson et al. 2022
(arXiv 2209.11895). Random words, so that nothing but their order tells. Imports `_example` and
`words`.
"""

from collections.abc import Iterator

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, pick, single, turns
from .prompt import Prompts
from .words import COLOURS, EVENTS, NAMES, OBJECTS, PLACES, REMARKS

LENGTH = 20
TEMPLATES = tuple((LENGTH - again, again) for again in range(3, 9))
"""(words of the sequence, how many of them are repeated); all prompts are equally long."""

WORDS = tuple(dict.fromkeys(NAMES + PLACES + OBJECTS + COLOURS + EVENTS + REMARKS))


def induction(tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model") -> Prompts:
    """Random words whose beginning is repeated; the corruption swaps two words of the first time.

    The swapped words are the answer and one that is not repeated, so both prompts hold the same
    words, and only what came after the last word's first occurrence tells right from wrong.

    - `n`: pairs. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "first" (where the last word stood before), "target" (behind
    it), "other" (the swapped word) and "end". Raises `ValueError` for n < 1, or a tokenizer with
    too few words of one token.

    >>> induction(tokenizer, n=32).texts[0]
    """
    examples = _examples(tokenizer, np.random.default_rng(seed))
    return draw(tokenizer, examples, n, bos, "induction")


def _examples(tokenizer: TokenizerLike, rng: np.random.Generator) -> Iterator[Example]:
    words = single(tokenizer, WORDS, least=LENGTH)
    for template, (length, again) in turns(rng, TEMPLATES):
        sequence = pick(rng, words, length)
        other = int(rng.integers(again + 1, length))
        swapped = list(sequence)
        swapped[again], swapped[other] = sequence[other], sequence[again]
        repeated = sequence[:again]
        places = {"first": again - 1, "target": again, "other": other}
        yield Example(
            clean=_text(sequence + repeated),
            corrupt=_text(swapped + repeated),
            answer=" " + sequence[again],
            wrong=" " + sequence[other],
            spans={label: (column, column + 1) for label, column in places.items()},
            template=template,
        )


def _text(words: list[str]) -> str:
    return "".join(f" {word}" for word in words)
