"""Places in a text as columns of its tokens. Imports nothing but `_types`."""

import re
from collections.abc import Sequence
from typing import Any

from .._types import TokenizerLike

Place = str | tuple[str, int] | tuple[int, int]
"""A part of a text that occurs once; (part, k): its k-th occurrence; (start, stop): tokens."""


def columns_of(tokenizer: TokenizerLike, ids: Sequence[int], label: str, place: Place) -> list[int]:
    """The columns of `ids` that a place covers, whole tokens.

    Raises `ValueError` for a part that is absent or ambiguous, or tokens out of range.

    >>> columns_of(tokenizer, tokenizer.encode("John met Mary"), "object", " Mary")
    [2]
    """
    first, second = _two(label, place)
    if not isinstance(first, str):
        return _token_range(label, first, second, len(ids))
    begin, end = _find(tokenizer.decode(ids), label, first, second)
    return touching(edges_of(tokenizer, ids), begin, end)


def touching(edges: Sequence[tuple[int, int]], begin: int, end: int) -> list[int]:
    """The tokens that have some of the characters from begin to end."""
    return [i for i in range(len(edges) - 1) if edges[i][0] < end and edges[i + 1][1] > begin]


def edges_of(tokenizer: TokenizerLike, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Before every token, and at the end: (characters complete, characters begun) so far."""
    return [_characters(tokenizer, ids[:i]) for i in range(len(ids) + 1)]


def _two(label: str, place: Any) -> tuple[Any, Any]:
    """A place as (part, k or None) or (start, stop)."""
    if isinstance(place, str):
        return place, None
    first, second = (*place, None, None)[:2]
    if len(place) != 2 or not isinstance(first, str | int) or not isinstance(second, int):
        raise ValueError(
            f'span {label!r} is {place!r}: use " Mary", (" Mary", 2) or (4, 5) in tokens'
        )
    return first, second


def _token_range(label: str, start: int, stop: int, length: int) -> list[int]:
    if not 0 <= start < stop <= length:
        raise ValueError(
            f"span {label!r} is tokens {start} to {stop}: use (start, stop) with"
            f" 0 <= start < stop <= {length}"
        )
    return list(range(start, stop))


def _find(text: str, label: str, part: str, nth: int | None) -> tuple[int, int]:
    """Where a part begins and ends, in characters."""
    found = [match.start() for match in re.finditer(re.escape(part), text)] if part else []
    if not found:
        raise ValueError(
            f"span {label!r}: {part!r} does not occur in {text!r}: use a part of clean"
        )
    if nth is None and len(found) > 1:
        raise ValueError(
            f"span {label!r}: {part!r} occurs {len(found)} times: say which, as in ({part!r}, 2)"
        )
    nth = 1 if nth is None else nth
    if not 1 <= nth <= len(found):
        raise ValueError(
            f"span {label!r}: {part!r} occurs {len(found)} times: ({part!r}, 1) is the first"
        )
    return found[nth - 1], found[nth - 1] + len(part)


def _characters(tokenizer: TokenizerLike, ids: Sequence[int]) -> tuple[int, int]:
    """How many characters these tokens complete, and how many they begin: one may take several."""
    text = tokenizer.decode(ids)
    complete = text.rstrip("\ufffd")
    return len(complete), len(complete) + (text != complete)
