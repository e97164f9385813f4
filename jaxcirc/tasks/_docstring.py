"""Docstring: behind two documented arguments, ":param" continues with the third.

Heimersheim & Janiak 2023 ("A circuit for Python docstrings in a 4-layer attention-only
transformer") posed the task; templates and words here are this project's own. Imports `_example`
and `words`.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, pick, single, turns
from .prompt import Prompts
from .words import ARGUMENTS, REMARKS

_DEF = "\ndef {f}(self, {X_def}, {A_def}, {B_def}, {C_def}, {D_def}):\n"
_PLAIN = "\ndef {f}({X_def}, {A_def}, {B_def}, {C_def}, {D_def}):\n"

TEMPLATES = (
    _DEF + '    """{r1} {r2} {r3}\n\n    :param {A_doc}: {r4} {r5}\n    :param {B_doc}: {r6} {r7}'
    "\n    :param",
    _PLAIN + '    """{r1} {r2}\n\n    :param {A_doc}: {r4}\n    :param {B_doc}: {r6}\n    :param',
    _DEF + '    """{r1}\n\n    :param {A_doc}: {r4} {r5} {r2}\n    :param {B_doc}: {r6} {r7} {r3}'
    "\n    :param",
    _DEF + '    """{r1} {r2} {r3}\n\n    @param {A_doc}: {r4} {r5}\n    @param {B_doc}: {r6} {r7}'
    "\n    @param",
    _PLAIN + '    """{r1} {r2}\n\n    @param {A_doc} {r4} {r5}\n    @param {B_doc} {r6} {r7}'
    "\n    @param",
    _PLAIN + '    """{r1} {r2} {r3}\n\n    :arg {A_doc}: {r4} {r5}\n    :arg {B_doc}: {r6} {r7}'
    "\n    :arg",
)
"""Arguments X, A, B, C, D, of which A and B are documented: C is next."""

PLACED = ("X_def", "A_def", "B_def", "C_def", "D_def", "A_doc", "B_doc")
SPANS = ("A_def", "B_def", "C_def", "D_def", "A_doc", "B_doc")


Corruption = Literal["swap", "random_random"]


def docstring(
    tokenizer: TokenizerLike,
    n: int = 64,
    seed: int = 0,
    bos: Bos = "model",
    *,
    corruption: Corruption = "swap",
) -> Prompts:
    """The argument that a docstring must document next; the corruption swaps it with the one after.

    - `n`: pairs. `bos`: as for `from_texts`.
    - `corruption`: "swap", or "random_random": other arguments in the signature and yet others in
      the docstring, so that nothing says which is next. The clean prompts of a seed are the same.

    Returns `Prompts` with the spans "A_def", "B_def", "C_def", "D_def" (in the signature), "A_doc",
    "B_doc" (in the docstring) and "end"; answer C, wrongs the other four arguments, D (the answer
    of the corrupt prompt, if it has one) first. Raises `ValueError` for n < 1, an unknown
    corruption or too few usable pairs.

    >>> print(docstring(tokenizer, n=32).texts[0][0])
    """
    if corruption not in ("swap", "random_random"):
        raise ValueError(f'corruption={corruption!r}: use "swap" or "random_random"')
    apart = np.random.default_rng((seed, 1)) if corruption == "random_random" else None
    examples = _examples(tokenizer, np.random.default_rng(seed), apart)
    return draw(tokenizer, examples, n, bos, "docstring")


def _examples(
    tokenizer: TokenizerLike, rng: np.random.Generator, apart: np.random.Generator | None
) -> Iterator[Example]:
    """`apart`: draws the other arguments of "random_random"."""
    names, remarks = single(tokenizer, ARGUMENTS, least=6), single(tokenizer, REMARKS, least=7)
    for template, text in turns(rng, TEMPLATES):
        f, x, a, b, c, d = pick(rng, names, 6)
        words = {f"r{i + 1}": remark for i, remark in enumerate(pick(rng, remarks, 7))}
        words |= {"f": f, "X_def": x, "A_def": a, "B_def": b, "A_doc": a, "B_doc": b}
        clean, places = fill(tokenizer, text, words | {"C_def": c, "D_def": d}, SPANS)
        changed = {"C_def": d, "D_def": c}
        if apart is not None:
            others = pick(apart, [name for name in names if name not in (f, x, a, b, c, d)], 7)
            changed = dict(zip(PLACED, others, strict=True))
        corrupt, _ = fill(tokenizer, text, words | changed)
        wrongs = [f" {name}" for name in (d, x, a, b)]
        yield Example(clean, corrupt, f" {c}", wrongs, places, template)
