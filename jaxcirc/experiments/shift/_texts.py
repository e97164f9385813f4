"""`Split`, texts with a label and an attribute, and `Task`, which draws them and names the words.

Marks et al. 2024 (arXiv 2403.19647), section 4: in the ambiguous set label and attribute always go
together, in the balanced ones all four pairs are equally frequent. Imports nothing of jaxcirc.
"""

import dataclasses
import re
from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Split:
    """Texts, the label each is classified by, and the attribute that should not matter, 0 or 1."""

    texts: tuple[str, ...]
    label: Int[np.ndarray, "text"]
    attribute: Int[np.ndarray, "text"]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def cell(self) -> Int[np.ndarray, "text"]:
        """Which of the four pairs a text is: twice the label plus the attribute."""
        return 2 * np.asarray(self.label) + np.asarray(self.attribute)

    def without(self, words: Collection[str]) -> "Split":
        """The same with some words deleted from every text."""
        return dataclasses.replace(self, texts=tuple(deleted(text, words) for text in self.texts))

    def take(self, rows: Int[np.ndarray, "row"]) -> "Split":
        """Some of the texts."""
        texts = tuple(self.texts[i] for i in rows)
        return Split(texts, self.label[rows], self.attribute[rows])


@dataclasses.dataclass(frozen=True)
class Splits:
    """What one seed is measured on: to learn from with the confound, without it, and to test on."""

    ambiguous: Split
    balanced: Split
    test: Split


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many texts of each kind are drawn; multiples of 4, the pairs of label and attribute."""

    ambiguous: int = 320
    balanced: int = 320
    test: int = 320

    def __post_init__(self):
        for name, n in dataclasses.asdict(self).items():
            if n < 4 or n % 4:
                raise ValueError(f"{name}={n}: give a multiple of 4, as in {name}=320")


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification with a confound.

    - `labels`, `attributes`: what 0 and 1 mean. `words`: those that carry the attribute, in lower
      case, for word deletion and for the judge. `concepts`: words about the labels (CBP).
    - `draw(seed, counts)`: the texts of a seed; no text of the test is among the others.
    """

    name: str
    labels: tuple[str, str]
    attributes: tuple[str, str]
    words: frozenset[str]
    concepts: tuple[str, ...]
    draw: Callable[[int, Counts], Splits]


_POSSESSIVE = "['\N{RIGHT SINGLE QUOTATION MARK}]s"


def deleted(text: str, words: Collection[str]) -> str:
    """A text without some words (whole ones, in any case), and the spaces that this leaves.

    >>> deleted("In May, she thanked her nurse.", {"she", "her"})
    'In May, thanked nurse.'
    """
    if not words:
        return text
    longest = sorted(words, key=len, reverse=True)
    either = "|".join(map(re.escape, longest))
    pattern = rf"\b(?:{either})\b(?:{_POSSESSIVE})?"
    found = re.sub(pattern, "", text, flags=re.IGNORECASE)
    found = re.sub(r"\s+([,.;:!?])", r"\1", re.sub(r"[ \t]+", " ", found))
    return re.sub(r"^[\s,.;:]+", "", found).strip()


def cells(n: int, ambiguous: bool) -> tuple[Int[np.ndarray, "text"], Int[np.ndarray, "text"]]:
    """Labels and attributes of `n` texts: always equal, or every pair equally often."""
    label = np.arange(n) % 2
    return label, label.copy() if ambiguous else np.arange(n) // 2 % 2
