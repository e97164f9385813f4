"""Clean and spliced runs of a model at one place, a batch of contexts at a time.

A spliced run has activations replaced by what a dictionary makes of them, its error dropped; masked
tokens keep theirs. It resumes at the place's first layer, from the clean run. May import
`dictionaries` and `taps`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..._types import Mask, Resid, Tokens
from ...dictionaries import Crosscoder, Heads
from ...dictionaries.train import Contexts, Place, Spot, parse_place
from ...dictionaries.train._places import reads, rows_of
from ...taps import AXES, AbstractDictionary, At, Read, Set, Sites, Start, Taps, run

CHUNK = 256
"""Tokens whose logits are held at once."""

SinkNorm = float | Mapping[str, float]
"""The norm above which a token is a sink: where the place reads, or by spot ("resid_post.12")."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some contexts, filled up to the size of a batch with copies; the first `real` count."""

    contexts: Contexts
    real: int

    @property
    def counted(self) -> Bool[np.ndarray, "batch pos"]:
        """Tokens that are neither padding nor copies."""
        mask = np.array(self.contexts.mask, bool)
        mask[self.real :] = False
        return mask

    @property
    def scored(self) -> Bool[np.ndarray, "batch from"]:
        """Tokens whose next one is real too."""
        return self.counted[:, :-1] & self.counted[:, 1:]

    def arrays(self) -> tuple[Tokens, Mask]:
        """What a run takes."""
        return jnp.asarray(self.contexts.tokens), jnp.asarray(self.contexts.mask, bool)


def chunks(contexts: Contexts, size: int) -> Iterator[Chunk]:
    """The contexts in batches of one size. Raises `ValueError` if there are none."""
    if not len(contexts):
        raise ValueError("no contexts: pack(read_texts(folder), tokenizer) makes them of text")
    for begin in range(0, len(contexts), size):
        rows = np.arange(begin, min(begin + size, len(contexts)))
        yield Chunk(contexts.take(np.resize(rows, size)), len(rows))


@dataclasses.dataclass(frozen=True)
class Where:
    """A place, its spots, and the norm above which a token is a sink there."""

    place: Place
    spots: tuple[Spot, ...]
    norms: Mapping[str, float]

    def kept(
        self, chunk: Chunk, rows: Sequence[Float[Array, "token d"]]
    ) -> Bool[np.ndarray, "token"]:
        """Tokens that count: neither padding, nor the first of their context, nor a sink."""
        mask = chunk.counted
        found = (mask & (mask.cumsum(axis=1) > 1)).reshape(-1)
        for spot, x in zip(self.spots, rows, strict=True):
            norm = np.asarray(jnp.linalg.norm(x.astype(jnp.float32), axis=-1))
            if not np.isfinite(norm[found]).all():
                raise ValueError(f"{spot}: activations are not finite: check the model's weights")
            found = found & (norm <= self.norms.get(str(spot), math.inf))
        return found

    def sides(self, rows: Sequence[Array]) -> tuple[Array, Array]:
        """Inputs and targets in float32: [token d], or [token site d] for several spots."""
        x, y = (self._side(rows, side) for side in (self.place.inputs, self.place.targets))
        return x, y

    def _side(self, rows: Sequence[Array], chosen: Sequence[Spot]) -> Array:
        found = [rows[self.spots.index(spot)].astype(jnp.float32) for spot in chosen]
        return found[0] if len(found) == 1 else jnp.stack(found, axis=1)


def located(model, dictionary: AbstractDictionary, place: str, sink_norm: SinkNorm) -> Where:
    """Where a dictionary acts, once it is known to fit there.

    Raises `ValueError` for a place the model lacks, a site without positions, or a dictionary of
    another kind or width.
    """
    found = parse_place(place, model)
    for spot in found.spots:
        if AXES[spot.site][:2] != ("batch", "pos"):
            raise ValueError(f"{spot}: dictionaries act on sites [batch pos ..], as resid_post.3")
    _check_kind(dictionary, found)
    _check_width(model, dictionary.d_in, "takes", found.inputs[0])
    if found.inputs != found.targets:
        _check_width(model, dictionary.directions.shape[-1], "gives", found.targets[0])
    one = not isinstance(sink_norm, Mapping)
    norms = {str(found.inputs[0]): float(sink_norm)} if one else dict(sink_norm)
    return Where(found, found.spots, norms)


def _check_kind(dictionary: AbstractDictionary, place: Place) -> None:
    """Refuse a place of another form than the dictionary's."""
    sites, same = len(place.inputs), place.inputs == place.targets
    if isinstance(dictionary, Heads):
        raise ValueError(
            "rows hold all heads side by side: give the dictionary inside, heads.inner"
        )
    if isinstance(dictionary, Crosscoder):
        own = len(dictionary.w_enc)
        if sites != own or not same:
            raise ValueError(f"a crosscoder of {own} sites at {place}: join {own} of them by +")
    elif hasattr(dictionary, "transcode"):
        if same or sites > 1 or len(place.targets) > 1:
            raise ValueError(
                f"a transcoder at {place}: say where it reads and writes, as mlp_normed.3>mlp_out.3"
            )
    elif sites > 1 or not same:
        raise ValueError(f"an autoencoder at {place}: give one site, as {place.inputs[0]}")


def _check_width(model, width: int, verb: str, spot: Spot) -> None:
    there = math.prod(model.axis_size(axis) for axis in AXES[spot.site][2:])
    if width != there:
        raise ValueError(
            f"the dictionary {verb} {width} numbers, {spot} of {model.config.name} has {there}:"
            " give the place it was trained at"
        )


class Clean(eqx.Module):
    """A clean run: rows read at every spot, where a spliced run resumes, and the last stream."""

    rows: tuple[Float[Array, "token d"], ...]
    start: Start
    final: Resid


@partial(jax.jit, static_argnames=("spots",))
def read_run(
    model, tokens: Tokens, mask: Mask, spots: tuple[Spot, ...]
) -> tuple[Float[Array, "token d"], ...]:
    """What some spots hold; no layer above them is run."""
    layers = 1 + max(spot.layer for spot in spots)
    _, records = run(model, tokens, reads(spots), mask=mask, layers=layers)
    rows = rows_of(records, spots)
    return tuple(rows[spot] for spot in spots)


@partial(jax.jit, static_argnames=("spots",))
def clean_run(model, tokens: Tokens, mask: Mask, spots: tuple[Spot, ...]) -> Clean:
    """The same and all that a spliced run and its loss need."""
    below = Spot("resid_pre", min(spot.layer for spot in spots))
    every = tuple(dict.fromkeys((*spots, below)))
    edits = reads(every) | Sites(final_resid=Read())
    _, records = run(model, tokens, edits, mask=mask, logits_at=-1)
    rows = rows_of(records, every)
    start = Start(rows[below].reshape(*tokens.shape, -1), jnp.asarray(below.layer))
    return Clean(tuple(rows[spot] for spot in spots), start, records.final_resid)


@partial(jax.jit, static_argnames=("spots",))
def spliced_run(
    model,
    tokens: Tokens,
    mask: Mask,
    start: Start,
    values: tuple[Float[Array, "token d"], ...],
    where: Bool[Array, "token"],
    spots: tuple[Spot, ...],
) -> Resid:
    """The last stream with `values` put in at the spots, where they are wanted."""
    edits = _writes(model, tokens.shape, values, where, spots) | Sites(final_resid=Read())
    _, records = run(model, tokens, edits, mask=mask, start=start, logits_at=-1)
    return records.final_resid


def _writes(model, shape: tuple[int, ...], values, where: Array, spots: Sequence[Spot]) -> Sites:
    """The table of edits that puts rows back where they were read."""
    layers: dict[str, list[int]] = {}
    cells: dict[str, list[Array]] = {}
    for spot, value in zip(spots, values, strict=True):
        rest = [model.axis_size(axis) for axis in AXES[spot.site][2:]]
        layers.setdefault(spot.site, []).append(spot.layer)
        cells.setdefault(spot.site, []).append(value.reshape(*shape, *rest))

    def edit(site: str) -> At:
        value = jnp.stack(cells[site])
        wanted = where.reshape(1, *shape, *[1] * (value.ndim - 3))
        wanted = jnp.broadcast_to(wanted, (len(value), *wanted.shape[1:]))
        return At(jnp.asarray(layers[site]), Set(value, wanted))

    return Sites(**{site: edit(site) for site in layers})


class Losses(eqx.Module):
    """Of every token but the last of its context: cross-entropy of the clean run, of every spliced
    run, and KL(clean || spliced), in nats."""

    clean: Float[Array, "batch from"]
    spliced: Float[Array, "run batch from"]
    kl: Float[Array, "run batch from"]


@partial(jax.jit, static_argnames=("chunk",))
def losses(
    model,
    clean: Resid,
    spliced: Float[Array, "run batch pos d"],
    tokens: Tokens,
    chunk: int = CHUNK,
) -> Losses:
    """What splicing costs, from the last streams; logits of `chunk` tokens are held at once."""
    batch, length = tokens.shape
    n = batch * (length - 1)
    cut = partial(_cut, n=n, chunk=chunk)
    targets = cut(tokens[:, 1:].reshape(n))
    streams = cut(clean[:, :-1].reshape(n, -1))
    others = jax.vmap(cut)(spliced[:, :, :-1].reshape(len(spliced), n, -1)).swapaxes(0, 1)

    def logits(x: Float[Array, "token d"]) -> tuple[Array, Array]:
        found = model.unembedding(x[None], Taps(Sites()))[0].astype(jnp.float32)
        return found, jax.nn.logsumexp(found, axis=-1)

    def told(found: Array, total: Array, at: Int[Array, "token"]) -> Float[Array, "token"]:
        return total - jnp.take_along_axis(found, at[:, None], axis=1)[:, 0]

    def one(part) -> tuple[Array, Array, Array]:
        x, others, at = part
        clean, total = logits(x)
        p = jnp.exp(clean - total[:, None])

        def against(other: Array) -> tuple[Array, Array]:
            found, own = logits(other)
            return told(found, own, at), (p * (clean - found)).sum(axis=-1) - total + own

        return told(clean, total, at), *lax.map(against, others)

    base, entropy, kl = lax.map(one, (streams, others, targets))

    def joined(x: Float[Array, "part run token"]) -> Float[Array, "run batch from"]:
        return x.swapaxes(0, 1).reshape(x.shape[1], -1)[:, :n].reshape(-1, batch, length - 1)

    return Losses(base.reshape(-1)[:n].reshape(batch, length - 1), joined(entropy), joined(kl))


def _cut(x: Array, n: int, chunk: int) -> Array:
    """Rows in equal parts, zeros at the end: [part chunk ...]."""
    short = [(0, -n % chunk)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, short).reshape(-1, chunk, *x.shape[1:])
