"""Gendered pronouns: "Nobody believed Mary at first, but" continues " she", not " he".

Posed by Mathwin et al. 2023 ("Identifying a preliminary circuit for predicting gendered pronouns in
GPT-2 small"); templates here are this project's own. Imports `_example` and `words`.
"""

from collections.abc import Iterator

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, pick, single, turns
from .prompt import Prompts
from .words import MEN, WOMEN

TEMPLATES = (
    "Last night {name} could not sleep because",
    "My friend {name} is so kind, isn't",
    "When {name} came home last night,",
    "Nobody believed {name} at first, but",
    "Yesterday {name} missed the train, so",
    "We all know {name} well, and we think that",
    "As soon as {name} woke up,",
    "Everyone likes {name} because",
)
"""Every name has a space before it."""

ANSWERS = " he", " she"


def pronouns(tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model") -> Prompts:
    """The pronoun for a person with a man's or a woman's name; the corruption changes the name.

    - `n`: pairs, half of each. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "name" and "end", answer " he" or " she", wrong the other.
    Raises `ValueError` for n < 1 or too few usable pairs.

    >>> pronouns(tokenizer, n=32).texts[0]
    """
    examples = _examples(tokenizer, np.random.default_rng(seed))
    return draw(tokenizer, examples, n, bos, "pronouns")


def _examples(tokenizer: TokenizerLike, rng: np.random.Generator) -> Iterator[Example]:
    names = [single(tokenizer, MEN), single(tokenizer, WOMEN)]
    for turn, (template, text) in enumerate(turns(rng, TEMPLATES)):
        gender = (turn + turn // len(TEMPLATES)) % 2
        right, wrong = ANSWERS[gender], ANSWERS[1 - gender]
        (one,), (other,) = pick(rng, names[gender], 1), pick(rng, names[1 - gender], 1)
        clean, places = fill(tokenizer, text, {"name": one}, ["name"])
        corrupt, _ = fill(tokenizer, text, {"name": other})
        yield Example(clean, corrupt, right, wrong, places, template)
