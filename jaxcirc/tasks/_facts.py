"""Factual recall: "The capital of France is" continues " Paris".

Pairs of facts of one relation whose subjects are equally long, after PairedFacts of Zhang & Nanda
2023 (arXiv 2309.16042); `patching.known` keeps those that a model knows both ways. Imports
`_example` and `facts`.
"""

from collections.abc import Iterator

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Example, draw, fill, turns
from ._relations import RELATIONS
from .prompt import Prompts

TEMPLATES = tuple(
    (name, text) for name, relation in RELATIONS.items() for text in relation.templates
)


def facts(
    tokenizer: TokenizerLike,
    n: int = 64,
    seed: int = 0,
    bos: Bos = "model",
    *,
    relation: str | None = None,
) -> Prompts:
    """Well-known facts; the corruption asks the same of another subject, equally many tokens long.

    - `n`: pairs. `bos`: as for `from_texts`.
    - `relation`: "capital", "language", "continent", "city" or "maker" (default: all in turn).

    Returns `Prompts` with the spans "subject" and "end", answer the clean subject's object, wrong
    the corrupt one's. A model may not know a fact: `patching.known` keeps the pairs known both
    ways. Raises `ValueError` for an unknown relation, n < 1 or too few usable pairs.

    >>> kept, dropped = jaxcirc.patching.known(model, facts(tokenizer, relation="capital"))
    """
    if relation is not None and relation not in RELATIONS:
        known = ", ".join(map(repr, RELATIONS))
        raise ValueError(f"unknown relation {relation!r}: use one of {known}, or None for all")
    examples = _examples(tokenizer, np.random.default_rng(seed), relation)
    return draw(tokenizer, examples, n, bos, "facts")


def _examples(
    tokenizer: TokenizerLike, rng: np.random.Generator, relation: str | None
) -> Iterator[Example]:
    lengths = {
        subject: len(tokenizer.encode(" " + subject))
        for name in RELATIONS
        for subject, _ in RELATIONS[name].pairs
    }
    asked = [(i, *row) for i, row in enumerate(TEMPLATES) if relation in (None, row[0])]
    for _, (template, name, text) in turns(rng, asked):
        pairs = RELATIONS[name].pairs
        subject, answer = pairs[rng.integers(len(pairs))]
        others = [
            (other, wrong)
            for other, wrong in pairs
            if wrong != answer and lengths[other] == lengths[subject]
        ]
        if not others:
            others = [pair for pair in pairs if pair[1] != answer]
        other, wrong = others[rng.integers(len(others))]
        clean, places = fill(tokenizer, text, {"subject": subject}, ["subject"])
        corrupt, _ = fill(tokenizer, text, {"subject": other})
        yield Example(clean, corrupt, " " + answer, " " + wrong, places, template)
