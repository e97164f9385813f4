"""Docstring: behind two documented arguments, ":param" continues with the third.

Heimersheim & Janiak 2023 ("A circuit for Python docstrings in a 4-layer attention-only
transformer") posed the task; templates and words here are this project's own. Imports `_example`
and `words`.
"""

from collections.abc import Iterator

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

SPANS = ("A_def", "B_def", "C_def", "D_def", "A_doc", "B_doc")


def docstring(tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model") -> Prompts:
    """The argument that a docstring must document next; the corruption swaps it with the one after.

    - `n`: pairs. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "A_def", "B_def", "C_def", "D_def" (in the signature), "A_doc",
    "B_doc" (in the docstring) and "end"; answer C, wrongs the other four arguments, D (the answer
    of the corrupt prompt) first. Raises `ValueError` for n < 1 or too few usable pairs.

    >>> print(docstring(tokenizer, n=32).texts[0][0])
    """
    examples = _examples(tokenizer, np.random.default_rng(seed))
    return draw(tokenizer, examples, n, bos, "docstring")


def _examples(tokenizer: TokenizerLike, rng: np.random.Generator) -> Iterator[Example]:
    names, remarks = single(tokenizer, ARGUMENTS, least=6), single(tokenizer, REMARKS, least=7)
    for template, text in turns(rng, TEMPLATES):
        f, x, a, b, c, d = pick(rng, names, 6)
        words = {f"r{i + 1}": remark for i, remark in enumerate(pick(rng, remarks, 7))}
        words |= {"f": f, "X_def": x, "A_def": a, "B_def": b, "A_doc": a, "B_doc": b}
        clean, places = fill(tokenizer, text, words | {"C_def": c, "D_def": d}, SPANS)
        corrupt, _ = fill(tokenizer, text, words | {"C_def": d, "D_def": c})
        wrongs = [f" {name}" for name in (d, x, a, b)]
        yield Example(clean, corrupt, f" {c}", wrongs, places, template)
