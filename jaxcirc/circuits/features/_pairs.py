"""Chosen nodes place by place, and the pairs of places between which they have edges.

May import `taps`, `_layout`, `_reach`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ...taps import Node
from ._layout import FeatureNode, Layout
from ._reach import Link, links

Cells = tuple[Int[Array, "_"], Int[Array, "_"]]
"""Positions (-1: all) and indices (the number of features: the error) of nodes of one place."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The chosen nodes of one place: their numbers, positions and indices."""

    numbers: Int[np.ndarray, "node"]
    pos: Int[np.ndarray, "node"]
    index: Int[np.ndarray, "node"]

    def __len__(self) -> int:
        return len(self.numbers)

    def cells(self, some: Int[np.ndarray, "node"]) -> Cells:
        """Positions and indices of some of them."""
        return jnp.asarray(self.pos[some]), jnp.asarray(self.index[some])


def groups_of(layout: Layout, nodes: Sequence[FeatureNode]) -> tuple[Group, ...]:
    """The nodes place by place. Raises `ValueError` for one that the basis lacks."""
    columns = np.asarray([layout.column(node) for node in nodes], int)
    place, pos, index = layout.split(columns)
    members = [np.flatnonzero(place == i) for i in range(len(layout.places))]
    return tuple(Group(m, pos[m], index[m]) for m in members)


class Pairs(NamedTuple):
    """A link with nodes at both ends, and which of their pairs are edges, [reader source]."""

    link: Link
    up: Group
    down: Group
    edge: Bool[np.ndarray, "reader source"]


def pairs_of(places: Sequence[Node], groups: Sequence[Group], n_nodes: int, model) -> list[Pairs]:
    """All pairs that can be edges; in a causal model a node hears nothing from behind it."""
    metric = Group(np.asarray([n_nodes]), np.asarray([-1]), np.asarray([0]))
    found = []
    for link in links(places, model.blocks.parallel):
        up = groups[link.source]
        down = metric if link.target is None else groups[link.target]
        if not len(up) or not len(down):
            continue
        heard = up.pos <= down.pos[:, None] if model.causal else np.ones((len(down), len(up)), bool)
        found.append(Pairs(link, up, down, heard | (down.pos < 0)[:, None]))
    return found
