"""GGUF files: metadata as Python values, tensors as floats written where the caller wants them.

A thin layer over the `gguf` package (the llama.cpp project's own reader and dequantiser). It adds
two things: errors that name the file and the tensor, and reading by rows, so that a tensor can be
streamed. May import `_stream`.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ._stream import stream

_DAMAGE = (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError)
_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in its file, how it is quantised, and its shape, outermost axis first."""

    offset: int
    n_bytes: int
    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class GGUF:
    """The contents of a GGUF file: its metadata, and where its tensors are.

    `metadata`: key to value (str, int, float, bool or list). Tensors stay in the file until `read`.

    >>> file = open_gguf("model.gguf")
    >>> file.get("general.architecture"), file.shape("token_embd.weight")
    ('llama', (49152, 576))
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        """A metadata value; `ValueError` when it is absent and no default is given."""
        value = self.metadata.get(key, default)
        if value is _REQUIRED:
            raise ValueError(f"{self.path.name} has no metadata key {key!r}: convert it again")
        return value

    def names(self) -> tuple[str, ...]:
        """The tensors of the file, in its order."""
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, outermost axis first; `ValueError` when it is absent."""
        if name not in self.tensors:
            raise ValueError(f"{self.path.name} has no tensor {name!r}: convert the model again")
        return self.tensors[name].shape

    def read(self, name: str, out: np.ndarray) -> None:
        """Write a tensor as floats into `out`.

        - `out`: float32, any strides; axes in the order of the file, the rows split at will
          ([rows columns] or [head half pair columns], ...).

        Raises `ValueError` naming the tensor when it is absent, of another shape, of a type that
        cannot be dequantised, or holds a NaN or infinity.

        >>> weight = np.empty((576, 192), np.float32)
        >>> file.read("blk.0.attn_k.weight", weight.T)
        """
        stream(self, name, out)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a tensor. They are read, not mapped: mapped pages would count
        as memory for as long as the file is open."""
        tensor = self.tensors[name]
        low, high = (row * tensor.n_bytes // tensor.shape[0] for row in (start, stop))
        raw = np.fromfile(self.path, np.uint8, high - low, offset=tensor.offset + low)
        raw = raw.reshape(stop - start, -1) if len(tensor.shape) > 1 else raw
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                return gguf.quants.dequantize(raw, tensor.kind)
        except NotImplementedError:
            raise ValueError(
                f"tensor {name!r} of {self.path.name} has type {tensor.kind.name}, which cannot be"
                " dequantised: convert the model to F16 or Q8_0"
            ) from None


def open_gguf(path: str | os.PathLike) -> GGUF:
    """Read the metadata of a GGUF file, and where its tensors are.

    Raises `FileNotFoundError` when there is none, `ValueError` when it is not a GGUF file, or is
    truncated or of another byte order.

    >>> open_gguf("model.gguf").get("llama.block_count")
    30
    """
    path = Path(path)
    _check_magic(path)
    try:
        reader = _Reader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: _tensor(tensor) for tensor in reader.tensors}
    except _DAMAGE as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): download it again") from None
    if reader.byte_order != "I":
        raise ValueError(f"{path} has the other byte order: convert it on a machine like this")
    return GGUF(path, metadata, tensors)


class _Reader(gguf.GGUFReader):
    """The reader with a plain array over the mapping: it slices 250,000 times for a vocabulary, and
    slices of `np.memmap` take three times as long and twice the memory."""

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, value: np.memmap) -> None:
        self._data = np.asarray(value)


def _check_magic(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a GGUF file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(
            f"{path} is not a GGUF file (it begins with {magic!r}): give a GGUF file;"
            " llama.cpp's convert_hf_to_gguf.py makes one from a Hugging Face folder"
        )


def _tensor(tensor: gguf.ReaderTensor) -> Tensor:
    shape = tuple(reversed(tensor.shape.tolist()))  # the file gives the innermost axis first
    return Tensor(tensor.data_offset, tensor.n_bytes, tensor.tensor_type, shape)
