"""What a head's answers on a balanced test are worth: label, attribute, and the worst group.

Marks et al. 2024 (arXiv 2403.19647), table 2, in percent. Imports `tasks`.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from ...tasks import Interval, interval

MEASURES = ("profession", "attribute", "worst")
"""Accuracy on the label; agreement with the attribute, ideally 50; accuracy in the worst of four
groups."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Percentages of one seed, and how many texts each group has."""

    profession: float
    attribute: float
    groups: Float[np.ndarray, "group"]
    size: int

    @property
    def worst(self) -> float:
        """Of the four groups."""
        return float(self.groups.min())


def measured(
    said: Int[np.ndarray, "text"],
    label: Int[np.ndarray, "text"],
    attribute: Int[np.ndarray, "text"],
) -> Measured:
    """The percentages of a head's answers. Raises `ValueError` for a group without texts.

    >>> measured(said(head, x), test.label, test.attribute).worst
    """
    right, cell = said == label, 2 * label + attribute
    sizes = np.bincount(cell, minlength=4)
    if not sizes.all():
        raise ValueError("a group of the test has no texts: draw a balanced one, test=400")
    groups = 100 * np.bincount(cell, weights=right, minlength=4) / sizes
    agrees = 100 * float((said == attribute).mean())
    return Measured(100 * float(right.mean()), agrees, groups, int(sizes.min()))


def over_seeds(values: list[float]) -> Interval:
    """The mean over seeds with its interval, clipped to percentages."""
    found = interval(np.asarray(values))
    ends = (min(max(end, 0.0), 100.0) for end in (found.low, found.high))
    if math.isnan(found.low):
        return found
    low, high = ends
    return dataclasses.replace(found, low=low, high=high)


def binomial(percent: float, n: int) -> float:
    """The standard error of a percentage of n texts, in points."""
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / n)
