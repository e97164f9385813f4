"""Tensors from a file into the places where they are wanted, a chunk of rows at a time.

A large tensor never exists twice, and a transposition or a fused tensor taken apart costs no copy:
the destination is a view with its axes in the order of the file. Imports nothing of jaxcirc.
"""

import dataclasses
import math
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

CHUNK = 1 << 20
"""Weights read at a time (4 MiB of float32)."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One of `of` equal parts of a tensor, laid side by side where the file has its axis `axis`."""

    axis: int
    index: int
    of: int


@runtime_checkable
class Rows(Protocol):
    """A file of named tensors, read by rows of their first axis."""

    @property
    def path(self) -> Path: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def rows(self, name: str, start: int, stop: int) -> np.ndarray: ...


def stream(
    file: Rows,
    name: str,
    out: np.ndarray,
    shape: tuple[int, ...] | None = None,
    part: Part | None = None,
) -> None:
    """Write a tensor, or one part of it, into `out`.

    - `out`: floats, any strides, axes in the order of the file without the axis of `part`.
    - `shape`: what the tensor must be in the file (default: `out` with its leading axes joined).

    Raises `ValueError` naming the tensor when it is of another shape, or holds a NaN or infinity.
    """
    found, expected = file.shape(name), shape or _joined(out)
    if found != expected:
        raise ValueError(
            f"tensor {name!r} of {file.path.name} is {list(found)}, its metadata asks for"
            f" {list(expected)}: convert the model again"
        )
    part = part or Part(1, 0, 1)
    inside = list(out.shape[1:])
    if part.axis:
        inside.insert(part.axis - 1, part.of)
    entries = len(out) * (1 if part.axis else part.of)
    rows = found[0] // entries  # of the file behind one entry of out
    first = 0 if part.axis else part.index * len(out)
    step = len(out) if out.ndim == 1 else max(1, CHUNK // math.prod(inside))
    for start in range(0, len(out), step):
        stop = min(start + step, len(out))
        values = file.rows(name, (first + start) * rows, (first + stop) * rows)
        _check_finite(file, name, values)
        values = values.reshape(stop - start, *inside)
        out[start:stop] = values.take(part.index, part.axis) if part.axis else values


def _joined(out: np.ndarray) -> tuple[int, ...]:
    return out.shape if out.ndim < 2 else (math.prod(out.shape[:-1]), out.shape[-1])


def _check_finite(file: Rows, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"tensor {name!r} of {file.path.name} holds NaN or infinity: download it again"
        )
