"""How the tensors of a file become the leaves of a model: one table per family and file format.

A row is (leaf, tensor, axes). The axes are those of the tensor in the file, in the words of the
axis glossary: "(head d_head) d_model" for rows of heads, "d_model (1/3 head d_head)" for the second
of three things fused side by side. Every weight is written once, into its final place.
May import `lm` and `_stream`.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from ._stream import Part, Rows, stream
from .lm import LM

Shapes = dict[str, jax.ShapeDtypeStruct]
Arrays = dict[str, np.ndarray]

AXES = {
    "embed": "vocab d_model",
    "pos_embed": "ctx d_model",
    "unembed": "d_model vocab",
    "unembed_bias": "vocab",
    "w_q": "d_model head d_head",
    "w_k": "d_model kv_head d_head",
    "w_v": "d_model kv_head d_head",
    "w_o": "head d_head d_model",
    "b_q": "head d_head",
    "b_k": "kv_head d_head",
    "b_v": "kv_head d_head",
    "b_o": "d_model",
    "w_in": "d_model d_mlp",
    "w_gate": "d_model d_mlp",
    "w_out": "d_mlp d_model",
    "b_in": "d_mlp",
    "b_gate": "d_mlp",
    "b_out": "d_model",
    "weight": "d",
    "bias": "d",
}
"""The axes of every leaf (of one layer), by the last word of its path."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One leaf of the model and the tensor it comes from.

    - `leaf`: dotted path in `LM`. `tensor`: name in the file, `{layer}` where one exists per block.
    - `axes`: of the tensor, those that the file joins in brackets. `i/n` stands where n leaves are
      laid side by side, of which this is number i; "half pair" and "pair half" split `d_head` (the
      leaf has "half pair": the two coordinates of a rotary pair half a head apart).
    """

    leaf: str
    tensor: str
    axes: str


@runtime_checkable
class Source(Rows, Protocol):
    """A file of named tensors that knows their names."""

    def names(self) -> tuple[str, ...]: ...


def leaf_shapes(skeleton: LM, table: tuple[Row, ...]) -> Shapes:
    """The leaves of a model that the table fills, by dotted path.

    - `skeleton`: the model with `jax.ShapeDtypeStruct` leaves, as `jax.eval_shape` gives it.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(skeleton)
    filled = {row.leaf for row in table}
    return {_dotted(path): leaf for path, leaf in leaves if _dotted(path) in filled}


def fill(
    source: Source, table: tuple[Row, ...], leaves: Arrays, unused: Iterable[str] = ()
) -> None:
    """Write every tensor of the file into the leaves.

    - `unused`: patterns of tensors that the model does without.

    Raises `ValueError` for a tensor that is absent, of another shape, or left over: a tensor that
    nothing reads means that the model is not what the table says.
    """
    rows = {row.leaf: row for row in table}
    used = set()
    for name, leaf in leaves.items():
        for tensor, one in _tensors(rows[name], leaf):
            read(source, tensor, one, name.split(".")[-1], rows[name].axes)
            used.add(tensor)
    left = sorted(set(source.names()) - used)
    left = [name for name in left if not any(fnmatch(name, pattern) for pattern in unused)]
    if left:
        raise ValueError(
            f"{source.path.name} holds tensors that this model family does not use, such as"
            f" {left[0]!r} ({len(left)} in all): load a model of a known family, or pass"
            f" ignore=({left[0]!r},) if it cannot matter"
        )


def read(source: Source, tensor: str, leaf: np.ndarray, kind: str, axes: str) -> None:
    """Write one tensor into one leaf of the kind (a key of `AXES`), from the axes of the file."""
    groups = [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", axes)]
    words = [word for group in groups for word in group]
    own = AXES[kind].split()
    shape = list(leaf.shape)
    if "pair" in words:
        place = own.index("d_head")
        own[place : place + 1] = ["half", "pair"]
        shape[place : place + 1] = [2, shape[place] // 2]
    sizes = dict(zip(own, shape, strict=True)) | {w: int(w[2:]) for w in words if "/" in w}
    view = leaf.reshape(shape).transpose([own.index(word) for word in words if "/" not in word])
    part = next((Part(i, int(w[0]), sizes[w]) for i, w in enumerate(words) if "/" in w), None)
    stream(source, tensor, view, tuple(math.prod(sizes[w] for w in g) for g in groups), part)


def plant(skeleton: LM, arrays: dict[str, jax.Array]) -> LM:
    """The skeleton with its shapes replaced by arrays, by dotted path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_dotted(path)], skeleton)


def _tensors(row: Row, leaf: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(tensor, destination) pairs of a leaf, one for each layer where there are layers."""
    if "{layer}" not in row.tensor:
        return [(row.tensor, leaf)]
    return [(row.tensor.format(layer=i), layer) for i, layer in enumerate(leaf)]


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(key.name for key in path)
