"""Tests of the metrics themselves, in a world whose features and whose behaviour are known.

Three questions that any score of a dictionary should stand (Chanin 2026, arXiv 2605.18229, asks
them of other suites): how much of it is the seed, does it rank known dictionaries as the truth
does, with an oracle above and degraded copies below, and does it rise while a dictionary trains.
Activations are sums of known codes, and the behaviour is a linear readout of one attribute. May
import `dictionaries`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import stats

from ...dictionaries import (
    AbstractDictionary,
    Coder,
    Config,
    TopK,
    fit,
    greedy_edit,
    labelled_edit,
    random_directions,
)
from ...dictionaries._coded import Coded
from ...dictionaries.interpret import predicates_of, score
from ...dictionaries.supervised import explained
from ...tasks import Interval
from .._matching import match, support_f1
from .._result import Row
from ._approximation import cells
from ._occlusion import Pairs
from ._subjects import coded, decoded_by

SHARES = (0.02, 0.1, 0.3, 1.0)
"""Of a training's tokens."""

METRICS = ("edit accuracy", "labelled edit accuracy", "sufficiency", "F1", "FVE", "MMCS")


@dataclasses.dataclass(frozen=True)
class World:
    """Codes of three attributes; the first is what the behaviour reads, by its own codes."""

    codes: tuple[Float[np.ndarray, "value d"], ...]
    noise: float = 0.05

    @classmethod
    def of(cls, seed: int = 0, d: int = 32, sizes: Sequence[int] = (12, 12, 2)) -> "World":
        rng = np.random.default_rng(seed)
        rows = [rng.normal(size=(size, d)) for size in sizes]
        return cls(tuple(r / np.linalg.norm(r, axis=1, keepdims=True) * np.sqrt(d) for r in rows))

    def draw(self, n: int, seed: int) -> tuple[Float[np.ndarray, "row d"], list[np.ndarray]]:
        x, labels = Pairs(self.codes, n, seed).draw(n, 0)
        rng = np.random.default_rng((seed, 1))
        return x + self.noise * np.sqrt(x.shape[1]) * rng.normal(size=x.shape), labels

    def says(self, x: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row value"]:
        """The behaviour: a logit for every value of the first attribute."""
        return np.asarray(x) @ np.linalg.pinv(np.concatenate(self.codes))[:, : len(self.codes[0])]

    @property
    def atoms(self) -> Float[np.ndarray, "atom d"]:
        return np.concatenate(self.codes)


def measured(world: World, dictionary: AbstractDictionary, n: int = 512) -> dict[str, float]:
    """Every metric of one dictionary, beside the truth: how well directions match the codes, times
    how well what is active matches what is there."""
    x, labels = world.draw(n, 11)
    names = ("first", "second", "third")
    new = (labels[0] + 1 + np.random.default_rng(3).integers(0, len(world.codes[0]) - 1, n)) % len(
        world.codes[0]
    )
    y = x - world.codes[0][labels[0]] + world.codes[0][new]
    rows, (f, g) = dictionary.directions, coded(dictionary, *_arrays(x, y))
    active = np.asarray(f) != 0
    sizes = {name: len(c) for name, c in zip(names, world.codes, strict=True)}
    found = score(active, predicates_of(dict(zip(names, labels, strict=True)), sizes))
    ranks = found.ranks(tuple(f"first={v}" for v in range(sizes["first"])))
    truth = world.says(y).argmax(axis=1)
    near = greedy_edit(rows, f, g, jnp.asarray(y - x, jnp.float32), 2)
    told = labelled_edit(rows, f, g, ranks, labels[0], new, 1)
    back = np.asarray(decoded_by(dictionary, f))
    margin = [_margin(world.says(r), labels[0]).mean() for r in (back, x, 0 * x + x.mean(axis=0))]
    matched, cosine = match(world.atoms, np.asarray(rows))
    true = np.concatenate(
        [own[:, None] == np.arange(len(c)) for own, c in zip(labels, world.codes, strict=True)],
        axis=1,
    )
    return {
        "edit accuracy": _agree(world, x + np.asarray(near.delta), truth),
        "labelled edit accuracy": _agree(world, x + np.asarray(told.delta), truth),
        "sufficiency": float((margin[0] - margin[2]) / (margin[1] - margin[2])),
        "F1": float(found.f1[: sizes["first"]].max(axis=1).mean()),
        "FVE": explained(x, back),
        "MMCS": float(_largest(world.codes[0], np.asarray(rows)).mean()),
        "truth": float(cosine.mean()) * support_f1(true, active, matched),
    }


def _arrays(*rows: np.ndarray) -> list[Array]:
    return [jnp.asarray(x, jnp.float32) for x in rows]


def _agree(world: World, x: np.ndarray, truth: Int[np.ndarray, "row"]) -> float:
    return float((world.says(x).argmax(axis=1) == truth).mean())


def _margin(logits: np.ndarray, answer: np.ndarray) -> np.ndarray:
    own = np.take_along_axis(logits, answer[:, None], axis=1)[:, 0]
    return own - logits.mean(axis=1)


def _largest(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    lengths = np.outer(*(np.linalg.norm(x, axis=1) for x in (codes, rows)))
    return (codes @ rows.T / np.maximum(lengths, 1e-12)).max(axis=1)


def oracle(world: World, k: int) -> TopK:
    """The codes themselves, the k strongest by least squares: codes are independent, so that
    without noise each is there once or not at all."""
    rows = world.atoms
    n, d = rows.shape
    w_enc, w_dec = _arrays(np.linalg.pinv(rows), rows)
    return TopK(Coder(w_enc, jnp.zeros(n), w_dec, jnp.zeros(d)), k)


def controls(world: World, trained: Coded, key: jax.Array, k: int) -> dict[str, AbstractDictionary]:
    """An oracle, and copies that are known to be worse."""
    zero = jnp.zeros(world.atoms.shape[1])
    order = jax.random.permutation(key, trained.d_dict)
    coder = trained.coder
    mixed = dataclasses.replace(coder, w_dec=coder.w_dec[order])
    noisy = coder.w_dec + coder.w_dec.std() * jax.random.normal(key, coder.w_dec.shape)
    return {
        "oracle": oracle(world, k),
        "shuffled decoder": trained.with_coder(mixed),
        "noisy decoder": trained.with_coder(dataclasses.replace(coder, w_dec=noisy)),
        "random directions": random_directions(key, len(zero), trained.d_dict, k, zero),
    }


class Batches(Pairs):
    """A world's activations as a `Source`."""

    def __init__(self, world: World, batch: int, seed: int = 0):
        super().__init__(world.codes, batch, seed)
        self._world = world

    def draw(self, n: int, seed: int):
        return self._world.draw(n, 1000 + seed)


def audit(tokens: int = 200_000, seeds: int = 4, features: int = 64, k: int = 3) -> list[Row]:
    """Every metric against seeds, the truth and training.

    - `tokens`: of a whole training; shorter ones, each of its own, are the checkpoints.
    """
    world, shares = World.of(), SHARES
    runs = {s: _fit(world, int(tokens * s), seeds, features, k, False) for s in shares}
    frozen = _fit(world, tokens, 1, features, k, True)
    whole = runs[1.0]
    known = controls(world, whole[0], jax.random.key(0), k) | {"frozen decoder": frozen[0]}
    tables = {s: [measured(world, d) for d in own] for s, own in runs.items()}
    others = {name: measured(world, d) for name, d in known.items()}
    first = [tables[s][0] for s in shares]
    return [*_audited(tables[1.0], others, first, shares), *_control_rows(tables[1.0], others)]


def _fit(world: World, tokens: int, seeds: int, features: int, k: int, frozen: bool) -> list[Coded]:
    configs = [
        Config(
            "topk",
            d_dict=features,
            k=k,
            batch=256,
            tokens=max(tokens, 256),
            learning_rate=3e-3,
            frozen=frozen,
            seed=s,
        )
        for s in range(seeds)
    ]
    found = fit(configs, Batches(world, 256)).dictionaries["pairs"]
    return [d for d in found if isinstance(d, Coded)]


def _audited(
    whole: Sequence[Mapping[str, float]],
    others: Mapping[str, Mapping[str, float]],
    path: Sequence[Mapping[str, float]],
    shares: Sequence[float],
) -> list[Row]:
    everything = [*whole, *others.values(), *path[:-1]]
    rows: list[Row] = []
    for metric in METRICS:
        each = np.asarray([one[metric] for one in whole])
        ranked = ranked_by([(one[metric], one["truth"]) for one in everything])
        rows.append(
            {
                "section": "audit",
                "metric": metric,
                "seed spread": float(each.std(ddof=1)),
                "seed variation": float(each.std(ddof=1) / max(abs(each.mean()), 1e-9)),
                **cells({"rank with truth": ranked}),
                "dictionaries": len(everything),
                "rank with training": rank([one[metric] for one in path], shares),
                "oracle above all": bool(
                    others["oracle"][metric] >= max(o[metric] for o in everything) - 1e-9
                ),
            }
        )
    return rows


def ranked_by(pairs: Sequence[tuple[float, float]], n: int = 1000) -> Interval:
    """Spearman's correlation of (score, truth), with an interval from resampled dictionaries."""
    table, rng = np.asarray(pairs), np.random.default_rng(0)
    drawn = [table[rng.integers(0, len(table), len(table))] for _ in range(n)]
    low, high = np.quantile([rank(*some.T) for some in drawn], (0.025, 0.975))
    return Interval(rank(*table.T), float(low), float(high), len(table), len(table))


def rank(values: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's correlation; 0 where either is constant."""
    if np.ptp(values) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(values), stats.rankdata(other))[0, 1])


def _control_rows(whole, others) -> list[Row]:
    mean = {name: float(np.mean([one[name] for one in whole])) for name in whole[0]}
    named = {"trained": mean, **others}
    return [{"section": "audit controls", "dictionary": name, **own} for name, own in named.items()]
