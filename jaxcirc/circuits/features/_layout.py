"""`FeatureNode`, and `Layout`: a column for every node of some places. May import `taps`.

Marks et al. 2024 (arXiv 2403.19647), section 2: features, and one error for each place and
position.
"""

import dataclasses
import re
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from ...taps import AXES, Node

_NAME = re.compile(r"(?P<site>\w+)\.(?P<layer>\d+)/(?P<index>\d+|error)(?: at (?P<pos>\d+))?")


@dataclasses.dataclass(frozen=True)
class FeatureNode:
    """A feature at a place, or the place's error; at one position (counted from a prompt's first
    token), or at all of them.

    >>> str(FeatureNode("resid_post", 12, 317, 4)), str(FeatureNode("mlp_out", 5, "error"))
    ('resid_post.12/317 at 4', 'mlp_out.5/error')
    """

    site: str
    layer: int
    index: int | Literal["error"]
    pos: int | None = None

    @property
    def is_error(self) -> bool:
        """Whether this is what the dictionary leaves out."""
        return self.index == "error"

    @property
    def place(self) -> Node:
        """Where it lies."""
        return Node(self.site, self.layer)

    def __str__(self) -> str:
        name = f"{self.site}.{self.layer}/{self.index}"
        return name if self.pos is None else f"{name} at {self.pos}"

    @classmethod
    def parse(cls, name: str) -> "FeatureNode":
        """The inverse of `str`. Raises `ValueError` for anything else."""
        found = _NAME.fullmatch(name)
        if found is None or found["site"] not in AXES:
            raise ValueError(f"no node {name!r}: write it like 'resid_post.12/317 at 4'")
        index = "error" if found["index"] == "error" else int(found["index"])
        pos = None if found["pos"] is None else int(found["pos"])
        return cls(found["site"], int(found["layer"]), index, pos)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A column for every node of a basis: place by place, position by position, the features and
    then the error.

    - `widths`: features of each place; `d_ins`: numbers in its error. `n_pos`: None if a node is
      meant at all positions at once.

    >>> basis.layout(6).node(0)
    """

    places: tuple[Node, ...]
    widths: tuple[int, ...]
    d_ins: tuple[int, ...]
    n_pos: int | None

    @cached_property
    def offsets(self) -> Int[np.ndarray, "place_and_end"]:
        """The first column of every place, and how many there are."""
        sizes = (np.asarray(self.widths) + 1) * (self.n_pos or 1)
        return np.concatenate([[0], np.cumsum(sizes)])

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return int(self.offsets[-1])

    def of_place(self, i: int) -> slice:
        """The columns of a place."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def split(
        self, columns: Int[np.ndarray, "node"]
    ) -> tuple[Int[np.ndarray, "node"], Int[np.ndarray, "node"], Int[np.ndarray, "node"]]:
        """Place, position (-1 for all) and index (the width for an error) of some columns."""
        columns = np.asarray(columns, int)
        place = np.searchsorted(self.offsets, columns, side="right") - 1
        pos, index = np.divmod(columns - self.offsets[place], np.asarray(self.widths)[place] + 1)
        return place, pos if self.n_pos else np.full_like(pos, -1), index

    def errors(self, columns: Int[np.ndarray, "node"]) -> Bool[np.ndarray, "node"]:
        """Which of some columns are errors."""
        place, _, index = self.split(columns)
        return index == np.asarray(self.widths)[place]

    def scalars(self, columns: Int[np.ndarray, "node"]) -> int:
        """How many numbers some nodes hold: 1 a feature, the place's width an error."""
        place, _, _ = self.split(columns)
        sizes = np.where(self.errors(columns), np.asarray(self.d_ins)[place], 1)
        return int(sizes.sum())

    def node(self, column: int) -> FeatureNode:
        """The node of a column."""
        place, pos, index = (int(x[0]) for x in self.split(np.asarray([column])))
        at = self.places[place]
        what = "error" if index == self.widths[place] else index
        return FeatureNode(at.site, at.layer, what, pos if self.n_pos else None)

    def column(self, node: FeatureNode) -> int:
        """The column of a node. Raises `ValueError` if there is none."""
        place = self.places.index(node.place) if node.place in self.places else None
        if place is None or (node.pos is None) != (self.n_pos is None):
            known = ", ".join(f"{p.site}.{p.layer}" for p in self.places)
            at = "at a position" if self.n_pos else "without a position"
            raise ValueError(f"no node {str(node)!r}: give nodes {at} at {known}")
        width = self.widths[place]
        index = width if node.index == "error" else node.index
        pos = node.pos or 0
        if index > width or (index == width and not node.is_error) or pos >= (self.n_pos or 1):
            raise ValueError(f"no node {str(node)!r}: {width} features, {self.n_pos} positions")
        return int(self.offsets[place] + pos * (width + 1) + index)

    def masks(self, columns: Int[np.ndarray, "node"]) -> tuple[Bool[np.ndarray, "pos _"], ...]:
        """Which nodes of every place are among some columns."""
        flat = np.zeros(self.size, bool)
        flat[np.asarray(columns, int)] = True
        each = [flat[self.of_place(i)] for i in range(len(self.places))]
        return tuple(x.reshape(self.n_pos or 1, -1) for x in each)
