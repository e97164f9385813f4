"""Contexts of random tokens, and a tokenizer to which every number is a word."""

import dataclasses

import numpy as np

from jaxcirc.dictionaries.train import Contexts

ROWS, LENGTH = 14, 10


@dataclasses.dataclass(frozen=True)
class Words:
    """A tokenizer whose token 7 is " 7"."""

    bos_id: int | None = None
    pad_id: int = 0
    adds_bos: bool = False

    def encode(self, text: str) -> list[int]:
        return [int(word) % 50 for word in text.split()]

    def decode(self, ids) -> str:
        return "".join(f" {int(i)}" for i in ids)


def made(rows: int = ROWS, seed: int = 0) -> Contexts:
    """Random tokens, two contexts a document, the last ones padded."""
    tokens = np.random.default_rng(seed).integers(1, 50, (rows, LENGTH)).astype(np.int32)
    mask = np.ones((rows, LENGTH), bool)
    mask[rows // 2 :, 7:] = False
    numbers = np.arange(rows)
    return Contexts(np.where(mask, tokens, 0), mask, numbers // 2, numbers * 0, ("a.txt",))
