"""How `from_penzai` takes a model apart: layers of expected kinds, and the arrays in them.

Every layer must be one that the conversion knows, in the order of penzai's variants: an edit made
to the penzai model is an error here, never lost. Imports nothing of jaxcirc.
"""

from typing import Any

import numpy as np
from jaxtyping import Array
from penzai import pz


class Layers:
    """Layers taken from the front of a sequence, each of a kind that is expected there."""

    def __init__(self, layers: Any, where: str):
        self.rest = list(layers if isinstance(layers, list) else layers.sublayers)
        self.where = where

    def maybe(self, *kinds: type) -> Any:
        """The next layer if it is of one of the kinds, else None."""
        return self.rest.pop(0) if self.rest and isinstance(self.rest[0], kinds) else None

    def take(self, *kinds: type) -> Any:
        """The next layer, which must be of one of the kinds."""
        layer = self.maybe(*kinds)
        if layer is None:
            self._refuse(" or ".join(kind.__name__ for kind in kinds))
        return layer

    def all(self, *kinds: type) -> list[Any]:
        """The next layers as long as they are of the kinds."""
        found = []
        while layer := self.maybe(*kinds):
            found.append(layer)
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if self.rest:
            self._refuse("nothing more")

    def _refuse(self, expected: str) -> None:
        found = type(self.rest[0]).__name__ if self.rest else "nothing"
        raise ValueError(
            f"{self.where} holds {found} where {expected} belongs: undo the edit in penzai,"
            " convert, and edit the converted model"
        )


def number(x: Any) -> float:
    """A constant in the fewest digits that float32 tells apart: 1e-6, not 9.99999997e-7."""
    return float(str(np.float32(x)))


def array(parameter: Any, *axes: str) -> Array:
    """A parameter as a plain array, its axes in the order given."""
    return parameter.value.untag(*axes).unwrap()


def linear(layer: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]):
    """(weight, bias or None) of a Linear or Affine, axes in the order given."""
    if isinstance(layer, pz.nn.Linear):
        return array(layer.weights, *inputs, *outputs), None
    parts = Layers(layer, "Affine")
    weight, bias = parts.take(pz.nn.Linear).weights, parts.take(pz.nn.AddBias).bias
    parts.end()
    return array(weight, *inputs, *outputs), array(bias, *outputs)
