"""The causal cone: a change at layer l and column p reaches nothing below l and nothing before p.

What comes before the first column that can change is a key-value cache, computed once; runs then
carry only the suffix. May import the run.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._types import Mask, Tokens
from ._edit import Read
from ._run import Cache, Model, run
from ._sites import Sites


class Cone(eqx.Module):
    """The suffix of a batch of prompts, and the cache of the prefix that they share with a source.

    tokens: Int[batch suffix]; mask, positions: [batch suffix]; cache: None when nothing is shared.
    """

    tokens: Tokens
    mask: Mask
    positions: Int[Array, "batch suffix"]
    cache: Cache | None

    def run(self, model: Model, edits: Sites = Sites(), tokens=None, **options):  # noqa: B008
        """`run` on the suffix, of these tokens or of others with the same prefix."""
        return run(
            model,
            self.tokens if tokens is None else tokens,
            edits,
            mask=self.mask,
            positions=self.positions,
            cache=self.cache,
            **options,
        )

    def twice(self) -> "Cone":
        """The cone of two suffixes, one stacked on the other, behind the same prefix."""
        cache = self.cache
        if cache is not None:
            keys, values = (jnp.concatenate([x, x], axis=1) for x in (cache.keys, cache.values))
            cache = Cache(keys, values, _doubled(cache.positions), _doubled(cache.mask))
        return Cone(_doubled(self.tokens), _doubled(self.mask), _doubled(self.positions), cache)


def _doubled(x: Array) -> Array:
    return jnp.concatenate([x, x])


def cone(model: Model, tokens: Tokens, mask: Mask, first: int) -> Cone:
    """The cone behind column `first` (static): one run over the prefix, without logits.

    `tokens`: Int[batch pos], equal before `first` to those of every run that uses the cone; `mask`:
    Bool[batch pos]. `first=0` shares nothing and costs nothing.
    """
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    suffix = (tokens[:, first:], mask[:, first:], positions[:, first:])
    if first == 0:
        return Cone(*suffix, None)
    reads = Sites(rot_k=Read(), v=Read())
    before, real = tokens[:, :first], mask[:, :first]
    _, records = run(model, before, reads, mask=real, layers=model.n_layers)
    return Cone(*suffix, Cache(records.rot_k, records.v, positions[:, :first], real))
