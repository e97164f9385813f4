"""`Run`: a training run at one moment, and how it begins.

May import `_config`, `_mesh`, `_source`, `_step`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from ._config import Config, build, keys
from ._mesh import layout
from ._source import Batch
from ._step import Hyper, Report, State, alike, begin, steps


class Units(eqx.Module):
    """What activations of one place are divided by, a site of several each by its own, and the mean
    of the scaled targets."""

    inputs: Float[Array, "*site"]
    outputs: Float[Array, "*site"]
    mean: Float[Array, "*d_out"]


class Run(eqx.Module):
    """A training run at one moment: for every place its population's state, its units, and what the
    last step said (nothing before the first)."""

    states: dict[str, State]
    units: dict[str, Units]
    reports: dict[str, Report]

    @property
    def done(self) -> int:
        """Steps taken."""
        return int(next(iter(self.states.values())).step.reshape(-1)[0])


def begun(
    configs: Sequence[Config], first: Sequence[Mapping[str, Batch]], mesh: Mesh | None
) -> Run:
    """A run before its first step: units and means over the first batches, random directions.

    On a mesh the dictionaries are made where they will lie, never whole on one device.
    """
    units = {place: _units(place, [batch[place] for batch in first], mesh) for place in first[0]}
    states = {}
    for place, unit in units.items():
        make = partial(population, tuple(configs), **widths(first[0][place]))
        if mesh is None:
            states[place] = make(start=unit.mean)
        else:
            there = layout(jax.eval_shape(make, start=unit.mean), mesh)
            states[place] = jax.jit(make, out_shardings=there)(start=unit.mean)
    return Run(states, units, {})


def outline(
    configs: Sequence[Config], hyper: Hyper, first: Mapping[str, Batch], mesh: Mesh | None
) -> Run:
    """The shapes and shardings of a run after some steps, for reading one back."""
    states, units, reports = {}, {}, {}
    share = jax.ShapeDtypeStruct((), jnp.float32)
    for place, batch in first.items():
        states[place] = jax.eval_shape(partial(population, tuple(configs), **widths(batch)))
        units[place] = jax.eval_shape(_measured, *([side] for side in batch))
        x, y = jax.eval_shape(scaled, batch, units[place])
        step = partial(steps, alike(configs[0]))
        _, reports[place] = jax.eval_shape(step, states[place], hyper, x, y, share)
    return _placed(Run(states, units, reports), mesh)


def check_finite(run: Run, newest: Callable[[], Path | None], whole: bool = True) -> None:
    """Raises `ValueError` if training has diverged.

    - `newest`: finds the last good checkpoint. `whole`: look at all that training changes, not only
      at the last loss.
    """
    for place, state in run.states.items():
        looked_at = state if whole else run.reports[place].loss
        leaves = jax.tree.leaves(eqx.filter(looked_at, eqx.is_inexact_array))
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
            saved = newest()
            kept = "" if saved is None else f"; the last good checkpoint is {saved}"
            raise ValueError(
                f"{place}: training has diverged (NaN) by step {run.done}: lower the learning rate,"
                f" as in Config(learning_rate=1e-4), or check the activations{kept}"
            )


def scaled(batch: Batch, unit: Units) -> Batch:
    """A batch in units of its place."""
    return batch[0] / unit.inputs[..., None], batch[1] / unit.outputs[..., None]


def population(
    configs: tuple[Config, ...],
    d_in: int,
    d_out: int | None = None,
    start: Array | None = None,
    sites: int | None = None,
) -> State:
    """The states of a population before its first step, stacked along a leading axis."""
    members = [
        begin(config, build(config, keys(config)[0], d_in, d_out, start, sites))
        for config in configs
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


class Widths(TypedDict):
    """Of a place: d_in; d_out, None for an autoencoder, whose targets are its inputs; how many
    sites, None where there is one."""

    d_in: int
    d_out: int | None
    sites: int | None


def widths(batch: Batch) -> Widths:
    """The widths of a batch. Raises `ValueError` for several sites that rebuild others."""
    x, y = batch
    if x is not y and max(x.ndim, y.ndim) > 2:
        raise ValueError(
            "a crosscoder rebuilds what it reads: write resid_post.10+resid_post.14, without >"
        )
    several = x.shape[1] if x.ndim == 3 else None
    return Widths(d_in=x.shape[-1], d_out=None if x is y else y.shape[-1], sites=several)


def _placed(tree: Any, mesh: Mesh | None) -> Any:
    if mesh is not None:
        there = layout(tree, mesh)
    else:
        here = SingleDeviceSharding(jax.local_devices()[0])
        there = jax.tree.map(lambda leaf: here, tree)
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), tree, there
    )


def _units(place: str, batches: Sequence[Batch], mesh: Mesh | None) -> Units:
    """Over all first batches: the root of the mean square, and the mean of the targets."""
    measure = _measured
    if mesh is not None:
        measure = jax.jit(_measured, out_shardings=NamedSharding(mesh, P()))
    unit = measure(*([batch[side] for batch in batches] for side in (0, 1)))
    sizes = np.stack([unit.inputs, unit.outputs])
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(
            f"{place}: activations are not finite, or all 0: check the model's weights"
            " and the mask of its sinks"
        )
    return unit


def _measured(inputs: list[Array], outputs: list[Array]) -> Units:
    x, y = (jnp.concatenate(side).astype(jnp.float32) for side in (inputs, outputs))
    inputs_, outputs_ = (jnp.sqrt(jnp.mean(jnp.square(side), axis=(0, -1))) for side in (x, y))
    return Units(inputs_, outputs_, y.mean(axis=0) / outputs_[..., None])
