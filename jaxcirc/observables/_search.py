"""Beam search over paths, each scored by its direct effect on prompts, or by norms alone.

A path's effect is what its first node writes, carried to the logits through the path with patterns
and norm scales held and MLPs linearised where they are: in a model of attention alone the effects
of all paths add up to the observable. May import `nn`, `taps` and `tasks`.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._types import Mask, Tokens
from ..taps import Node, Read, Sites, Taps, run, take_layer
from ..tasks import Interval, Prompts, interval
from ._heads import feature_norms
from ._linear import through_gain
from ._observable import Observable
from ._paths import precedes
from ._propagate import propagate

Slopes = Float[Array, "batch pos d_model"]
"""The slope of the observable in the stream, through the rest of a path."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """A path from a node to the logits.

    - `path`: its nodes, as information flows. `score`: its direct effect on the observable, clean
      minus corrupt, in logits; without prompts, the length of its feature.
    - `each`: the effect on every pair, empty without prompts.
    """

    path: tuple[Node, ...]
    score: float
    each: Float[np.ndarray, "example"]
    templates: Int[np.ndarray, "example"]

    @property
    def effect(self) -> Interval:
        """The mean over pairs with its interval."""
        return interval(self.each, self.templates)

    def __str__(self) -> str:
        return " -> ".join(map(str, self.path))


def search_paths(
    model,
    observable: Observable,
    prompts: Prompts | None = None,
    *,
    width: int = 8,
    depth: int = 2,
    mlps: bool = True,
) -> list[Branch]:
    """The paths through which an observable is written most, longer ones grown from shorter.

    - `prompts`: pairs; a path's score is its direct effect on clean minus that on corrupt prompts.
      Without them it is the length of its feature, of heads alone and without data.
    - `width`: paths kept at each length. `depth`: nodes in the longest. `mlps`: also through MLPs.

    Returns every path kept, the largest score first. Raises `ValueError` for a width or depth of 0.

    >>> [str(branch) for branch in search_paths(model, pronoun, prompts)[:3]]
    ['26.2', '28.0', '22.1 -> 26.2']
    """
    if width < 1 or depth < 1:
        raise ValueError("search_paths(model, observable, prompts, width=8, depth=2): from 1")
    with jax.default_matmul_precision("highest"):
        if prompts is None:
            found = _by_norms(model, observable, width, depth)
        else:
            found = _by_effects(model, observable, prompts, width, depth, mlps)
    return sorted(found, key=lambda branch: -abs(branch.score))


def _by_norms(model, observable: Observable, width: int, depth: int) -> list[Branch]:
    none = np.zeros(0)
    beam: list[tuple[Node, ...]] = [()]
    kept: list[Branch] = []
    for _ in range(depth):
        grown = []
        for path in beam:
            end = observable if not path else propagate(model, observable, path)
            norms = np.asarray(feature_norms(model, end))
            for layer, head in np.argwhere(norms > 0):
                node = Node("z", int(layer), int(head))
                score = float(norms[layer, head])
                grown.append(Branch((node, *path), score, none, none.astype(int)))
        best = sorted(grown, key=lambda branch: -branch.score)[:width]
        beam, kept = [branch.path for branch in best], kept + best
    return kept


class _Seen(NamedTuple):
    """The runs on clean and on corrupt prompts, one batch."""

    records: Sites
    mask: Mask


class _Grown(NamedTuple):
    """A path with the slopes in front of it, and the effect of what stands there."""

    path: tuple[Node, ...]
    slopes: Slopes


def _by_effects(model, observable, prompts: Prompts, width, depth, mlps: bool) -> list[Branch]:
    tokens = jnp.concatenate([prompts.clean, prompts.corrupt])
    seen = _see(model, tokens, jnp.concatenate([prompts.mask, prompts.mask]))
    templates = np.asarray(prompts.templates)
    beam = [_Grown((), _begin(model, observable, seen))]
    kept: list[Branch] = []
    for step in range(depth):
        grown: list[tuple[Branch, _Grown]] = []
        for end in beam:
            for node, each in _effects_before(model, seen, end, mlps):
                branch = Branch((node, *end.path), float(each.mean()), each, templates)
                grown.append((branch, end))
        best = sorted(grown, key=lambda pair: -abs(pair[0].score))[:width]
        kept += [branch for branch, _ in best]
        if step < depth - 1:
            beam = [_grow(model, seen, branch.path, end.slopes) for branch, end in best]
    return kept


@jax.jit
def _see(model, tokens: Tokens, mask: Mask) -> _Seen:
    sites = ["pattern", "z", "attn_in", "attn_post_scale", "mlp_in", "mlp_out", "mlp_post_scale"]
    reads = {site: Read() for site in sites if site in model.sites()}
    _, records = run(model, tokens, Sites(**reads, final_resid=Read()), mask=mask, logits_at=-1)
    return _Seen(records, mask)


@partial(jax.jit, static_argnames=("observable",))
def _begin(model, observable: Observable, seen: _Seen) -> Slopes:
    """The observable's slope in the final stream, which is 0 but at the last position."""
    final, norm = seen.records.final_resid, model.final_norm
    u = observable.direction(model)
    if model.logit_soft_cap is not None:

        def at(x: Array) -> Array:
            logits = model.unembedding(x[None, None], Taps(Sites()))[0, 0]
            return observable.direction(model, logits)

        u = jax.lax.map(at, final[:, -1])
    y = jnp.broadcast_to(u, (final.shape[0], final.shape[-1]))
    y = _through(norm, y, final[:, -1])
    return jnp.zeros_like(final).at[:, -1].set(y)


def _through(norm, y: Array, x: Array) -> Array:
    """y in front of a norm whose scale is held."""
    return y if norm is None else (through_gain(norm, y) / norm.scale(x)).astype(y.dtype)


def _effects_before(model, seen: _Seen, end: _Grown, mlps: bool):
    """Every node that may stand in front of a path, with its effect on every pair."""
    heads, others = _effects(model, seen, end.slopes)
    n = heads.shape[-1] // 2
    pairs = {"z": np.asarray(heads[..., :n] - heads[..., n:], np.float64)}
    if mlps and "mlp_out" in model.sites():
        pairs["mlp_out"] = np.asarray(others[..., :n] - others[..., n:], np.float64)
    for site, effects in pairs.items():
        for cell in np.ndindex(effects.shape[:-1]):
            node = Node(site, cell[0], cell[1] if site == "z" else None)
            if not end.path or precedes(model, node, end.path[0]):
                yield node, effects[cell]


@jax.jit
def _effects(model, seen: _Seen, slopes: Slopes) -> tuple[Array, Array]:
    """What every head [layer head batch] and MLP [layer batch] writes along the slopes."""
    records, blocks = _layered(seen), model.blocks

    def layer(index: Array) -> tuple[Array, Array]:
        block, own = take_layer(blocks, index), take_layer(records, index)
        y = _behind(block.attn_post_norm, slopes, own.attn_post_scale)
        heads = jnp.einsum("bpd,hed,bphe->hb", y, block.attn.w_o, own.z)
        if own.mlp_out is None:
            return heads, jnp.zeros(slopes.shape[0], slopes.dtype)
        return heads, jnp.einsum("bpd,bpd->b", slopes, own.mlp_out)

    return jax.lax.map(layer, jnp.arange(model.n_layers))


def _layered(seen: _Seen) -> Sites:
    """The records that lead with a layer axis."""
    return Sites(**{k: v for k, v in seen.records.items() if k != "final_resid"})


def _behind(norm, y: Slopes, scale: Array | None) -> Slopes:
    """y behind a post-norm whose scale is held."""
    if norm is None or scale is None:
        return y
    return (through_gain(norm, y) / scale).astype(y.dtype)


def _grow(model, seen: _Seen, path: tuple[Node, ...], slopes: Slopes) -> _Grown:
    node = path[0]
    layer = jnp.asarray(node.layer)
    if node.site == "z":
        return _Grown(path, _through_head(model, seen, slopes, layer, jnp.asarray(node.index)))
    return _Grown(path, _through_mlp(model, seen, slopes, layer))


@jax.jit
def _through_head(model, seen: _Seen, slopes: Slopes, layer: Array, head: Array) -> Slopes:
    """Slopes in front of a head, its pattern held."""
    block, own = take_layer(model.blocks, layer), take_layer(_layered(seen), layer)
    y = _behind(block.attn_post_norm, slopes, own.attn_post_scale)
    attn = block.attn
    value = head // (attn.w_q.shape[-2] // attn.w_v.shape[-2])
    w_o = jax.lax.dynamic_index_in_dim(attn.w_o, head, 0, False)
    w_v = jax.lax.dynamic_index_in_dim(attn.w_v, value, 1, False)
    pattern = jax.lax.dynamic_index_in_dim(own.pattern, head, 1, False)
    pulled = jnp.einsum("bqs,bqd,ed,fe->bsf", pattern, y, w_o, w_v, optimize="optimal")
    return _through(block.attn_norm, pulled, own.attn_in)


@jax.jit
def _through_mlp(model, seen: _Seen, slopes: Slopes, layer: Array) -> Slopes:
    """Slopes in front of an MLP, linearised where it is, its norms' scales held."""
    block, own = take_layer(model.blocks, layer), take_layer(_layered(seen), layer)
    shared = block.attn_norm if model.blocks.parallel else None
    norm = shared if block.mlp_norm is None else block.mlp_norm
    y = _behind(block.mlp_post_norm, slopes, own.mlp_post_scale)
    x = own.mlp_in if norm is None else norm.apply(own.mlp_in, norm.scale(own.mlp_in))
    _, pull = jax.vjp(lambda x: block.mlp(x, Taps(Sites())), x)
    return _through(norm, pull(y)[0], own.mlp_in)
