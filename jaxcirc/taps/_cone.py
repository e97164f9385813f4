"""The causal cone: a change at layer l and column p reaches nothing below l and nothing before p.

What comes before the first column that can change is a key-value cache, computed once; runs then
carry only the suffix. May import the run.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Mask, Tokens
from ._edit import Add, Read
from ._run import Cache, Model, run
from ._sites import Sites


class Cone(eqx.Module):
    """The suffix of a batch of prompts, and the cache of the prefix that they share with a source.

    tokens: Int[batch suffix]; mask, positions: [batch suffix]; cache: None when nothing is shared;
    added: Float[batch suffix d_model], noise on the embeddings, or None.
    """

    tokens: Tokens
    mask: Mask
    positions: Int[Array, "batch suffix"]
    cache: Cache | None
    added: Float[Array, "batch suffix d_model"] | None = None

    def run(self, model: Model, edits: Sites = Sites(), **options):  # noqa: B008
        """`run` on the suffix; a run that starts at a layer has its noise in the stream already."""
        if self.added is not None and options.get("start") is None:
            edits = Sites(embed=Add(self.added)) | edits
        return run(
            model,
            self.tokens,
            edits,
            mask=self.mask,
            positions=self.positions,
            cache=self.cache,
            **options,
        )

    def of(self, tokens: Tokens, added: Float[Array, "batch pos d_model"] | None = None) -> "Cone":
        """The cone of other whole prompts with the same prefix, mask and positions."""
        first = tokens.shape[1] - self.tokens.shape[1]
        added = None if added is None else added[:, first:]
        return dataclasses.replace(self, tokens=tokens[:, first:], added=added)

    def beside(self, other: "Cone") -> "Cone":
        """The rows of this cone and of another with the same prefix, in one batch."""
        cache = self.cache
        if cache is not None:
            keys, values = (jnp.concatenate([x, x], axis=1) for x in (cache.keys, cache.values))
            cache = Cache(keys, values, _doubled(cache.positions), _doubled(cache.mask))
        tokens = jnp.concatenate([self.tokens, other.tokens])
        noises = [x for x in (self.added, other.added) if x is not None]
        added = jnp.concatenate(noises) if noises else None
        return Cone(tokens, _doubled(self.mask), _doubled(self.positions), cache, added)


def _doubled(x: Array) -> Array:
    return jnp.concatenate([x, x])


def cone(model: Model, tokens: Tokens, mask: Mask, first: int, added=None) -> Cone:
    """The cone behind column `first` (static): one run over the prefix, without logits.

    `tokens`: Int[batch pos], equal before `first` to those of every run that uses the cone; `mask`:
    Bool[batch pos]; `added`: Float[batch pos d_model], noise on the embeddings. `first=0` shares
    nothing and costs nothing.
    """
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    suffix = (tokens[:, first:], mask[:, first:], positions[:, first:])
    if first == 0:
        return Cone(*suffix, None, added)
    noise = None if added is None else Add(added[:, :first])
    reads = Sites(embed=noise, rot_k=Read(), v=Read())
    before, real = tokens[:, :first], mask[:, :first]
    _, records = run(model, before, reads, mask=real, layers=model.n_layers)
    cache = Cache(records.rot_k, records.v, positions[:, :first], real)
    return Cone(*suffix, cache, None if added is None else added[:, first:])
