"""Codes made from labels, in every parametrisation.

Independent attributes by least squares, by means and with shuffled labels; coupled with the
position; names by place, which is known to approximate badly.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), appendix A.5. May import `dictionaries`, `tasks`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ...dictionaries import Supervised, supervised
from ...dictionaries.supervised import Labels, Method, crossed, shuffled, simulates
from ...tasks.labelled import Labelled
from ._bench import Bench

Named = tuple[Labels, Mapping[str, int]]
"""Labels, and how many values each attribute has."""


def fitted(train: Bench, named: Named, method: Method = "least_squares") -> list[Supervised]:
    """Codes of every component."""
    labels, sizes = named
    return [supervised(x, labels, sizes, method) for x in train.values]


def independent(source: Labelled) -> Named:
    """Attributes that vary apart from each other."""
    names = source.maker.coded
    return {n: source.labels[n] for n in names}, {n: source.sizes[n] for n in names}


def kinds_of(train: Bench, least_squares: list[Supervised]) -> dict[str, list[Supervised]]:
    """Codes of independent attributes by name: fitted, by means, and of shuffled labels."""
    labels, sizes = independent(train.source)
    mixed = shuffled(labels, np.random.default_rng(0))
    return {
        "supervised": least_squares,
        "supervised, means": fitted(train, (labels, sizes), "mean"),
        "supervised, shuffled labels": fitted(train, (mixed, sizes)),
    }


def ways(sides: Sequence[Labelled]) -> dict[str, list[Named]]:
    """The other parametrisations by name, for each of some prompts; none where there is no
    position."""
    if "Pos" not in sides[0].labels:
        return {}
    groups, names = [("IO", "Pos"), ("S", "Pos")], ("1st", "2nd", "3rd")
    return {
        "coupled": [crossed(x.labels, x.sizes, groups) for x in sides],
        "names": [({n: x.labels[n] for n in names}, {n: x.sizes[n] for n in names}) for x in sides],
    }


def alike(coupled: Sequence[Supervised], single: Sequence[Supervised]) -> float:
    """How far coupled codes are sums of independent ones, mean over names and components."""
    pairs = zip(coupled, single, strict=True)
    return float(np.mean([simulates(c, one, "IO", "Pos") for c, one in pairs]))
