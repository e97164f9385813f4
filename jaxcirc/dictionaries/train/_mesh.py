"""Meshes: tokens shared out along "data", features along "dictionary".

An array with an axis that its annotation calls "feature" is cut along that axis; all others are
whole on every device. So a dictionary, its optimiser's moments and its counters are never whole
anywhere, a batch is cut along its tokens, and what the devices send each other is sums of gradients
and of reconstructions. Several hosts: `jax.distributed.initialize()` in every process, then the
same program. May import `_ops`, `_share` and `_source`.

Ahead of time: `with jax.set_mesh(mesh): steps.lower(alike(config), *arguments(config, d_in, mesh))`
compiles a step of training for devices that need not exist (see `_ahead`).
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from ..._ops import DATA, DICTIONARY, is_sharded
from ._share import Part
from ._source import Batch, Source


def make_mesh(data: int = 1, dictionary: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `data` times `dictionary` devices (default: the first of all there are).

    Raises `ValueError` for more devices than there are.

    >>> fit(config, activations, mesh=make_mesh(data=2, dictionary=4))
    """
    devices = jax.devices() if devices is None else list(devices)
    if data < 1 or dictionary < 1 or data * dictionary > len(devices):
        raise ValueError(
            f"a mesh of {data} x {dictionary} does not fit on {len(devices)} devices:"
            f" make_mesh(data={len(devices)}, dictionary=1)"
        )
    shape, names = (data, dictionary), (DATA, DICTIONARY)
    return jax.make_mesh(shape, names, (AxisType.Auto, AxisType.Auto), devices=devices)


def used(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """`with used(mesh):` compiled functions see the mesh; None: nothing changes."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def specs(tree: Any) -> Any:
    """How every array of a tree of modules is cut: along the axis called "feature", or not."""

    def spec(path, leaf) -> P:
        axis = _feature_axis(tree, path)
        if axis is None or leaf.ndim < -axis:
            return P()
        return P(*(DICTIONARY if i == leaf.ndim + axis else None for i in range(leaf.ndim)))

    return jax.tree_util.tree_map_with_path(spec, tree)


def layout(tree: Any, mesh: Mesh) -> Any:
    """The same as shardings on a mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(tree), is_leaf=_is_spec)


def laid_out(tree: Any) -> Any:
    """Inside a compiled function: the tree, cut for the mesh in use; without one, as it is."""
    return jax.lax.with_sharding_constraint(tree, specs(tree)) if is_sharded() else tree


def shared_out(batch: Mapping[str, Batch], mesh: Mesh | None) -> dict[str, Batch]:
    """A batch with its tokens cut along "data".

    With several processes, each gives its own part: the tokens of its devices, in the order of the
    mesh. Raises `ValueError` where the tokens cannot be cut into equal parts.
    """
    if mesh is None:
        return dict(batch)
    return {place: _both(x, y, mesh) for place, (x, y) in batch.items()}


def share_of(mesh: Mesh) -> Part:
    """(index, count): which part of every batch this process gives, as `part` of a source.

    Processes whose devices hold the same tokens, since only features lie apart on them, give the
    same part. Raises `ValueError` for a mesh that cuts a process's tokens across another's.

    >>> fit(config, Stream(model, contexts, places, part=share_of(mesh)), mesh=mesh)
    """
    rows = np.moveaxis(mesh.devices, mesh.axis_names.index(DATA), 0)
    held: dict[int, set[int]] = {}
    for row, devices in enumerate(rows):
        for device in np.ravel(devices):
            held.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(own)) for own in held.values()})
    if sum(map(len, parts)) != len(rows) or len(set(map(len, parts))) > 1:
        raise ValueError(
            "processes hold unequal parts of the tokens: make_mesh(jax.device_count())"
        )
    return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)


def check_part(source: Source, mesh: Mesh | None) -> None:
    """Raises `ValueError` for a source that hands out another part of a batch than the mesh takes
    from this process."""
    part = getattr(source, "part", None)
    if mesh is not None and part is not None and part != share_of(mesh):
        raise ValueError(
            f"the source hands out part {part}, the mesh takes {share_of(mesh)} from this process:"
            " part=share_of(mesh)"
        )


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with all of it on every device."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, P()))


def check_divides(d_dict: int, mesh: Mesh | None) -> None:
    """Raises `ValueError` unless every device gets as many features."""
    n = 1 if mesh is None else mesh.shape[DICTIONARY]
    if d_dict % n:
        raise ValueError(
            f"{d_dict} features cannot be shared out among {n} devices:"
            f" Config(d_dict={-(-d_dict // n) * n})"
        )


def _both(x: Array, y: Array, mesh: Mesh) -> Batch:
    moved = _cut(x, mesh)
    return moved, moved if y is x else _cut(y, mesh)


def _cut(x: Array, mesh: Mesh) -> Array:
    to = NamedSharding(mesh, P(DATA))
    if not getattr(x, "is_fully_addressable", True):
        return jax.device_put(x, to)
    n = mesh.local_mesh.shape[DATA]
    if len(x) % n:
        raise ValueError(
            f"{len(x)} tokens cannot be shared out among {n} devices:"
            f" Config(batch={max(1, len(x) // n) * n})"
        )
    if mesh.is_multi_process:
        return jax.make_array_from_process_local_data(to, np.asarray(x))
    return jax.device_put(x, to)


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, P)


def _feature_axis(tree: Any, path: Sequence[Any]) -> int | None:
    """Where the leaf at `path` has its axis of features, from the end, by its module's annotation.

    What an optimiser keeps for a module has the module's own classes, so its moments follow.
    """
    axis = None
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            if isinstance(tree, eqx.Module):
                axis = _annotated(type(tree), key.name)
            tree = getattr(tree, key.name)
        else:
            tree = tree[key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key]
    return axis


def _annotated(owner: type, name: str) -> int | None:
    (kind,) = [field.type for field in dataclasses.fields(owner) if field.name == name]
    for part in get_args(kind) or (kind,):
        axes = getattr(part, "dim_str", "").split()
        if "feature" in axes:
            return axes.index("feature") - len(axes)
    return None
