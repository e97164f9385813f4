"""How the tensors of a file become the leaves of a model: one table per family and file format.

A row is (leaf, tensor, view). The view reorders the axes of the *destination* into the order of the
file, so that weights are written once, into their final place. May import `lm`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from .lm import LM

Shapes = dict[str, jax.ShapeDtypeStruct]
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """One leaf of the model and the tensor it comes from.

    - `leaf`: dotted path in `LM`. `tensor`: name in the file, `{layer}` where one exists per block.
    - `view`: the leaf (of one layer) with its axes in the order of the file.
    """

    leaf: str
    tensor: str
    view: Callable[[np.ndarray], np.ndarray]


@runtime_checkable
class Source(Protocol):
    """A file of named tensors, each written as floats where it is wanted."""

    @property
    def path(self) -> Path: ...
    def names(self) -> tuple[str, ...]: ...
    def read(self, name: str, out: np.ndarray) -> None: ...


def same(leaf: np.ndarray) -> np.ndarray:
    """The file keeps the axes of the leaf."""
    return leaf


def transposed(leaf: np.ndarray) -> np.ndarray:
    """[in out], as the file's rows [out in]."""
    return leaf.T


def heads_in(leaf: np.ndarray) -> np.ndarray:
    """[d_model head d_head], as the file's rows [(head d_head) d_model]."""
    return leaf.transpose(1, 2, 0)


def heads_out(leaf: np.ndarray) -> np.ndarray:
    """[head d_head d_model], as the file's rows [d_model (head d_head)]."""
    return leaf.reshape(-1, leaf.shape[-1]).T


def heads_in_interleaved(leaf: np.ndarray) -> np.ndarray:
    """[d_model head (half pair)], as the file's rows [(head pair half) d_model].

    llama.cpp stores queries and keys of its llama architecture with the two coordinates of a rotary
    pair as neighbours; in the leaf they lie half a head apart.
    """
    d_model, head, d_head = leaf.shape
    return leaf.reshape(d_model, head, 2, d_head // 2).transpose(1, 3, 2, 0)


def leaf_shapes(skeleton: LM, table: tuple[Row, ...]) -> Shapes:
    """The leaves of a model that the table fills, by dotted path.

    - `skeleton`: the model with `jax.ShapeDtypeStruct` leaves, as `jax.eval_shape` gives it.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(skeleton)
    filled = {row.leaf for row in table}
    return {_dotted(path): leaf for path, leaf in leaves if _dotted(path) in filled}


def fill(source: Source, table: tuple[Row, ...], leaves: Arrays) -> None:
    """Write every tensor of the file into the leaves.

    Raises `ValueError` for a tensor that is absent, of another shape, or left over: a tensor that
    nothing reads means that the model is not what the table says.
    """
    rows = {row.leaf: row for row in table}
    used = set()
    for name, leaf in leaves.items():
        for tensor, out in _reads(rows[name], leaf):
            source.read(tensor, out)
            used.add(tensor)
    left = sorted(set(source.names()) - used)
    if left:
        raise ValueError(
            f"{source.path.name} holds tensors that this model family does not use, such as"
            f" {left[0]!r} ({len(left)} in all): load a model of a known family"
        )


def plant(skeleton: LM, arrays: dict[str, jax.Array]) -> LM:
    """The skeleton with its shapes replaced by arrays, by dotted path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_dotted(path)], skeleton)


def _reads(row: Row, leaf: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(tensor, destination) pairs of a leaf, one for each layer where there are layers."""
    if "{layer}" not in row.tensor:
        return [(row.tensor, row.view(leaf))]
    return [(row.tensor.format(layer=i), row.view(layer)) for i, layer in enumerate(leaf)]


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(key.name for key in path)
