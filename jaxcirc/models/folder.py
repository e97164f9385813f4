"""Folders in Hugging Face's layout: config.json, and tensors in safetensors files, one or several,
or in a Flax checkpoint (flax_model.msgpack).

Headers of safetensors are read by hand, so that tensors stream by rows into their final place,
converted on the way; `safetensors.safe_open` would hold each of them whole. A Flax checkpoint has
no header, and is held. May import `_cache` and `_stream`.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

from . import _cache

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
_PICKLES = ("*.bin", "*.pt", "*.pth")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, its type as safetensors names it, and its shape."""

    file: Path
    offset: int
    kind: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, in the type of the file."""
        dtype, row = _DTYPES[self.kind], math.prod(self.shape[1:])
        offset = self.offset + start * row * dtype.itemsize
        return np.fromfile(self.file, dtype, (stop - start) * row, offset=offset)


@dataclasses.dataclass(frozen=True)
class Held:
    """A tensor of a file that can only be read whole."""

    file: Path
    array: np.ndarray = dataclasses.field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.array.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`."""
        return self.array[start:stop]


@dataclasses.dataclass(frozen=True)
class Folder:
    """A model's folder: its config, and where its tensors are. Tensors stay there until read.

    >>> folder = open_folder("gpt2")
    >>> folder.config["model_type"], folder.shape("wte.weight")
    ('gpt2', (50257, 768))
    """

    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor | Held]

    def names(self) -> tuple[str, ...]:
        """The tensors of all its files."""
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; `ValueError` when it is absent."""
        if name not in self.tensors:
            raise ValueError(
                f"{self.path.name} has no tensor {name!r}: download the model again, with all its"
                " files"
            )
        return self.tensors[name].shape

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a tensor, in the type of the file."""
        tensor = self.tensors[name]
        if isinstance(tensor, Tensor) and tensor.kind not in _DTYPES:
            raise ValueError(
                f"tensor {name!r} of {self.path.name} has type {tensor.kind}, which is not"
                f" supported: save the model as one of {', '.join(_DTYPES)}"
            )
        return tensor.rows(start, stop)

    def without(self, prefixes: tuple[str, ...]) -> "Folder":
        """The same folder with prefixes taken off the names, one after the other."""
        return dataclasses.replace(
            self, tensors={_stripped(name, prefixes): t for name, t in self.tensors.items()}
        )

    def sha256(self) -> str:
        """Of the weights: of the one file, or of the digests of all of them in order."""
        files = sorted({tensor.file for tensor in self.tensors.values()})
        digests = [_cache.sha256_of(file) for file in files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def json(self, name: str) -> dict[str, Any]:
        """Another JSON file of the folder; empty when there is none."""
        return read_json(self.path / name) if (self.path / name).is_file() else {}


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Read the config of a folder, and where its tensors are.

    Raises `FileNotFoundError` when it lacks config.json or safetensors files, `ValueError` when one
    of them is damaged.
    """
    path = Path(path).resolve()
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"there is no config.json in {path}: give a folder in Hugging Face's layout, or a GGUF"
            " file"
        )
    config = read_json(path / "config.json")
    tensors: dict[str, Tensor | Held] = {}
    for file in _files(path):
        tensors |= _flax(file) if file.suffix == ".msgpack" else _header(file)
    return Folder(path, config, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ValueError` when it is none."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a JSON object ({error}): download it again") from None


def _files(path: Path) -> list[Path]:
    """The safetensors files: those that the index names, or the only one."""
    index, single = path / "model.safetensors.index.json", path / "model.safetensors"
    if index.is_file():
        named = sorted(set(read_json(index).get("weight_map", {}).values()))
        absent = [name for name in named if not (path / name).is_file()]
        if absent or not named:
            what = absent[0] if absent else "the files that its index should name"
            raise FileNotFoundError(f"{path} lacks {what}: download the model again")
        return [path / name for name in named]
    if single.is_file():
        return [single]
    if (path / "flax_model.msgpack").is_file():
        return [path / "flax_model.msgpack"]
    pickled = any(file for pattern in _PICKLES for file in path.glob(pattern))
    way = "save it with safe_serialization=True" if pickled else "download the model again"
    raise FileNotFoundError(f"there is no model.safetensors in {path}: {way}")


_FLAX = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


def _flax(file: Path) -> dict[str, Held]:
    """The tensors of a Flax checkpoint under the names that PyTorch gives them.

    A `kernel` is the transpose of a PyTorch `weight`, in GPT-2's Conv1D as in linear layers.
    """
    try:
        tree = traverse_util.flatten_dict(serialization.msgpack_restore(file.read_bytes()), sep=".")
    except Exception as error:  # msgpack raises many kinds
        raise ValueError(f"{file} is truncated or damaged ({error}): download it again") from None
    tensors = {}
    for name, array in tree.items():
        parent, _, last = name.rpartition(".")
        array = np.asarray(array).T if last == "kernel" else np.asarray(array)
        tensors[f"{parent}.{_FLAX.get(last, last)}"] = Held(file, array)
    return tensors


def _header(file: Path) -> dict[str, Tensor]:
    """Where the tensors of one safetensors file lie."""
    total = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= total - 8:
                raise ValueError("its header is cut off")
            entries = json.loads(opened.read(length))
        entries.pop("__metadata__", None)
        return {name: _tensor(file, 8 + length, total, e) for name, e in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is truncated or damaged ({error}): download it again") from None


def _tensor(file: Path, start: int, total: int, entry: dict[str, Any]) -> Tensor:
    low, high = entry["data_offsets"]
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if start + high > total or low > high:
        raise ValueError("its data is cut off")
    if kind in _DTYPES and high - low != math.prod(shape) * _DTYPES[kind].itemsize:
        raise ValueError("a tensor's size is not that of its shape")
    return Tensor(file, start + low, kind, shape)


def _stripped(name: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name
