r"""What components write, one vector a text: O'Neill & Bui 2024 (arXiv 2405.12522), section 3.

A head's output behind W_O, mean over all positions, the first token included, as published; or at
the last position, or at every one. May import `taps`.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...taps import AbstractEdit, Read, Sites, run
from ...tasks import Contrast

Pool = Literal["mean", "last", "each"]
"""Which position stands for a text: the mean over all, the last one, or each by itself."""


class Weighted(AbstractEdit):
    """Record the weighted sum over positions, and let the activation pass.

    `weights`: Float[layer batch pos].
    """

    weights: Float[Array, "*layer batch pos"]

    def __call__(self, x: Any) -> tuple[Any, Any]:
        return x, jnp.einsum("bp...,bp->b...", x, self.weights.astype(x.dtype))


def component_outputs(
    model,
    texts: Contrast,
    *,
    pool: Pool = "mean",
    mlps: bool = False,
    batch: int = 32,
    precision: str = "highest",
) -> Float[np.ndarray, "example pos component d_model"]:
    r"""What every head writes to the residual stream, in float32.

    $$x_{e,h} = \frac{1}{|e|} \sum_{p \in e} z_{e,p,h} W_O^h$$

    - `pool`: "mean" as published; "last"; or "each", whose padding is 0.
    - `mlps`: MLPs too, each behind the heads of its layer (ours; published are heads alone).
    - `batch`: texts in one compiled call.

    Returns Float[example pos component d_model], components layer by layer; one position unless
    pool="each". Raises `ValueError` for another word.

    >>> component_outputs(model, contrast("ioi", tokenizer)).shape      # (64, 1, 270, 576)
    """
    if pool not in ("mean", "last", "each"):
        raise ValueError(f'pool={pool!r}: use pool="mean", pool="last" or pool="each"')
    size, found = min(batch, len(texts)), []
    with jax.default_matmul_precision(precision):
        for start in range(0, len(texts), size):
            rows = np.arange(start, start + size) % len(texts)
            part = texts.tokens[rows], texts.mask[rows]
            found.append(np.asarray(_outputs(model, *part, pool=pool, mlps=mlps)))
    return np.concatenate(found)[: len(texts)]


@partial(jax.jit, static_argnames=("pool", "mlps"))
def _outputs(model, tokens, mask, *, pool: Pool, mlps: bool):
    normed = "attn_post_scale" in model.sites()  # then what heads write is not linear in z
    own = "head_out" if normed else "z"
    sites = (own, "mlp_out") if mlps and "mlp_out" in model.sites() else (own,)
    real = mask.astype(jnp.float32)
    weights = real / real.sum(axis=1, keepdims=True)
    if pool == "last":
        weights = jnp.zeros_like(real).at[:, -1].set(1.0)
    along = jnp.broadcast_to(weights, (model.n_layers, *weights.shape))
    edit = Read() if pool == "each" else Weighted(along)
    edits = Sites(**{site: edit for site in sites})
    _, seen = run(model, tokens, edits, mask=mask, layers=model.n_layers)
    if pool != "each":
        seen = jax.tree.map(lambda x: x[:, :, None], seen)
    out = model.blocks.attn.w_o  # applied to means, where it can be
    parts = [seen.head_out if normed else jnp.einsum("lbphe,lhed->lbphd", seen.z, out)]
    if len(sites) == 2:
        parts.append(seen.mlp_out[:, :, :, None])
    both = jnp.moveaxis(jnp.concatenate(parts, axis=3), 0, 2)
    found = both.reshape(*both.shape[:2], -1, both.shape[-1]).astype(jnp.float32)
    return jnp.where(mask[:, :, None, None], found, 0.0) if pool == "each" else found
