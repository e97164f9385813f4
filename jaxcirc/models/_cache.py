"""Dequantised weights kept on disk: one safetensors file per source, in the user's cache folder.

Weights, tokenizer and metadata live in one file, named by the sha256 of the source and written to
a temporary name first, so that a reader sees all of it or nothing. Data begins at a multiple of 64
bytes and is read into one aligned buffer, which jax then uses in place (`safetensors.safe_open`
would hold the weights twice). A checksum of all data is compared on every read.
Imports nothing of jaxcirc.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

ALIGNMENT = 64
LAYOUT = 3
"""Raise it when the leaves of `LM` change shape or meaning: older files are then ignored."""

_DTYPES = {"F32": np.dtype("float32"), "U8": np.dtype("uint8")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_STALE = 3600.0  # seconds after which an unfinished file belongs to nobody


def cache_dir() -> Path:
    """Where jaxcirc keeps what it can make again: `$JAXCIRC_CACHE`, or the user's cache folder.

    >>> os.environ["JAXCIRC_CACHE"] = "/tmp/jaxcirc"
    """
    return Path(os.environ.get("JAXCIRC_CACHE") or platformdirs.user_cache_dir("jaxcirc", False))


def weights_path(sha256: str) -> Path:
    """The cached file of a source file."""
    return cache_dir() / "models" / f"{sha256[:32]}-v{LAYOUT}.safetensors"


def sha256_of(path: Path) -> str:
    """The sha256 of a file; remembered while its size and time of change stay the same."""
    path = path.resolve()
    stat = path.stat()
    seen = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = cache_dir() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    known = _read_note(note)
    if seen == {key: known.get(key) for key in seen}:
        return known["sha256"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _try_write(note, json.dumps(seen | {"sha256": digest}).encode())
    return digest


def allocate(shapes: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One aligned buffer, and the arrays (anything with `shape` and `dtype`) that lie in it.

    >>> buffer, arrays = allocate({"embed": jax.ShapeDtypeStruct((50, 16), jnp.float32)})
    """
    spans, stop = _spans(shapes)
    buffer = _aligned(stop)
    return buffer, _views(buffer, spans)


def write(path: Path, buffer: np.ndarray, arrays: Mapping[str, np.ndarray], notes: dict) -> bool:
    """Write arrays made by `allocate` as safetensors, atomically; False when the disk refuses.

    - `notes`: strings for the file's metadata; a checksum is added.
    """
    spans, _ = _spans(arrays)
    notes = notes | {"checksum": _checksum(buffer)}
    header = {"__metadata__": notes} | {name: _entry(*span) for name, span in spans.items()}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return _try_write(path, len(text).to_bytes(8, "little"), text, buffer.data)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file made by `write`, in one aligned buffer.

    Raises `FileNotFoundError` when there is none, `ValueError` when it is truncated or damaged.
    """
    with path.open("rb") as file:
        try:
            header, size = _read_header(file, path.stat().st_size)
            notes = header.pop("__metadata__")
            spans = {name: _span(entry) for name, entry in header.items()}
            if size != max(stop for _, _, _, stop in spans.values()):
                raise ValueError("truncated")
            buffer = _aligned(size)
            if file.readinto(buffer.data) != size or _checksum(buffer) != notes["checksum"]:
                raise ValueError("its checksum differs")
            return _views(buffer, spans), notes
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is truncated or damaged: {error}") from None


def _read_header(file, total: int) -> tuple[dict[str, Any], int]:
    """The parsed header, and the bytes that follow it."""
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= total - 8:
        raise ValueError("truncated")
    return json.loads(file.read(length)), total - 8 - length


def _spans(arrays: Mapping[str, Any]) -> tuple[dict[str, tuple], int]:
    """(dtype, shape, start, stop) of each array, and the end; whole multiples of 64 bytes first, so
    that all of them stay aligned without holes, which safetensors forbids."""
    spans, start = {}, 0
    sizes = {name: int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for name, a in arrays.items()}
    for name in sorted(sizes, key=lambda name: sizes[name] % ALIGNMENT != 0):
        stop = start + sizes[name]
        spans[name] = (np.dtype(arrays[name].dtype), tuple(arrays[name].shape), start, stop)
        start = stop
    return spans, start


def _entry(dtype: np.dtype, shape: tuple[int, ...], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [start, stop]}


def _span(entry: dict[str, Any]) -> tuple[np.dtype, tuple[int, ...], int, int]:
    return _DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"]


def _views(buffer: np.ndarray, spans: Mapping[str, tuple]) -> dict[str, np.ndarray]:
    return {
        name: buffer[start:stop].view(dtype).reshape(shape)
        for name, (dtype, shape, start, stop) in spans.items()
    }


def _aligned(size: int) -> np.ndarray:
    """Bytes beginning at a multiple of 64, as XLA wants the arrays that it uses in place."""
    room = np.empty(size + ALIGNMENT, np.uint8)
    skip = -room.ctypes.data % ALIGNMENT
    return room[skip : skip + size]


def _checksum(buffer: np.ndarray) -> str:
    """The sum of the data as 64-bit words: cheap enough (30 GB/s) to compare on every read."""
    words = buffer[: len(buffer) // 8 * 8].view(np.uint64)
    rest = int.from_bytes(buffer[len(buffer) // 8 * 8 :].tobytes(), "little")
    return f"{(int(words.sum(dtype=np.uint64)) + rest) % 2**64:016x}"


def _read_note(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _try_write(path: Path, *parts: bytes | memoryview) -> bool:
    """Write all parts under a temporary name, then rename; a full or read-only disk is no error."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what interrupted processes left behind."""
    for file in folder.glob("*.tmp"):
        try:
            if time.time() - file.stat().st_mtime > _STALE:
                file.unlink()
        except FileNotFoundError:  # another process was faster
            continue
