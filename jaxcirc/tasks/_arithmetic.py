"""Arithmetic: "4 + 3 =" continues with 7. Sums below ten, so that every answer is one digit.

Circuits of addition: Stolfo et al. 2023 (arXiv 2305.15054). Imports `_example`.
"""

from collections.abc import Iterator

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, numbered, turns
from .prompt import Prompts

TEMPLATES = (
    "{a} + {b} =",
    "1 + 1 = 2\n{a} + {b} =",
    "The sum of {a} and {b} is",
    "1 plus 1 is 2, and {a} plus {b} is",
    "Question: What is {a} plus {b}? Answer:",
    "What we get when we add {a} and {b} is",
)
SUMS = tuple((a, b) for a in range(1, 9) for b in range(1, 10 - a))


def arithmetic(tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model") -> Prompts:
    """Sums of two digits that stay below ten; the corruption changes the second digit.

    - `n`: pairs. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "a", "b" and "end", answer the clean sum, wrong the corrupt
    one. Where a digit behind a space is two tokens, the space ends the prompt. Raises `ValueError`
    for n < 1 or too few usable pairs.

    >>> arithmetic(tokenizer, n=32).texts[0]
    """
    examples = _examples(tokenizer, np.random.default_rng(seed))
    return draw(tokenizer, examples, n, bos, "arithmetic")


def _examples(tokenizer: TokenizerLike, rng: np.random.Generator) -> Iterator[Example]:
    for template, text in turns(rng, TEMPLATES):
        a, b = SUMS[rng.integers(len(SUMS))]
        others = [c for c in range(1, 10 - a) if c != b]
        if not others:
            continue
        other = others[rng.integers(len(others))]
        prompt, right = numbered(tokenizer, text, a + b)
        _, wrong = numbered(tokenizer, text, a + other)
        clean, places = fill(tokenizer, prompt, {"a": str(a), "b": str(b)}, ["a", "b"])
        corrupt, _ = fill(tokenizer, prompt, {"a": str(a), "b": str(other)})
        yield Example(clean, corrupt, right, wrong, places, template)
