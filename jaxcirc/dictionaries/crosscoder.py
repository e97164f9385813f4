r"""`Crosscoder`: one set of features for several sites at once.

Lindsey et al. 2024 (Sparse Crosscoders): $f = \mathrm{relu}(\sum_s x_s W^s_{enc} + b_{enc})$,
$\hat x_s = f W^s_{dec} + b^s_{dec}$, loss $\sum_s \|x_s - \hat x_s\|^2 + \lambda \sum_i f_i
\sum_s \|d^s_i\|$; or BatchTopK over $f_i \sum_s \|d^s_i\|$ (Minder et al. 2025, arXiv 2504.02922)
with AuxK over all sites at once. May import `_coder`, `_trained`, `batchtopk`, `topk`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._coder import unit
from ._trained import Seen, Stage, Trainable, seen, squared, wide
from .batchtopk import Threshold, no_threshold, of_batch
from .topk import ALPHA, largest


class Crosscoder(Trainable):
    """Activations have an axis of sites: x is Float[token site d_in].

    - `k`: BatchTopK with so many features a token; None: a ReLU and a penalty. `units`: of each
      site while it was trained, if `scaled` has moved it since: lengths are compared in those.

    >>> init_crosscoder(key, n_sites=3, d_in=576, d_dict=2048).encode(x)       # x: [.. 3 576]
    """

    w_enc: Float[Array, "site d_in feature"]
    b_enc: Float[Array, "feature"]
    w_dec: Float[Array, "feature site d_in"]
    b_dec: Float[Array, "site d_in"]
    k: int | None = eqx.field(static=True, default=None)
    threshold: Threshold = eqx.field(default_factory=no_threshold)
    units: Float[Array, "site"] | None = None

    @property
    def d_in(self) -> int:
        return self.w_enc.shape[1]

    @property
    def d_dict(self) -> int:
        return self.w_enc.shape[2]

    @property
    def directions(self) -> Float[Array, "feature site d_in"]:
        return self.w_dec

    @property
    def lengths(self) -> Float[Array, "feature"]:
        """The sum over sites of the length of every direction."""
        found = jnp.linalg.norm(self.w_dec, axis=-1)
        if self.units is not None:
            found = found * jax.lax.stop_gradient(self.units)
        return found.sum(axis=-1)

    def _pre(self, x: Array) -> Array:
        return jax.nn.relu(jnp.einsum("...sd,sdf->...f", x, self.w_enc) + self.b_enc)

    def encode(self, x: Float[Array, "*batch site d_in"]) -> Float[Array, "*batch feature"]:
        pre = self._pre(x)
        if self.k is None:
            return pre
        return jnp.where(pre * self.lengths > self.threshold.value.astype(pre.dtype), pre, 0.0)

    def decode(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch site d_in"]:
        return jnp.einsum("...f,fsd->...sd", features, self.w_dec) + self.b_dec

    def loss(
        self, x: Float[Array, "token site d_in"], y: Float[Array, "token site d_in"], at: Stage
    ) -> tuple[Float[Array, ""], Seen]:
        pre = self._pre(x)
        weighted = pre * self.lengths
        sparsity = wide(weighted).sum(axis=-1).mean()
        if self.k is None:
            error = squared(y - self.decode(pre))
            return error + at.sparsity * sparsity, seen(pre, error, sparsity)
        kept, least = of_batch(weighted, at.k)
        features = jnp.where(kept > 0, pre, 0.0)
        left = y - self.decode(features)
        error, auxiliary = squared(left), self._revived(pre, left, at.dead)
        return error + ALPHA * auxiliary, seen(features, error, sparsity, auxiliary, least)

    def _revived(
        self,
        pre: Float[Array, "token feature"],
        left: Float[Array, "token site d_in"],
        dead: Bool[Array, "feature"],
    ) -> Float[Array, ""]:
        """AuxK (see `topk`): what half of d_in dead features leave of the rest at all sites; they
        compete as all do, by f times the length."""
        left = lax.stop_gradient(left)

        def loss() -> Array:
            k = min(max(1, self.d_in // 2), self.d_dict)
            found = largest(jnp.where(dead, pre, 0.0), k, weights=self.lengths)
            return squared(left - jnp.einsum("tf,fsd->tsd", found, self.w_dec))

        return lax.cond(dead.any(), loss, lambda: wide(jnp.zeros((), left.dtype)))

    def tangent(self, slope: Any) -> Any:
        return slope

    def settled(self, seen: Seen) -> "Crosscoder":
        return eqx.tree_at(lambda c: c.threshold, self, self.threshold.updated(seen.least))

    def scaled(self, inputs: Float[Array, "..."], outputs: Float[Array, "..."]) -> "Crosscoder":
        """`inputs` and `outputs` may be Float[site]: every site has its own unit."""
        sites = self.w_enc.shape[:1]
        across, back = (jnp.broadcast_to(jnp.asarray(unit), sites) for unit in (inputs, outputs))
        return Crosscoder(
            self.w_enc * across[:, None, None],
            self.b_enc,
            self.w_dec / back[:, None],
            self.b_dec / back[:, None],
            self.k,
            self.threshold,
            back if self.units is None else self.units * back,
        )


def init_crosscoder(
    key: PRNGKeyArray,
    n_sites: int,
    d_in: int,
    d_dict: int,
    k: int | None = None,
    *,
    length: float = 1.0,
    dtype: jnp.dtype = jnp.float32,
) -> Crosscoder:
    """Random directions, each site's of one length, the encoder their transpose."""
    rows = unit(jax.random.normal(key, (d_dict, n_sites, d_in), dtype)) * length
    zeros = jnp.zeros(d_dict, dtype), jnp.zeros((n_sites, d_in), dtype)
    return Crosscoder(rows.transpose(1, 2, 0), zeros[0], rows, zeros[1], k)
