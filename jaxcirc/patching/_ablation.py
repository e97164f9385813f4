"""Values to ablate with: zero, means by position or pooled, constants, other prompts' values.

Zhang & Nanda 2023 (arXiv 2309.16042), section 2.1; Wang et al. 2022 (arXiv 2211.00593), section 4.
Whatever the value, each prompt's first token (a sink) keeps its own. May import
`taps`, `tasks`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..taps import AXES, Read, Sites, cone
from ..tasks import Prompts, ends

KINDS = ("source", "zero", "mean", "mean_pooled", "resample", "optimal")
"""Words for what a patched cell is set to."""


class Ablation(eqx.Module):
    """Values to ablate with: `values` [layer group pos ...] per site (axes of size 1 serve all),
    each prompt's group, and over how many reference prompts the mean of every group goes."""

    values: Sites
    group: Int[Array, "example"]
    sizes: Float[Array, "group"]

    def take(self, rows: Int[np.ndarray, "row"]) -> "Ablation":
        """The same values for some of the prompts."""
        return Ablation(self.values, self.group[rows], self.sizes)


def constant(model, prompts: Prompts, values: Mapping[str, ArrayLike]) -> Ablation:
    """The same value at every prompt and position.

    - `values`: per site a number, or an array that broadcasts against [layer batch pos ...].

    Raises `ValueError` for a site the model lacks or a shape that does not fit.

    >>> constant(model, prompts, {"z": 0.0})
    """
    model.check(*values)
    tables = {site: _table(model, site, value) for site, value in values.items()}
    n = len(prompts)
    return Ablation(Sites(**tables), jnp.zeros(n, int), jnp.ones(1))


def _table(model, site: str, value: ArrayLike) -> Array:
    axes = AXES[site]
    size = [model.axis_size(a) if a not in ("batch", "pos", "dest", "src") else 1 for a in axes]
    try:
        return jnp.broadcast_to(jnp.asarray(value, model.dtype), (model.n_layers, *size))
    except ValueError:
        shape = ", ".join(map(str, (model.n_layers, *size)))
        raise ValueError(
            f"a constant of shape {jnp.shape(value)} for {site!r}: it must broadcast to ({shape})"
        ) from None


def means(
    model,
    prompts: Prompts,
    sites: Sequence[str] = ("z", "mlp_out"),
    reference: Prompts | None = None,
    *,
    pooled: bool = False,
    batch: int = 64,
) -> Ablation:
    """Means over the corrupt prompts, by position and template, or pooled over both.

    - `sites`: those the model lacks are left out.
    - `reference`: the prompts to average over (default: `prompts` themselves); by position it must
      hold every template of `prompts` at the same length, else `ValueError`. Templates with a
      single prompt there are averaged together, all of one length.
    - `pooled`: one mean over all prompts and positions but each first token.
    - `batch`: prompts in one compiled call.

    >>> means(model, prompts, reference=ioi(tokenizer, n=256, seed=1)).sizes
    """
    reference = prompts if reference is None else reference
    reference = reference.padded_to(prompts.clean.shape[1])
    order, group = _pooled(reference, prompts) if pooled else _groups(reference, prompts)
    kept = tuple(site for site in sites if site in model.sites())
    with jax.default_matmul_precision("highest"):
        sums = [
            _sums(
                model,
                reference.take(rows).arrays(),
                jax.nn.one_hot(np.where(new, order[rows], -1), int(order.max()) + 1),
                sites=kept,
                pooled=pooled,
            )
            for rows, new in _new_rows(reference, batch)
        ]
    total, count, often = jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *sums)
    values = jax.tree.map(lambda x: x / count.reshape(-1, *[1] * (x.ndim - 2)), total)
    return Ablation(values, jnp.asarray(group), often)


def _pooled(reference: Prompts, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(reference), int), np.zeros(len(prompts), int)


def _groups(reference: Prompts, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """The group of every reference prompt, and of every prompt."""
    keys = _keys(reference)
    often = Counter(keys)
    missing = sorted(set(_keys(prompts)) - set(keys))
    if missing:
        raise ValueError(
            f"no reference prompt has template {missing[0][0]} at {missing[0][1]} tokens: draw"
            " more, as in means(model, prompts, reference=ioi(tokenizer, n=256, seed=1))"
        )
    shared = {key: key if often[key] > 1 else (None, key[1]) for key in often}
    index = {key: i for i, key in enumerate(dict.fromkeys(shared.values()))}
    order, group = ([index[shared[key]] for key in _keys(some)] for some in (reference, prompts))
    return np.asarray(order), np.asarray(group)


def _keys(prompts: Prompts) -> list[tuple[int, int]]:
    return list(zip(np.asarray(prompts.templates).tolist(), prompts.lengths.tolist(), strict=True))


def _new_rows(prompts: Prompts, size: int):
    """Batches of indices, with flags of those that no earlier batch had."""
    for i, rows in enumerate(prompts.batches(size)):
        yield rows, np.arange(i * size, i * size + len(rows)) < len(prompts)


@partial(jax.jit, static_argnames=("sites", "pooled"))
def _sums(
    model,
    prompts: Prompts,
    member: Float[Array, "batch group"],
    *,
    sites: tuple[str, ...],
    pooled: bool,
) -> tuple[Sites, Float[Array, "group"], Float[Array, "group"]]:
    """Sums over each group, what to divide them by, and the number of prompts."""
    _, corrupt = ends(prompts, "noise")
    whole = cone(model, corrupt.tokens, prompts.mask, 0, corrupt.added)
    reads = Sites(**{site: Read() for site in sites})
    _, records = whole.run(model, reads, layers=model.n_layers)
    often = member.sum(axis=0)
    if not pooled:
        total = jax.tree.map(lambda x: jnp.einsum("lb...,bg->lg...", x, member), records)
        return total, often, often
    counted = (prompts.mask & ~sinks(prompts)).astype(member.dtype)

    weight = counted * member

    def over_positions(site: str, x: Array) -> Array:
        return (x * along(site, weight)).sum((1, 1 + AXES[site].index(column(site))), keepdims=True)

    total = Sites(**{site: over_positions(site, x) for site, x in records.items()})
    return total, weight.sum().reshape(1), often


def sinks(prompts: Prompts) -> Bool[Array, "batch pos"]:
    """The first real token of every prompt."""
    return prompts.mask & (jnp.cumsum(prompts.mask, axis=1) == 1)


def column(site: str) -> str:
    """The axis of a site's positions: the destinations of a pattern."""
    return next(axis for axis in ("pos", "dest", "src") if axis in AXES[site])


def along(site: str, flags: Array) -> Array:
    """[batch pos] laid along the positions of a site."""
    sizes = {"batch": len(flags), column(site): -1}
    return flags.reshape([sizes.get(axis, 1) for axis in AXES[site]])


def ablated(ablation: Ablation, here: Sites, first: int) -> Sites:
    """What every cell of a run behind column `first` is set to, shaped like its records `here`."""

    def one(site: str, value: Array) -> Array:
        own, axis = getattr(here, site), 1 + AXES[site].index(column(site))
        if column(site) != "src" and value.shape[axis] > 1:  # a suffix has all the sources
            value = jax.lax.slice_in_dim(value, first, None, axis=axis)
        return jnp.broadcast_to(value[:, ablation.group].astype(own.dtype), own.shape)

    return Sites(**{site: one(site, value) for site, value in ablation.values.items()})


def resampled(prompts: Prompts, seed: int = 0) -> Prompts:
    """The prompts with the corrupt row of another prompt of the same template and length.

    Raises `ValueError` for a template with a single prompt.

    >>> jaxcirc.patching.sweep(model, resampled(prompts))
    """
    rng, order = np.random.default_rng(seed), np.arange(len(prompts))
    keys = np.asarray(_keys(prompts))
    for key in np.unique(keys, axis=0):
        members = np.nonzero((keys == key).all(axis=1))[0]
        if len(members) < 2:
            raise ValueError(
                f"template {key[0]} has a single prompt of {key[1]} tokens: draw more prompts to"
                " resample from"
            )
        shuffled = rng.permutation(members)
        order[shuffled] = np.roll(shuffled, 1)
    return eqx.tree_at(lambda p: p.corrupt, prompts, prompts.corrupt[order])
