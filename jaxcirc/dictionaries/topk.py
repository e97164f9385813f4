r"""`TopK`: exactly k features of every token, and a second chance for dead ones.

Gao et al. 2024 (arXiv 2406.04093): $f = \mathrm{TopK}(\mathrm{relu}(z))$, loss $\|x - \hat x\|^2 +
\alpha \|e - \hat e\|^2$ (section 2.4, appendix A.2), where $e = x - \hat x$ is what is left and
$\hat e$ its reconstruction from the largest $k_{aux}$ dead features, without bias. May import
`_ops`, `_coder`, `_coded`, `_sparse`, `_trained`.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from .._ops import DATA, DICTIONARY, among_largest, axis_size, is_sharded, keep
from ._coded import Coded
from ._coder import Coder
from ._sparse import Codes, decode, select
from ._trained import Seen, Stage, seen, seen_of, squared, wide

ALPHA = 1 / 32
"""The coefficient of the auxiliary loss."""


class TopK(Coded):
    """The k largest pre-activations of every token, as far as they are positive.

    - `by_length`: the activations are weighed by the length of their direction when they compete.
      `most`: how many training begins with, if it comes down to k by and by.

    >>> (TopK(init_coder(key, 576, 2048), k=32).encode(x) > 0).sum(axis=-1).max()
    """

    coder: Coder
    k: int = eqx.field(static=True)
    by_length: bool = eqx.field(static=True, default=False)
    most: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not 0 < self.k <= (self.most or self.k) <= self.coder.d_dict:
            raise ValueError(f"k={self.k}: give 1..{self.coder.d_dict}, as in k=32")

    def encode(self, x: Float[Array, "*batch d_in"]) -> Float[Array, "*batch feature"]:
        pre = jax.nn.relu(self.coder.pre(x))
        return largest(pre, self.k, weights=self.coder.lengths if self.by_length else None)

    def trained(self, x: Float[Array, "token d_in"], at: Stage) -> Float[Array, "token feature"]:
        return self._kept(self.coder.pre(x), at)

    def _kept(self, pre: Array, at: Stage) -> Array:
        weights = self.coder.lengths if self.by_length else None
        return largest(jax.nn.relu(pre), self.most or self.k, at.k, weights)

    def loss(
        self, x: Float[Array, "token d_in"], y: Float[Array, "token d_out"], at: Stage
    ) -> tuple[Float[Array, ""], Seen]:
        if self.by_length or axis_size(DICTIONARY) > 1:
            return self._dense(x, y, at)
        by_rows = TopK._of_own_tokens if axis_size(DATA) else TopK._by_rows
        return lax.platform_dependent(self, x, y, at, tpu=TopK._dense, default=by_rows)

    def _of_own_tokens(self, x: Array, y: Array, at: Stage) -> tuple[Array, Seen]:
        """`_by_rows` where a mesh shares out tokens alone: the mean of all devices' own."""

        def on_each(dictionary: TopK, x: Array, y: Array, at: Stage) -> tuple[Array, Seen]:
            value, seen = lax.pmean(dictionary._by_rows(x, y, at), DATA)
            return value, dataclasses.replace(seen, fired=seen.fired * lax.axis_size(DATA))

        rows = P(DATA)
        in_specs = P(), rows, rows, P()
        each = jax.shard_map(on_each, in_specs=in_specs, out_specs=P(), check_vma=False)
        return each(self, x, y, at)

    def _dense(self, x: Array, y: Array, at: Stage) -> tuple[Array, Seen]:
        """On a TPU, where gathering rows takes three times the memory of the plain products."""
        pre = self.coder.pre(x)
        features = self._kept(pre, at)
        left = y - self.decode(features)
        error, auxiliary = squared(left), revived(self.coder, lambda: pre, left, at.dead)
        return error + ALPHA * auxiliary, seen(features, error, 0.0, auxiliary)

    def _by_rows(self, x: Array, y: Array, at: Stage) -> tuple[Array, Seen]:
        """The same from the active rows alone."""
        coder, most = self.coder, self.most or self.k
        centre = coder.b_dec if coder.centred else jnp.zeros_like(x[0])
        codes: Codes = select(x, centre, coder.w_enc, coder.b_enc, most)
        values, rows = codes
        values = jnp.where(jnp.arange(most) < at.k, values, 0)
        left = y - coder.b_dec - decode(values, rows, coder.directions)
        error = squared(left)
        auxiliary = revived_apart(coder, x, left, at.dead)
        fired = jnp.zeros(coder.d_dict).at[rows].add(values > 0)
        return error + ALPHA * auxiliary, seen_of(fired, len(x), error, 0.0, auxiliary)

    def settled(self, seen: Seen) -> "TopK":
        return self.with_coder(self.coder.settled())


def largest(
    values: Float[Array, "*batch feature"],
    k: int,
    now: Int[Array, ""] | None = None,
    weights: Float[Array, "feature"] | None = None,
) -> Float[Array, "*batch feature"]:
    """Values that are not negative, all but the k largest of each row set to 0; of equals the first
    are kept.

    - `now`: so many of the k (annealing). `weights`: values compete as value * weight.
    """
    if not is_sharded():
        return keep(values, k, now, weights)
    rank = lax.stop_gradient(values if weights is None else values * weights)
    rows = rank.reshape(-1, rank.shape[-1])
    return jnp.where(among_largest(rows, k, now).reshape(rank.shape), values, 0.0)


def revived(
    coder: Coder,
    pre: Callable[[], Float[Array, "token feature"]],
    left: Float[Array, "token d_out"],
    dead: Bool[Array, "feature"],
) -> Float[Array, ""]:
    """AuxK: how much of what is left the dead features do not explain, 0 if none is dead.

    The half of d_out that is dead and largest takes part; what is left is held still. `pre` gives
    the pre-activations, when they are needed.
    """
    left = lax.stop_gradient(left)

    def loss() -> Array:
        return _unexplained(coder, pre(), left, dead)

    return lax.cond(dead.any(), loss, lambda: wide(jnp.zeros((), left.dtype)))


def _unexplained(coder: Coder, pre: Array, left: Array, dead: Array) -> Array:
    k = min(max(1, left.shape[-1] // 2), coder.d_dict)
    found = largest(jnp.where(dead, jax.nn.relu(pre), 0.0), k) @ coder.directions
    return squared(left - found)


@jax.custom_vjp
def revived_apart(
    coder: Coder,
    x: Float[Array, "token d_in"],
    left: Float[Array, "token d_out"],
    dead: Bool[Array, "feature"],
) -> Float[Array, ""]:
    """`revived` where pre-activations are needed for it alone.

    The gradient is taken on the way forward: from there to the way back a branch would keep all
    that it might need, arrays of tokens by features and copies of both matrices, taken or not.
    """
    return revived(coder, lambda: coder.pre(x), left, dead)


def _apart(coder: Coder, x: Array, left: Array, dead: Array) -> Array:
    return _unexplained(coder, coder.pre(x), left, dead)


def _revived_fwd(coder, x, left, dead):
    def found():
        return jax.value_and_grad(_apart)(coder, x, left, dead)

    def none():
        return wide(jnp.zeros((), left.dtype)), jax.tree.map(jnp.zeros_like, coder)

    value, slope = lax.cond(dead.any(), found, none)
    return value, (slope, coder, x, left, dead)


def _revived_bwd(kept, by):
    slope, *given = kept
    on_coder = jax.tree.map(lambda s: (by * s).astype(s.dtype), slope)
    x, dead = given[1], given[3]

    def found():
        return (by * jax.grad(_apart, argnums=1)(*given)).astype(x.dtype)

    return on_coder, lax.cond(dead.any(), found, lambda: jnp.zeros_like(x)), None, None


revived_apart.defvjp(_revived_fwd, _revived_bwd)
