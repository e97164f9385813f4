"""`save_activations`: activations on disk, shards of safetensors with an index.

A shard holds so many batches of every place, in the order in which a source gave them. The index is
written after every shard, with where the source stood. May import `_source`.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ._source import Batch, RanOut, Source, comparable, differences

INDEX = "index.json"
DTYPES = ("float32", "float16")


def save_activations(
    source: Source,
    folder: str | os.PathLike,
    tokens: int,
    *,
    shard: int = 16,
    dtype: str = "float16",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a source's activations, whole batches, at least so many tokens; go on where a folder of
    the same source ends.

    - `shard`: batches in a file. `dtype`: "float16" (half the room; larger numbers than 65,504 are
      refused) or "float32".

    Of several processes each gives a folder of its own, to be read with `part=(0, 1)`. Where the
    source ends early, warns (`RanOut`) and keeps what there is.

    Returns the folder. Raises `ValueError` for a folder that holds other activations, numbers that
    are not finite or that the dtype cannot hold, or a source without one batch.

    >>> save_activations(Stream(model, contexts, ["resid_post.12"]), "acts", tokens=1_000_000)
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    index = _begun(folder, source, dtype)
    try:
        while _tokens(index) < tokens and (
            batches := _some(source, shard, tokens - _tokens(index))
        ):
            _add(folder, index, batches, source)
            if progress is not None:
                progress(min(_tokens(index), tokens), tokens)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped after {_tokens(index):,} of {tokens:,} tokens, which are saved in {folder}:"
            " the same call goes on from there"
        ) from None
    _check_enough(folder, _tokens(index), tokens)
    return folder


def _begun(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    """The index as it begins, or that of the folder, with the source brought to its end."""
    facts = json.loads(json.dumps({"source": dict(source.facts), "dtype": dtype}))
    if not (folder / INDEX).exists():
        places = list(source.places)
        return {"places": places, "batch": 0, "dtype": dtype, "shards": [], "facts": source.facts}
    index = json.loads((folder / INDEX).read_text())
    known = {"source": index["facts"], "dtype": index["dtype"]}
    told = differences(comparable(known), comparable(facts))
    if told or "state" not in index:
        raise ValueError(
            f"{folder} holds other activations ({told or 'of an earlier version'}): give another"
            " folder, or remove it"
        )
    source.restore({name: np.asarray(x, kind) for name, (kind, x) in index["state"].items()})
    return index


def _tokens(index: Mapping[str, Any]) -> int:
    return index["batch"] * sum(shard["batches"] for shard in index["shards"])


def _some(source: Source, shard: int, tokens: int) -> list[dict[str, np.ndarray]]:
    """The next batches: those of a shard, or as many as have so many tokens, or all there are."""
    found, done = [], 0
    while len(found) < shard and done < tokens:
        try:
            found.append(_flat(source.batch()))
        except StopIteration:
            break
        done += _length(found[-1])
    return found


def _length(batch: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(batch.values())))


def _add(
    folder: Path, index: dict[str, Any], batches: list[dict[str, np.ndarray]], source: Source
) -> None:
    """Write a shard, then the index with it."""
    size = index["batch"] or _length(batches[0])
    other = [_length(batch) for batch in batches if _length(batch) != size]
    if other:
        raise ValueError(f"a batch has {other[0]} tokens, others {size}: give equal batches")
    folder.mkdir(parents=True, exist_ok=True)
    shard = _write(folder, len(index["shards"]), batches, index["dtype"])
    state = {name: np.asarray(value) for name, value in source.state().items()}
    index["batch"] = size
    index["shards"] = [*index["shards"], shard]
    index["state"] = {name: [str(value.dtype), value.tolist()] for name, value in state.items()}
    _atomically(folder / INDEX, json.dumps(index, indent=1))


def _check_enough(folder: Path, done: int, tokens: int) -> None:
    if done == 0:
        raise ValueError("the source has not one whole batch of activations: give more text")
    if done < tokens:
        message = f"the source has ended after {done:,} of {tokens:,} tokens, saved in {folder}"
        warnings.warn(f"{message}: for more of them give more text", RanOut, stacklevel=3)


def _flat(batch: Mapping[str, Batch]) -> dict[str, np.ndarray]:
    """Arrays by name: "place", and "place|target" where inputs and targets differ."""
    found = {}
    for place, (x, y) in batch.items():
        found[place] = np.asarray(x)
        if y is not x:
            found[f"{place}|target"] = np.asarray(y)
    return found


def _write(folder: Path, number: int, batches: list[dict], dtype: str) -> dict[str, Any]:
    tensors = {}
    for name in batches[0]:
        whole = np.concatenate([batch[name] for batch in batches])
        if not np.isfinite(whole).all():
            raise ValueError(f"{name} has numbers that are not finite: check the model's weights")
        if dtype == "float16" and np.abs(whole).max() > np.finfo(np.float16).max:
            raise ValueError(f'{name} has numbers above 65,504: use dtype="float32"')
        tensors[name] = whole.astype(dtype)
    path = folder / f"shard-{number:05}.safetensors"
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, partial)
    sha256 = digest(partial)
    partial.replace(path)
    return {"file": path.name, "batches": len(batches), "sha256": sha256}


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
