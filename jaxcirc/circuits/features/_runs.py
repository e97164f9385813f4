r"""`Runs`: a batch run once, and all that its nodes are scored from.

A node's step is what patching it adds to its activation: $(f_i' - f_i)\, v_i$ for a feature with
direction v, $\epsilon' - \epsilon$ for an error. Decoders are affine, so the steps of a place add
up to its whole change. May import `taps`, `tasks`, `_basis`, `_objective`, `_patches`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...taps import AbstractDictionary, At, Code, Node, Set, Sites, Start
from ...tasks import Prompts
from ._basis import STREAM, Basis
from ._layout import Layout
from ._objective import Objective
from ._patches import (
    Means,
    Patch,
    corrupt_run,
    encode,
    laid,
    live,
    patched_with,
    read,
    reads,
)


class Spliced(eqx.Module):
    """What a batch holds at one place.

    - `x`: the clean activation. `stream`, `layer`: from what and at which block a run resumes that
      sees a change here (the activation itself, where that is the stream between blocks).
    - `live`: tokens that have nodes. `clean`, `patch`: features and error, and what patching sets
      them to.
    """

    dictionary: AbstractDictionary
    x: Float[Array, "batch pos ..."]
    stream: Float[Array, "batch pos d_model"]
    layer: Int[Array, ""]
    live: Bool[Array, "batch pos"]
    clean: Code
    patch: Code

    @property
    def step(self) -> Code:
        """By how much patching changes features and error; 0 where there are no nodes."""

        def change(patch, clean):
            return jnp.where(laid(self.live, clean), patch - clean, 0)

        return jax.tree.map(change, self.patch, self.clean)

    @property
    def target(self) -> Float[Array, "batch pos ..."]:
        """The activation with every node patched."""
        value = self.dictionary.decode(self.patch.features) + self.patch.error
        return jnp.where(laid(self.live, self.x), value, self.x)

    @property
    def directions(self) -> Float[Array, "feature ..."]:
        """What a unit of each feature adds."""
        return self.dictionary.directions.astype(self.x.dtype)


class Runs(eqx.Module):
    """A batch of prompts: every place, where all of them begin, and the objective of the clean
    run."""

    prompts: Prompts
    at: tuple[Spliced, ...]
    below: Start
    base: Float[Array, "batch"]


@partial(jax.jit, static_argnames=("patch",))
def begin(
    model,
    objective: Objective,
    basis: Basis,
    prompts: Prompts,
    means: Means | None,
    *,
    patch: Patch,
) -> Runs:
    """Run clean and corrupt prompts once, and keep what scoring and judging nodes needs."""
    prompts = objective.ready(model, prompts)
    lowest = min(place.layer for place in basis.places)
    pre = {Node("resid_pre", lowest), *map(_before, basis.places)}
    places = (*basis.places, *sorted(pre - set(basis.places)))
    base, records = objective(model, prompts.clean, prompts, reads(places))
    found = dict(zip(places, read(records, places), strict=True))
    xs = tuple(found[place] for place in basis.places)
    seen = live(model, basis, prompts, xs)
    clean = [encode(d, x) for d, x in zip(basis.dictionaries, xs, strict=True)]
    if patch in ("counterfactual", "resample"):
        others = corrupt_run(model, basis, prompts)
        also = live(model, basis, prompts, others)
        seen = tuple(a & b for a, b in zip(seen, also, strict=True))
        codes = [encode(d, x) for d, x in zip(basis.dictionaries, others, strict=True)]
    elif means is not None:
        group = means.group
        codes = [jax.tree.map(lambda x: x[group], code) for code in means.codes]
    else:
        codes = jax.tree.map(jnp.zeros_like, clean)
    at = tuple(
        Spliced(
            basis.dictionaries[i],
            xs[i],
            xs[i] if place.site in STREAM else found[_before(place)],
            jnp.asarray(entry(place)),
            seen[i],
            clean[i],
            jax.tree.map(lambda new, old: new.astype(old.dtype), codes[i], clean[i]),
        )
        for i, place in enumerate(basis.places)
    )
    below = Start(found[Node("resid_pre", lowest)], jnp.asarray(lowest))
    return Runs(prompts, at, below, base)


def _before(place: Node) -> Node:
    """The stream before the place's block."""
    return place if place.site in STREAM else Node("resid_pre", place.layer)


def entry(place: Node) -> int:
    """The first block that runs after the clean stream of a restart at a place."""
    return place.layer + (place.site == "resid_post")


def put(
    site: str, layer: Int[Array, ""], stream: Array, value: Float[Array, "batch pos ..."]
) -> tuple[Sites, Start]:
    """How a run resumes with another activation at a place."""
    if site in STREAM:
        return Sites(), Start(value, layer)
    return Sites(**{site: At(layer[None], Set(value[None]))}), Start(stream, layer)


def held(places: Sequence[Node], values: Sequence[Array]) -> Sites:
    """The table of edits that sets some places to some values."""
    table = Sites()
    for place, value in zip(places, values, strict=True):
        edit = At(jnp.asarray([place.layer]), Set(value[None]))
        table = table | Sites(**{place.site: edit})
    return table


def vector(
    directions: Float[Array, "feature ..."],
    step: Code,
    pos: Int[Array, ""],
    index: Int[Array, ""],
) -> Float[Array, "pos ..."]:
    """What one node's step adds to the activation of one prompt, whose `step` is [pos ..].

    - `pos`: where, -1 for everywhere. `index`: the feature, or their number for the error.
    """
    one = jnp.minimum(index, len(directions) - 1)
    feature = jnp.tensordot(step.features[:, one], directions[one], 0)
    moved = jnp.where(index < len(directions), feature, step.error)
    here = (pos < 0) | (jnp.arange(moved.shape[0]) == pos)
    return jnp.where(laid(here, moved), moved, 0)


def vectors(
    directions: Float[Array, "feature ..."],
    step: Code,
    pos: Int[Array, "node"],
    index: Int[Array, "node"],
) -> Float[Array, "node batch pos ..."]:
    """What the steps of some nodes add to the activations of a batch."""
    over_batch = jax.vmap(vector, in_axes=(None, 0, None, None))
    return jax.vmap(over_batch, in_axes=(None, None, 0, 0))(directions, step, pos, index)


def flat(x: Float[Array, "..."], lead: int) -> Float[Array, "..."]:
    """All axes behind the first `lead` as one."""
    return x.reshape(*x.shape[:lead], -1)


class Part(NamedTuple):
    """A batch: its prompts' numbers, how many of them are new, and its runs."""

    rows: Int[np.ndarray, "row"]
    new: int
    runs: Runs


class Plan(NamedTuple):
    """Prompts as they will be run, and the columns of their nodes."""

    prompts: Prompts
    means: Means | None
    layout: Layout


def plan(
    model,
    prompts: Prompts,
    basis: Basis,
    patch: Patch,
    reference: Prompts | None,
    by_position: bool | None,
    batch: int,
) -> Plan:
    """Prompts without needless padding, what their nodes are set to, and the nodes' columns.

    Raises `ValueError` for nodes by position of prompts that differ in length.
    """
    lengths = prompts.lengths
    equal = bool((lengths == lengths[0]).all())
    if by_position and not equal:
        raise ValueError(
            f"prompts of {lengths.min()} to {lengths.max()} tokens have no positions in common:"
            " nodes(..., by_position=False), or take those of one length"
        )
    prompts = prompts.padded_to(int(lengths.max()))
    resolved = equal if by_position is None else by_position
    prompts, means = patched_with(model, prompts, basis, patch, reference, batch)
    return Plan(prompts, means, basis.layout(int(lengths.max()) if resolved else None))


def parts(
    model, objective: Objective, basis: Basis, at: Plan, patch: Patch, batch: int
) -> Iterator[Part]:
    """The prompts in batches of one shape, run; the last is filled up with the first ones."""
    for i, rows in enumerate(at.prompts.batches(batch)):
        some = at.prompts.take(rows).arrays()
        own = None if at.means is None else at.means.take(rows)
        new = min(len(rows), len(at.prompts) - i * len(rows))
        yield Part(rows, new, begin(model, objective, basis, some, own, patch=patch))
