"""Copying colours: behind "... a red cup, a blue key and a green box. The key is" comes " blue".

After the coloured objects of Srivastava et al. 2022 (BIG-bench, arXiv 2206.04615), whose circuit
Merullo et al. 2024 (arXiv 2310.08744) compare with that of IOI; templates and words here are this
project's own. Imports `_example` and `words`.
"""

from collections.abc import Iterator

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, pick, single, turns
from ._places import Place
from .prompt import Prompts
from .words import COLOURS, OBJECTS

TEMPLATES = (
    "On the table there is a {c1} {o1}, a {c2} {o2} and a {c3} {o3}. The color of the {asked} is",
    "I bought a {c1} {o1}, a {c2} {o2} and a {c3} {o3}. The {asked} is",
    "The box holds a {c1} {o1}, a {c2} {o2} and a {c3} {o3}. What color is the {asked}? It is",
    "She carried a {c1} {o1}, a {c2} {o2} and a {c3} {o3}. The {asked} that she carried was",
    "There is a {c1} {o1} next to a {c2} {o2} and a {c3} {o3}. Everyone can see that the {asked}"
    " is",
    "Q: You have a {c1} {o1}, a {c2} {o2} and a {c3} {o3}. What color is the {asked}?\nA: It is",
)


def colours(tokenizer: TokenizerLike, n: int = 64, seed: int = 0, bos: Bos = "model") -> Prompts:
    """The colour of one of three objects; the corruption asks for another of them.

    - `n`: pairs. `bos`: as for `from_texts`.

    Returns `Prompts` with the spans "colour" and "object" (where the answer is given), "asked" and
    "end"; answer the object's colour, wrongs the colours of the other two, that of the corrupt
    prompt first. Raises `ValueError` for n < 1 or too few usable pairs.

    >>> colours(tokenizer, n=32).texts[0]
    """
    examples = _examples(tokenizer, np.random.default_rng(seed))
    return draw(tokenizer, examples, n, bos, "colours")


def _examples(tokenizer: TokenizerLike, rng: np.random.Generator) -> Iterator[Example]:
    shades, things = single(tokenizer, COLOURS, least=3), single(tokenizer, OBJECTS, least=3)
    for template, text in turns(rng, TEMPLATES):
        colour, thing = pick(rng, shades, 3), pick(rng, things, 3)
        words = {f"c{i + 1}": colour[i] for i in range(3)} | {
            f"o{i + 1}": thing[i] for i in range(3)
        }
        asked, other, rest = pick(rng, range(3), 3)
        fields = [f"c{asked + 1}", f"o{asked + 1}", "asked"]
        clean, places = fill(tokenizer, text, words | {"asked": thing[asked]}, fields)
        corrupt, _ = fill(tokenizer, text, words | {"asked": thing[other]})
        spans: dict[str, Place] = dict(
            zip(("colour", "object", "asked"), places.values(), strict=True)
        )
        wrongs = [f" {colour[other]}", f" {colour[rest]}"]
        yield Example(clean, corrupt, f" {colour[asked]}", wrongs, spans, template)
