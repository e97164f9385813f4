"""`Stored`: activations on disk as a source, to train from again and again.

A shard is mapped into memory and read when its turn comes; of several processes each reads its own
rows of it. May import `_share`, `_source` and `_store`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from ._share import Part, share, this_part
from ._source import Batch
from ._store import INDEX, digest


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
        self._known: set[str] = set()

    @property
    def facts(self) -> dict:
        """Those of the source that was saved, and how it is read."""
        shards = hashlib.sha256(json.dumps(self._index["shards"]).encode()).hexdigest()
        read = {"dtype": self._index["dtype"], "shards": shards, "seed": self._seed}
        own = {"stored": read, "batch": self._index["batch"], "epochs": self.epochs}
        own |= {"parts": self.part[1], "places": list(self.places)}
        return self._index["facts"] | own

    @property
    def batches(self) -> int:
        """How many there are."""
        return self.epochs * sum(shard["batches"] for shard in self._index["shards"])

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
            self._verify(path, shard["sha256"])
            with safe_open(path, framework="numpy") as file:
                names = [name for name in file.keys() if name.split("|")[0] in self.places]
                return {name: file.get_slice(name)[own][order] for name in names}
        except (SafetensorError, OSError, IndexError) as error:
            raise ValueError(f"{path} is damaged ({error}): save the activations again") from None

    def _verify(self, path: Path, sha256: str) -> None:
        """A shard is what was saved; looked at when it is first opened."""
        if path.name not in self._known and digest(path) != sha256:
            raise OSError("its sha256 is not that of the index")
        self._known.add(path.name)

    def _pair(self, place: str, rows: slice) -> Batch:
        assert self._open is not None
        x = jnp.asarray(self._open.rows[place][rows], jnp.float32)
        target = self._open.rows.get(f"{place}|target")
        return x, x if target is None else jnp.asarray(target[rows], jnp.float32)
