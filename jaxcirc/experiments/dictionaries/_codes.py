"""`Codes`: the feature activations of a text, kept sparse, so that one run serves pages, rules and
probes alike. May import `dictionaries` and `taps`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Progress
from ...dictionaries.train import Contexts, Spot
from ...taps import AbstractDictionary
from ._judge import features as encoded
from ._runs import Chunk, SinkNorm, Where, chunks, located, read_run


@dataclasses.dataclass(frozen=True)
class Codes:
    """Activations that are not 0, ordered by feature.

    - `features`: which of the dictionary's. `starts`: entries of `features[i]` are
      `starts[i]:starts[i + 1]`. `context`, `pos`, `value`: of every entry. `tokens`: seen, masked
      ones not counted.
    """

    contexts: Contexts
    features: Int[np.ndarray, "feature"]
    starts: Int[np.ndarray, "bound"]
    context: Int[np.ndarray, "entry"]
    pos: Int[np.ndarray, "entry"]
    value: Float[np.ndarray, "entry"]
    tokens: int

    def of(
        self, i: int
    ) -> tuple[Int[np.ndarray, "entry"], Int[np.ndarray, "entry"], Float[np.ndarray, "entry"]]:
        """Contexts, positions and values of the i-th feature."""
        part = slice(self.starts[i], self.starts[i + 1])
        return self.context[part], self.pos[part], self.value[part]

    def dense(self, i: int) -> Float[np.ndarray, "context pos"]:
        """The i-th feature's activation on every token, 0 at masked ones."""
        found = np.zeros(self.contexts.tokens.shape, np.float32)
        context, pos, value = self.of(i)
        found[context, pos] = value
        return found

    @property
    def density(self) -> Float[np.ndarray, "feature"]:
        """The share of tokens on which each feature is active."""
        return np.diff(self.starts) / max(self.tokens, 1)


@jax.jit
def _encode(
    dictionary: AbstractDictionary,
    x: Float[Array, "token *d"],
    wanted: Int[Array, "feature"] | None,
) -> Float[Array, "token feature"]:
    found = encoded(dictionary, x)
    return found if wanted is None else found[:, wanted]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What to collect at a place: some features (None: all) of a dictionary, sinks left out."""

    dictionary: AbstractDictionary
    place: str
    sink_norm: SinkNorm = float("inf")
    features: Sequence[int] | None = None


def collect(
    model,
    dictionary: AbstractDictionary,
    contexts: Contexts,
    place: str,
    *,
    sink_norm: SinkNorm = float("inf"),
    features: Sequence[int] | None = None,
    batch: int = 8,
    progress: Progress | None = None,
) -> Codes:
    """The activations of some features (default: all) on a text; masked tokens have none.

    Arguments as for `evaluate`. Raises `ValueError` for a feature that the dictionary lacks.

    >>> collect(model, dictionary, contexts, "resid_post.12").density.max()
    """
    reading = Reading(dictionary, place, sink_norm, features)
    return collect_all(model, [reading], contexts, batch=batch, progress=progress)[0]


def collect_all(
    model,
    readings: Sequence[Reading],
    contexts: Contexts,
    *,
    batch: int = 8,
    progress: Progress | None = None,
) -> list[Codes]:
    """The same of several dictionaries, the model run once.

    Returns one `Codes` each, in their order.

    >>> collect_all(model, [Reading(dictionary, place) for place in places], contexts)
    """
    open_ = [_Open.of(model, reading) for reading in readings]
    spots = tuple(dict.fromkeys(spot for one in open_ for spot in one.where.spots))
    with jax.default_matmul_precision("highest"):
        for i, chunk in enumerate(chunks(contexts, batch)):
            rows = dict(zip(spots, read_run(model, *chunk.arrays(), spots), strict=True))
            for one in open_:
                one.take(chunk, rows, i * batch * contexts.length)
            if progress is not None:
                progress(min(len(contexts), (i + 1) * batch), len(contexts))
    return [one.codes(contexts) for one in open_]


@dataclasses.dataclass
class _Open:
    """A reading under way: token numbers, features and values so far, and tokens seen."""

    reading: Reading
    where: Where
    chosen: Int[np.ndarray, "feature"]
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    tokens: int = 0

    @classmethod
    def of(cls, model, reading: Reading) -> "_Open":
        where = located(model, reading.dictionary, reading.place, reading.sink_norm)
        return cls(reading, where, _chosen(reading.dictionary, reading.features), [])

    def take(self, chunk: Chunk, rows: Mapping[Spot, Array], begin: int) -> None:
        """What one chunk holds, whose first token has the number `begin`."""
        own = [rows[spot] for spot in self.where.spots]
        keep = self.where.kept(chunk, own)
        wanted = None if self.reading.features is None else jnp.asarray(self.chosen)
        code = np.asarray(_encode(self.reading.dictionary, self.where.sides(own)[0], wanted))
        self.parts.append(_entries(code * keep[:, None], begin))
        self.tokens += int(keep.sum())

    def codes(self, contexts: Contexts) -> Codes:
        """All of it, by feature."""
        at, feature, value = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.argsort(feature, kind="stable")
        starts = np.searchsorted(feature[order], np.arange(len(self.chosen) + 1))
        context, pos = np.divmod(at[order], contexts.length)
        where = (context.astype(np.int32), pos.astype(np.int32))
        return Codes(contexts, self.chosen, starts, *where, value[order], self.tokens)


def _chosen(
    dictionary: AbstractDictionary, features: Sequence[int] | None
) -> Int[np.ndarray, "feature"]:
    if features is None:
        return np.arange(dictionary.d_dict)
    found = np.asarray(features, np.int64).reshape(-1)
    outside = found[(found < 0) | (found >= dictionary.d_dict)]
    if len(outside):
        raise ValueError(
            f"feature {outside[0]}: this dictionary has features 0..{dictionary.d_dict - 1}"
        )
    return found


def _entries(
    code: Float[np.ndarray, "token feature"], begin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token number, feature and value of what is not 0."""
    token, feature = np.nonzero(code)
    return token + begin, feature.astype(np.int32), code[token, feature].astype(np.float32)
