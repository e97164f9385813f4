"""`Stream`: a language model's activations on text, shuffled, for many places in one pass.

The contexts are in random order already. A block of them is run, the tokens to learn from are
shuffled within the block, and handed out; what is left goes before the next block's. So the place
of a run in its data is four numbers, and a block is computed again where a run resumes. Each of
several processes reads its own share of the contexts. May import `_contexts`, `_places`, `_share`,
`_source`, `taps`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...taps import run
from ._contexts import Contexts
from ._places import Place, Spot, joined, parse_place, reads, rows_of
from ._share import Part, equal_batches, own_rows, share, this_part
from ._source import Batch

SINK_MEDIANS = 10.0
"""A token whose norm exceeds so many medians is a sink."""

CALIBRATION = 32
"""Contexts over which the medians are taken."""


@partial(jax.jit, static_argnames=("spots", "layers"))
def _activations(
    model, tokens: Int[Array, "context pos"], mask: Bool[Array, "context pos"], spots, layers: int
) -> dict[Spot, Float[Array, "token d"]]:
    _, records = run(model, tokens, reads(spots), mask=mask, layers=layers)
    return rows_of(records, spots)


@jax.jit
def _ordered(
    parts: dict[Spot, Sequence[Array]], before: dict[Spot, Array], order: Int[Array, "token"]
) -> dict[Spot, Float[Array, "slot d"]]:
    """What was left before, then the block's tokens in this order."""
    return {
        spot: jnp.concatenate([before[spot], jnp.concatenate(own)[order]])
        for spot, own in parts.items()
    }


@partial(jax.jit, static_argnames=("size",))
def _cut(
    data: dict[Spot, Array], begin: Int[Array, ""], size: int
) -> dict[Spot, Float[Array, "token d"]]:
    """So many rows from `begin` on."""
    return {spot: jax.lax.dynamic_slice_in_dim(x, begin, size) for spot, x in data.items()}


class Stream:
    """Batches of activations for `fit`: a `Source`.

    - `places`: names (see `parse_place`). `batch`: tokens handed out at once. `block`: contexts run
      and shuffled together (more where a batch needs them). `rows`: contexts in one compiled run.
      `epochs`: how often the text is read.
    - `part`: (index, count): of several processes, all with the same contexts, each reads its own
      share of them and hands out its own part of every batch. By default that of this process;
      where processes hold the same tokens, `share_of(mesh)`.

    The first token of each context, padding, and sinks (tokens whose norm at any spot exceeds
    `SINK_MEDIANS` times the median there) are left out; the norms, taken before contexts are shared
    out, are in `facts["sink_norm"]`. One process stops where its text ends. Several hand out as
    many batches each, as many as the smallest share has with its sinks; to make up for those, a
    process begins its share again.

    Raises `ValueError` for places the model lacks, a batch that cannot be shared out, or fewer
    contexts than processes.

    >>> fit(Config("topk"), Stream(model, contexts, ["resid_post.12"]))
    """

    def __init__(
        self,
        model,
        contexts: Contexts,
        places: Sequence[str],
        *,
        batch: int = 2048,
        block: int = 256,
        rows: int = 16,
        epochs: int = 1,
        seed: int = 0,
        sink_norm: Mapping[str, float] | None = None,
        part: Part | None = None,
    ):
        self.part = this_part(part)
        self.model, self.contexts, self.size = model, contexts, share(batch, self.part)
        self.own = contexts.take(own_rows(len(contexts), self.part))
        self._parsed: dict[str, Place] = {name: parse_place(name, model) for name in places}
        self.places = tuple(self._parsed)
        every = (spot for place in self._parsed.values() for spot in place.spots)
        self._spots = tuple(dict.fromkeys(every))
        self._layers = 1 + max(spot.layer for spot in self._spots)
        self._rows, self._seed, self.epochs = rows, seed, epochs
        self._said = {"seed": seed, "block": block, "rows": rows}
        enough = -(-4 * self.size // contexts.length)  # rows are a quarter full, or fuller
        self._block = max(1, block // rows, -(-enough // rows)) * rows
        self.sink_norm = dict(sink_norm) if sink_norm is not None else self._calibrated()
        self._given, self._most = 0, self._planned()
        self._go(0, 0, None)

    @property
    def facts(self) -> dict:
        """What a card says of the data."""
        c = self.model.config
        return {
            "model": c.name,
            "sha256": c.sha256,
            "bos": c.bos,
            "processing": c.processing,
            "places": list(self.places),
            "context": self.contexts.length,
            "contexts": len(self.contexts),
            "contexts_hash": self.contexts.hash(),
            "text": sorted(set(self.contexts.sources)),
            "epochs": self.epochs,
            "batch": self.size * self.part[1],
            "order": self._said,
            "parts": self.part[1],
            "mask": f"first token, padding, norm > {SINK_MEDIANS:g} medians",
            "sink_norm": self.sink_norm,
        }

    @property
    def batches(self) -> int:
        """So many there are, or fewer: of one process the sinks are not known beforehand."""
        if self._most is not None:
            return self._most
        return self.epochs * int(self.contexts.mask[:, 1:].sum()) // self.size

    def batch(self) -> Mapping[str, Batch]:
        """The next batch of every place. Raises `StopIteration` when the text has been read."""
        if self._given == self._most:
            raise StopIteration
        while self._next + self.size > self._end:
            self._next_block()
        rows = _cut(self._data, jnp.asarray(self._next), self.size)
        self._next, self._given = self._next + self.size, self._given + 1
        return {name: _pair(rows, place) for name, place in self._parsed.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Four counts: the block, the place of the next token in it, tokens left over from the
        block before, batches handed out."""
        counts = {"block": self._at, "next": self._next, "left": self._left, "given": self._given}
        return {name: np.asarray(count) for name, count in counts.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Compute the block again, and the end of the one before it."""
        block, left = int(state["block"]), int(state["left"])
        before = None
        if left:
            data, end = self._computed(block - 1, None)
            before = _cut(data, jnp.asarray(end - self.size), self.size)
        self._go(block, left, before)
        self._next, self._given = int(state["next"]), int(state["given"])

    def _go(self, block: int, left: int, before: dict[Spot, Array] | None) -> None:
        """To the beginning of a block; `left` tokens at the end of `before` come first."""
        self._data, self._end = self._computed(block, before)
        self._at, self._left, self._next = block, left, self.size - left

    def _next_block(self) -> None:
        """On to the next block, with the tokens of this one that did not fill a batch; what an
        earlier one left is let go."""
        left = min(self._end - self._next, self._end - self.size)
        before = _cut(self._data, jnp.asarray(self._end - self.size), self.size)
        self._go(self._at + 1, left, before)

    def _computed(
        self, block: int, before: dict[Spot, Array] | None
    ) -> tuple[dict[Spot, Array], int]:
        """`size` rows of before, then a block's activations, tokens to learn from first; and where
        those end."""
        parts: dict[Spot, list[Array]] = {spot: [] for spot in self._spots}
        keep = []
        chosen, real = self._chosen(block)
        for some in self._runs(self.own, chosen):
            found = self._read(some)
            keep.append(_real(some) & self._below(found))
            for spot, x in found.items():
                parts[spot].append(x)
        kept = np.concatenate(keep)
        kept[real * self.own.length :] = False
        order = np.random.default_rng((self._seed, block)).permutation(len(kept))
        order = np.concatenate([order[kept[order]], order[~kept[order]]])
        if before is None:
            before = {
                s: jnp.zeros((self.size, x[0].shape[1]), x[0].dtype) for s, x in parts.items()
            }
        data = _ordered(parts, before, jnp.asarray(order))
        return data, self.size + int(kept.sum())

    def _runs(self, of: Contexts, chosen: Int[np.ndarray, "context"]) -> Iterator[Contexts]:
        """The contexts, as many at a time as one compiled run takes."""
        for begin in range(0, len(chosen), self._rows):
            yield of.take(chosen[begin : begin + self._rows])

    def _read(self, some: Contexts) -> dict[Spot, Float[Array, "token d"]]:
        tokens, mask = jnp.asarray(some.tokens), jnp.asarray(some.mask)
        return _activations(self.model, tokens, mask, self._spots, self._layers)

    def _planned(self) -> int | None:
        """Batches that each of several processes hands out; one alone reads to its end."""
        if self.part[1] == 1:
            return None
        tokens = self.epochs * self.contexts.mask[:, 1:].sum(axis=1)
        return equal_batches(tokens, self.part, self.size)

    def _chosen(self, block: int) -> tuple[Int[np.ndarray, "context"], int]:
        """The contexts of a block, a last, short one filled up with copies, and how many are not
        copies. Where batches are counted, one epoch more, in blocks of its own, makes up for
        sinks."""
        n, begin = len(self.own), block * self._block
        end = n * self.epochs
        if begin >= end and self._most is not None:
            begin, end = begin - (-end % self._block), end + n
        if begin >= end:
            raise StopIteration
        at = np.arange(begin, min(begin + self._block, end))
        whole = -(-len(at) // self._rows) * self._rows
        epoch, row = np.divmod(np.resize(at, whole), n)
        orders = {e: self._order(int(e)) for e in np.unique(epoch)}
        return np.asarray([orders[e][r] for e, r in zip(epoch, row, strict=True)]), len(at)

    def _order(self, epoch: int) -> Int[np.ndarray, "context"]:
        if epoch == 0:
            return np.arange(len(self.own))
        return np.random.default_rng((self._seed, 1, epoch)).permutation(len(self.own))

    def _below(self, found: dict[Spot, Array]) -> Bool[np.ndarray, "token"]:
        """Tokens that are a sink nowhere."""
        norms = {spot: np.asarray(jnp.linalg.norm(x, axis=-1)) for spot, x in found.items()}
        each = [norm <= self.sink_norm[str(spot)] for spot, norm in norms.items()]
        return np.all(each, axis=0)

    def _calibrated(self) -> dict[str, float]:
        """The norm above which a token is a sink, for every spot."""
        norms: dict[Spot, list[np.ndarray]] = {spot: [] for spot in self._spots}
        n = max(1, min(CALIBRATION, len(self.contexts)) // self._rows) * self._rows
        for some in self._runs(self.contexts, np.resize(np.arange(len(self.contexts)), n)):
            for spot, x in self._read(some).items():
                norms[spot].append(np.asarray(jnp.linalg.norm(x, axis=-1))[_real(some)])
        return {
            str(spot): float(SINK_MEDIANS * np.median(np.concatenate(parts)))
            for spot, parts in norms.items()
        }


def _real(contexts: Contexts) -> Bool[np.ndarray, "token"]:
    """Tokens that are neither padding nor the first of their row."""
    mask = contexts.mask.copy()
    mask[:, 0] = False
    return mask.reshape(-1)


def _pair(rows: dict[Spot, Array], place: Place) -> Batch:
    x = joined(rows, place.inputs)
    return x, x if place.inputs == place.targets else joined(rows, place.targets)
