"""Prompts of one length, so that positions mean the same in all of them. Imports `prompt`.

Feature circuits by position (Marks et al. 2024, arXiv 2403.19647, section 3) need equal lengths.
"""

import numpy as np

from .prompt import Prompts


def common_length(prompts: Prompts) -> int:
    """The length that most prompts have; of several, the shortest.

    >>> common_length(agreement(tokenizer, structure="across"))
    6
    """
    lengths, counts = np.unique(prompts.lengths, return_counts=True)
    return int(lengths[counts.argmax()])


def of_length(prompts: Prompts, length: int, n: int | None = None) -> Prompts:
    """The prompts of a length without padding, or the first `n` of them.

    Raises `ValueError` if there are fewer.

    >>> of_length(prompts, common_length(prompts), 24).mask.all()
    """
    kept = np.flatnonzero(prompts.lengths == length)
    if len(kept) < (n or 1):
        raise ValueError(
            f"{len(kept)} of {len(prompts)} prompts have {length} tokens: draw more of them, or"
            f" of_length(prompts, {common_length(prompts)})"
        )
    return prompts.take(kept[:n]).padded_to(length)
