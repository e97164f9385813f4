"""Activations on disk: shards of safetensors with an index, to train from again and again.

A shard holds so many batches of every place, in the order in which a source gave them; it is mapped
into memory and read when its turn comes; of several processes each reads its own rows of it. The
index is written last: a folder without one is not whole. May import `_share` and `_source`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ._share import Part, share, this_part
from ._source import Batch, Source

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
    """Write a source's activations, whole batches, at least so many tokens.

    - `shard`: batches in a file. `dtype`: "float16" (half the room; larger numbers than 65,504 are
      refused) or "float32".

    Of several processes each gives a folder of its own, to be read with `part=(0, 1)`.

    Returns the folder. Raises `ValueError` for a folder that holds activations already, or numbers
    that the dtype cannot hold.

    >>> save_activations(Stream(model, contexts, ["resid_post.12"]), "acts", tokens=1_000_000)
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    if (folder / INDEX).exists():
        raise ValueError(f"{folder} holds activations already: give another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    shards, done, batches = [], 0, []
    while done < tokens:
        batches = []
        while len(batches) < shard and done < tokens:
            batches.append(_flat(source.batch()))
            done += len(next(iter(batches[-1].values())))
        shards.append(_write(folder, len(shards), batches, dtype))
        if progress is not None:
            progress(min(done, tokens), tokens)
    size = len(next(iter(batches[0].values())))
    index = {"places": list(source.places), "batch": size, "dtype": dtype, "shards": shards}
    _atomically(folder / INDEX, json.dumps(index | {"facts": dict(source.facts)}, indent=1))
    return folder


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
        if dtype == "float16" and np.abs(whole).max() > np.finfo(np.float16).max:
            raise ValueError(f'{name} has numbers above 65,504: use dtype="float32"')
        tensors[name] = whole.astype(dtype)
    path = folder / f"shard-{number:05}.safetensors"
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, partial)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    partial.replace(path)
    return {"file": path.name, "batches": len(batches), "sha256": digest}


def _atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


@dataclasses.dataclass
class _Open:
    """The shard being read: its number in the order of the run, and its rows in theirs."""

    turn: int
    rows: dict[str, np.ndarray]


class Stored:
    """Saved activations as a `Source`: shards in random order, rows shuffled within each.

    - `places`: some of those saved (default: all). `epochs`: how often all are read.
    - `part`: (index, count): of several processes with the same folder each reads its own rows of
      every shard, in the same order of shards, and hands out its own part of every batch; so all
      come to the end together. By default that of this process (see `Stream`).

    Raises `FileNotFoundError` without an index; `ValueError` for a place that was not saved, a
    batch that cannot be shared out, or a shard that is damaged.

    >>> fit(Config("topk", batch=2048), Stored("acts", epochs=4))
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        places: tuple[str, ...] = (),
        *,
        epochs: int = 1,
        seed: int = 0,
        part: Part | None = None,
    ):
        self.folder = Path(folder)
        if not (self.folder / INDEX).exists():
            raise FileNotFoundError(
                f"{folder} has no {INDEX}: make one with jaxcirc acts save --out {folder}"
            )
        self._index = json.loads((self.folder / INDEX).read_text())
        self.places = tuple(places) or tuple(self._index["places"])
        unknown = [place for place in self.places if place not in self._index["places"]]
        if unknown:
            raise ValueError(f"{unknown[0]} was not saved: there are {self._index['places']}")
        self.epochs, self._seed, self._used = epochs, seed, 0
        self.part = this_part(part)
        self.size = share(self._index["batch"], self.part)
        self._open: _Open | None = None

    @property
    def facts(self) -> dict:
        """Those of the source that was saved."""
        saved = {"stored_as": self._index["dtype"], "epochs": self.epochs, "parts": self.part[1]}
        return self._index["facts"] | saved | {"places": list(self.places)}

    def batch(self) -> Mapping[str, Batch]:
        """The next batch of every place. Raises `StopIteration` when all has been read."""
        turn, at = self._place(self._used)
        if self._open is None or self._open.turn != turn:
            self._open = _Open(turn, self._read(turn))
        rows = slice(at * self.size, (at + 1) * self.size)
        self._used += 1
        return {place: self._pair(place, rows) for place in self.places}

    def state(self) -> dict[str, np.ndarray]:
        """How many batches were handed out."""
        return {"used": np.asarray(self._used)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go to where so many batches were handed out."""
        self._used = int(state["used"])

    def _order(self, epoch: int) -> np.ndarray:
        n = len(self._index["shards"])
        return np.random.default_rng((self._seed, epoch)).permutation(n)

    def _place(self, used: int) -> tuple[int, int]:
        """The turn of the shard that holds a batch, counted over epochs, and its place there."""
        counts = [shard["batches"] for shard in self._index["shards"]]
        epoch, left = divmod(used, sum(counts))
        if epoch >= self.epochs:
            raise StopIteration
        turn = epoch * len(counts)
        for shard in self._order(epoch):
            if left < counts[shard]:
                return turn, left
            left, turn = left - counts[shard], turn + 1
        raise StopIteration

    def _read(self, turn: int) -> dict[str, np.ndarray]:
        epoch, place = divmod(turn, len(self._index["shards"]))
        shard = self._index["shards"][self._order(epoch)[place]]
        path = self.folder / shard["file"]
        n = shard["batches"] * self.size
        own = slice(self.part[0] * n, (self.part[0] + 1) * n)
        order = np.random.default_rng((self._seed, 1, turn)).permutation(n)
        try:
            with safe_open(path, framework="numpy") as file:
                names = [name for name in file.keys() if name.split("|")[0] in self.places]
                return {name: file.get_slice(name)[own][order] for name in names}
        except (SafetensorError, OSError, IndexError) as error:
            raise ValueError(f"{path} is damaged ({error}): save the activations again") from None

    def _pair(self, place: str, rows: slice) -> Batch:
        assert self._open is not None
        x = jnp.asarray(self._open.rows[place][rows], jnp.float32)
        target = self._open.rows.get(f"{place}|target")
        return x, x if target is None else jnp.asarray(target[rows], jnp.float32)
