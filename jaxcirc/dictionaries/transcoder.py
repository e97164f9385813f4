r"""`Transcoder`: what a block makes of its input, in sparse features of the input.

Dunefsky, Chlenski & Nanda 2024 (arXiv 2406.11944), eq. 3; with a linear skip, Paulo, Shabalin &
Belrose 2025 (arXiv 2501.18823), eq. 2: $\hat y = f(x) W_{dec} + b_{dec} + x W_{skip}$. May import
`_coded`, `_trained`, `_wrapped`.
"""

from typing import Any

from jaxtyping import Array, Float

from ._coded import Coded
from ._trained import Seen, Stage, Trainable
from ._wrapped import Wrapped


class Transcoder(Wrapped, Trainable):
    """Any dictionary from x to y, with or without a linear skip.

    - `inner`: a trainable dictionary whose coder maps d_in to d_out and is not centred. `skip`:
      Float[d_in d_out].

    `decode` alone leaves the skip out, which depends on x: `transcode(x)` has it.

    >>> Transcoder(TopK(init_coder(key, 576, 2048, centred=False), k=32)).transcode(x)
    """

    inner: Coded  # pyright: ignore[reportIncompatibleVariableOverride]
    skip: Float[Array, "d_in d_out"] | None = None

    def __check_init__(self):
        if self.inner.coder.centred:
            raise ValueError(
                "a transcoder's input and output differ: init_coder(..., centred=False)"
            )

    @property
    def directions(self) -> Float[Array, "feature d_out"]:
        return self.inner.directions

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch feature"]:
        return self.inner.encode(x)

    def decode(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch d_out"]:
        return self.inner.decode(features)

    def transcode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch d_out"]:
        """y as far as features and skip explain it."""
        found = self.decode(self.encode(x))
        return found if self.skip is None else found + x @ self.skip

    def loss(
        self, x: Float[Array, "token d_in"], y: Float[Array, "token d_out"], at: Stage
    ) -> tuple[Float[Array, ""], Seen]:
        return self.inner.loss(x, y if self.skip is None else y - x @ self.skip, at)

    def tangent(self, slope: Any) -> Any:
        return Transcoder(self.inner.tangent(slope.inner), slope.skip)

    def settled(self, seen: Seen) -> "Transcoder":
        return Transcoder(self.inner.settled(seen), self.skip)

    def scaled(self, inputs: Float[Array, ""], outputs: Float[Array, ""]) -> "Transcoder":
        skip = None if self.skip is None else self.skip * inputs / outputs
        return Transcoder(self.inner.scaled(inputs, outputs), skip)
