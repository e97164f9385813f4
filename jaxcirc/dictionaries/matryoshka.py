r"""`Matryoshka`: every prefix of the dictionary reconstructs by itself.

Bussmann et al. 2025 (arXiv 2503.17547), eq. 3: BatchTopK activations, loss
$\frac{1}{|M|} \sum_{m \in M} \|x - f_{<m} W_{dec, <m} - b_{dec}\|^2$ and AuxK. May import `_ops`,
`_coder`, `_trained`, `batchtopk`, `topk`.
"""

import itertools
import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._ops import DICTIONARY, axis_size, is_sharded
from ._coder import Coder
from ._trained import Seen, Stage, seen, squared
from .batchtopk import ByBatch, Threshold, no_threshold, of_batch
from .topk import ALPHA, revived


class Matryoshka(ByBatch):
    """Nested dictionaries of `widths`, rising to the whole; encoded like `BatchTopK`.

    >>> Matryoshka(init_coder(key, 576, 2048), k=32, widths=(128, 512, 2048)).encode(x)
    """

    coder: Coder
    k: int = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)
    threshold: Threshold = eqx.field(default_factory=no_threshold)

    def __check_init__(self):
        rising = tuple(sorted(set(self.widths)))
        if rising != tuple(self.widths) or rising[-1] != self.coder.d_dict or rising[0] < 1:
            raise ValueError(
                f"widths={self.widths}: rise from 1 or more to the whole width, as in"
                f" widths=({self.coder.d_dict // 4}, {self.coder.d_dict})"
            )

    def loss(
        self, x: Float[Array, "token d_in"], y: Float[Array, "token d_out"], at: Stage
    ) -> tuple[Float[Array, ""], Seen]:
        pre = self.coder.pre(x)
        features, least = of_batch(jax.nn.relu(pre), at.k)
        left, errors = y - self.coder.b_dec, []
        for part in parts(features, self.coder.directions, self.widths):
            left = left - part
            errors.append(squared(left))
        auxiliary = revived(self.coder, lambda: pre, left, at.dead)
        total = jnp.stack(errors).mean() + ALPHA * auxiliary
        return total, seen(features, errors[-1], 0.0, auxiliary, least)


def parts(
    features: Float[Array, "token feature"],
    directions: Float[Array, "feature d_out"],
    widths: tuple[int, ...],
) -> Iterator[Float[Array, "token d_out"]]:
    """What the features between each width and the next add to the reconstruction.

    On a mesh a slice would move features between devices: there they are cut into equal runs that
    no width and no device divides, every device decodes its own, and sums of runs are shared.
    """
    if not is_sharded():
        for begin, end in itertools.pairwise((0, *widths)):
            yield features[:, begin:end] @ directions[begin:end]
        return
    size = math.gcd(*widths, widths[-1] // axis_size(DICTIONARY))
    n = widths[-1] // size
    own = directions.reshape(n, size, -1)
    runs = jnp.einsum("tnf,nfd->ntd", features.reshape(len(features), n, size), own)
    part = np.searchsorted(widths, np.arange(n) * size, side="right")
    member = jnp.asarray(part == np.arange(len(widths))[:, None], runs.dtype)
    yield from jnp.einsum("pn,ntd->ptd", member, runs)
