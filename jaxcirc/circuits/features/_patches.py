"""What nodes are set to: their value in the corrupt run, 0, means by position, another prompt's.

Marks et al. 2024 (arXiv 2403.19647), section 3: counterfactual where prompts come in pairs, else 0;
means over the corrupt prompts, position by position, when circuits are judged. May import `taps`,
`tasks`, `patching`.
"""

import dataclasses
from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...patching import resampled
from ...patching._ablation import _groups, _new_rows, sinks
from ...taps import Add, At, Code, Node, Read, Sites, run
from ...tasks import Prompts, ends
from ._basis import Basis

Patch = Literal["counterfactual", "zero", "mean", "resample"]

Xs = tuple[Float[Array, "batch pos ..."], ...]
"""Activations by place."""


class Means(eqx.Module):
    """Mean features and errors of every group of prompts, [group pos ..] by place; and the group of
    each prompt."""

    codes: tuple[Code, ...]
    group: Int[Array, "example"]

    def take(self, rows: Int[np.ndarray, "row"]) -> "Means":
        """The same means for some of the prompts."""
        return Means(self.codes, self.group[rows])


def patched_with(
    model, prompts: Prompts, basis: Basis, patch: Patch, reference: Prompts | None, batch: int
) -> tuple[Prompts, Means | None]:
    """The prompts whose corrupt runs patches come from, and the means if they are meant.

    Raises `ValueError` for an unknown word, or prompts of a length that no reference has.
    """
    if patch not in get_args(Patch):
        known = ", ".join(map(repr, get_args(Patch)))
        raise ValueError(f"patch={patch!r}: use one of {known}")
    if patch == "resample":
        other = resampled(_by_length(prompts)).corrupt
        return dataclasses.replace(prompts, corrupt=other), None
    if patch == "mean":
        return prompts, means(model, prompts, basis, reference, batch)
    return prompts, None


def means(
    model, prompts: Prompts, basis: Basis, reference: Prompts | None = None, batch: int = 16
) -> Means:
    """Mean features and errors over the corrupt prompts of equal length, position by position.

    - `reference`: the prompts to average over (default: `prompts` themselves). Tokens that pass
      unspliced do not count.

    Raises `ValueError` for prompts of a length that no reference prompt has.
    """
    reference = prompts if reference is None else reference
    reference = reference.take(np.isin(reference.lengths, prompts.lengths))  # others may be longer
    order, group = _groups(_by_length(reference), _by_length(prompts))
    reference = reference.padded_to(prompts.clean.shape[1])
    total, count = None, None
    for rows, new in _new_rows(reference, batch):
        member = jax.nn.one_hot(np.where(new, order[rows], -1), int(order.max()) + 1)
        found = _sums(model, basis, reference.take(rows).arrays(), member)
        parts = found if total is None else jax.tree.map(jnp.add, (total, count), found)
        total, count = parts
    assert total is not None and count is not None
    codes = tuple(
        jax.tree.map(lambda x, n=n: x / laid(jnp.maximum(n, 1), x), code)
        for code, n in zip(total, count, strict=True)
    )
    return Means(codes, jnp.asarray(group))


def _by_length(prompts: Prompts) -> Prompts:
    """The prompts with one cluster for all, so that only their lengths part them."""
    return dataclasses.replace(prompts, templates=jnp.zeros_like(prompts.templates))


@jax.jit
def _sums(model, basis: Basis, prompts: Prompts, member: Float[Array, "batch group"]):
    """Sums of the codes over each group, and over how many tokens, by place."""
    xs = corrupt_run(model, basis, prompts)
    codes, counts = [], []
    for dictionary, x, seen in zip(
        basis.dictionaries, xs, live(model, basis, prompts, xs), strict=True
    ):
        weight = (seen[..., None] * member[:, None]).astype(x.dtype)
        codes.append(jax.tree.map(partial(_grouped, weight), encode(dictionary, x)))
        counts.append(weight.sum(axis=0).T)
    return tuple(codes), tuple(counts)


def _grouped(weight: Float[Array, "batch pos group"], x: Array) -> Float[Array, "group pos ..."]:
    return jnp.einsum("bp...,bpg->gp...", x, weight)


def laid(flags: Array, x: Array) -> Array:
    """[a b] as it broadcasts against [a b ...]."""
    return flags.reshape(*flags.shape, *[1] * (x.ndim - flags.ndim))


def encode(dictionary, x: Float[Array, "*batch d"]) -> Code:
    """Features and error of an activation."""
    features = dictionary.encode(x)
    return Code(features, x - dictionary.decode(features))


def corrupt_run(model, basis: Basis, prompts: Prompts) -> Xs:
    """The activations of the corrupt run at every place."""
    _, end = ends(prompts, "noise")
    noise = Sites() if end.added is None else Sites(embed=Add(end.added))
    edits, layers = noise | reads(basis.places), 1 + max(p.layer for p in basis.places)
    _, records = run(model, end.tokens, edits, mask=prompts.mask, layers=layers)
    return read(records, basis.places)


def reads(places: tuple[Node, ...]) -> Sites:
    """The table of edits that reads some places."""
    layers = _layers(places)
    return Sites(**{site: At(jnp.asarray(found), Read()) for site, found in layers.items()})


def read(records: Sites, places: tuple[Node, ...]) -> Xs:
    """What was read at each place."""
    layers = _layers(places)
    return tuple(getattr(records, p.site)[layers[p.site].index(p.layer)] for p in places)


def _layers(places: tuple[Node, ...]) -> dict[str, list[int]]:
    """Layers by site, each once."""
    sites = dict.fromkeys(p.site for p in places)
    return {site: sorted({p.layer for p in places if p.site == site}) for site in sites}


def live(model, basis: Basis, prompts: Prompts, xs: Xs) -> tuple[Bool[Array, "batch pos"], ...]:
    """Tokens that have nodes, by place: real, not the first of a causal model, and no sink."""
    usual = prompts.mask & ~(sinks(prompts) & model.causal)
    norms = [jnp.linalg.norm(x.reshape(*x.shape[:2], -1), axis=-1) for x in xs]
    bounds = [basis.sink_norms[i].astype(norm.dtype) for i, norm in enumerate(norms)]
    return tuple(usual & (norm <= bound) for norm, bound in zip(norms, bounds, strict=True))
