"""`Node`: one cell of a model as a value. May import the sites."""

import dataclasses

from ._sites import AXES


@dataclasses.dataclass(frozen=True, order=True)
class Node:
    """A component: a site at a layer, with an index along its head axis if it has one.

    >>> str(Node("z", 23, 3)), str(Node("mlp_out", 5))
    ('23.3', 'mlp 5')
    """

    site: str
    layer: int
    index: int | None = None

    def __str__(self) -> str:
        if self.site == "z":
            return f"{self.layer}.{self.index}"
        place = f"{self.layer}" if self.index is None else f"{self.layer}.{self.index}"
        return f"{self.site.removesuffix('_out')} {place}"


def head_axis(site: str) -> str | None:
    """The site's axis of heads: "head", "kv_head", or None."""
    return next((axis for axis in AXES[site] if axis in ("head", "kv_head")), None)
