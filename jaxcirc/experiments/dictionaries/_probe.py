r"""k-sparse probing: how many features does a distinction need?

Gurnee et al. 2023 (Finding Neurons in a Haystack, arXiv 2305.01610), section 3: the k features
whose means differ most between two labels, a logistic regression on them, its accuracy on examples
that neither step saw. Beside it the same with k coordinates of the raw activation, a regression on
all of them, and always saying the commoner label. May import `dictionaries` and `taps`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import optimize, special

from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary, Identity
from ...tasks import Interval, interval
from .._clock import clock
from .._result import Result, Row, model_facts
from ._card import other_weights
from ._evaluate import task_of
from ._judge import features
from ._runs import Chunk, SinkNorm, chunks, located, read_run

RIDGE = 1e-3
"""Of the regression: the penalty on squared weights of standardised inputs."""


def probe(
    model,
    dictionary: AbstractDictionary,
    contexts: Contexts,
    labels: Sequence[int] | np.ndarray,
    place: str,
    *,
    ks: Sequence[int] = (1, 2, 5, 16),
    pool: str = "mean",
    held: float = 0.3,
    sink_norm: SinkNorm = float("inf"),
    batch: int = 8,
    seed: int = 0,
    card: Mapping[str, Any] | None = None,
) -> Result:
    """Accuracy of probes on the best k features, against raw coordinates, all of them, and chance.

    - `labels`: one for each context, of two kinds. `pool`: "mean", "max" or "last" of its tokens.
    - `held`: the share of documents that probes are judged on; no document is on both sides. Other
      arguments as for `evaluate`.

    Returns `Result` of kind "probe", one row a k. Raises `ValueError` for labels of another number
    or kind, or too few of either.

    >>> probe(model, dictionary, pack(texts, tokenizer), labels, "resid_post.12").table[0]
    """
    y = _binary(labels, len(contexts))
    with clock() as seconds, jax.default_matmul_precision("highest"):
        coded, raw = _pooled(model, dictionary, contexts, place, sink_norm, pool, batch)
        test = _held(np.asarray(contexts.document), y, held, seed)
        group = np.asarray(contexts.document)[test]
        sides = {"dictionary": coded, "coordinates": raw}
        numbers = {"dense": interval(_judged(raw, y, test), group)}
        common = np.bincount(y[~test]).argmax()
        numbers["chance"] = interval((y[test] == common).astype(float), group)
        rows = []
        for k in ks:
            for name, inputs in sides.items():
                best = best_features(inputs[~test], y[~test], k)
                numbers[f"{name}_{k}"] = interval(_judged(inputs[:, best], y, test), group)
                if name == "dictionary":
                    rows.append(_row(k, best, numbers))
            rows[-1] = rows[-1] | {"coordinates": numbers[f"coordinates_{k}"].value}
    return Result(
        kind="probe",
        task=task_of(place),
        numbers=numbers,
        table=rows,
        arrays={},
        axes={},
        facts=model_facts(model)
        | {"place": place, "pool": pool, "ks": list(ks), "held": held, "seed": seed}
        | {"contexts": len(contexts), "contexts_hash": contexts.hash()},
        seconds=seconds,
        notes=[
            f"Accuracy on {int(test.sum())} of {len(y)} contexts of documents never seen.",
            *other_weights(model, card or {}),
        ],
    )


def _row(k: int, best: np.ndarray, numbers: Mapping[str, Interval]) -> Row:
    found = numbers[f"dictionary_{k}"]
    return {
        "section": "probe",
        "k": k,
        "accuracy": found.value,
        "accuracy low": found.low,
        "accuracy high": found.high,
        "coordinates": None,
        "dense": numbers["dense"].value,
        "chance": numbers["chance"].value,
        "features": ", ".join(map(str, best[:8].tolist())),
    }


def _binary(labels: Sequence[int] | np.ndarray, n: int) -> Int[np.ndarray, "context"]:
    found = np.asarray(labels)
    if found.shape != (n,):
        raise ValueError(f"labels of shape {found.shape}: give one for each of {n} contexts")
    kinds, y = np.unique(found, return_inverse=True)
    if len(kinds) != 2:
        raise ValueError(f"labels of {len(kinds)} kinds: give two, as in labels=topic == 'sport'")
    return y


def _held(
    document: np.ndarray, y: np.ndarray, share: float, seed: int
) -> Bool[np.ndarray, "context"]:
    """Contexts of the documents that are held out, both labels on both sides."""
    units, own = np.unique(document, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(units))
    test = np.isin(own, order[: max(1, round(share * len(units)))])
    if any(len(set(y[part].tolist())) < 2 for part in (test, ~test)):
        raise ValueError(
            f"{len(units)} documents are too few to hold {share:.0%} of them out with both labels:"
            " give more, or another seed"
        )
    return test


def _pooled(
    model, dictionary: AbstractDictionary, contexts: Contexts, place: str, norm, pool: str, batch
) -> tuple[Float[np.ndarray, "context feature"], Float[np.ndarray, "context d"]]:
    """Features and raw activations of every context."""
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}: use one of {', '.join(POOLS)}")
    where = located(model, dictionary, place, norm)
    parts: list[list[np.ndarray]] = [[], []]
    for chunk in chunks(contexts, batch):
        rows = read_run(model, *chunk.arrays(), where.spots)
        keep, x = where.kept(chunk, rows), where.sides(rows)[0]
        flat = x.reshape(len(x), -1)
        pairs = ((dictionary, x), (Identity(flat.shape[1]), flat))
        for found, (each, own) in zip(parts, pairs, strict=True):
            found.append(_over(each, own, keep, chunk, pool))
    coded, raw = (np.concatenate(part) for part in parts)
    return coded, raw


def _over(dictionary, x: Array, keep: np.ndarray, chunk: Chunk, pool: str) -> np.ndarray:
    shape = chunk.contexts.tokens.shape
    found = POOLS[pool](dictionary, x, jnp.asarray(keep).reshape(shape))
    return np.asarray(found)[: chunk.real]


def _by_context(dictionary, x: Array, keep: Bool[Array, "context pos"]) -> Array:
    return features(dictionary, x).reshape(*keep.shape, -1)


@jax.jit
def _mean(dictionary, x: Array, keep: Bool[Array, "context pos"]) -> Array:
    found = _by_context(dictionary, x, keep) * keep[..., None]
    return found.sum(axis=1) / jnp.maximum(keep.sum(axis=1), 1)[:, None]


@jax.jit
def _max(dictionary, x: Array, keep: Bool[Array, "context pos"]) -> Array:
    found = jnp.where(keep[..., None], _by_context(dictionary, x, keep), -jnp.inf).max(axis=1)
    return jnp.where(jnp.isinf(found), 0.0, found)


@jax.jit
def _last(dictionary, x: Array, keep: Bool[Array, "context pos"]) -> Array:
    last = keep.shape[1] - 1 - jnp.argmax(keep[:, ::-1], axis=1)
    found = _by_context(dictionary, x, keep)
    return jnp.take_along_axis(found, last[:, None, None], axis=1)[:, 0]


POOLS = {"mean": _mean, "max": _max, "last": _last}


def best_features(
    x: Float[np.ndarray, "context feature"], y: Int[np.ndarray, "context"], k: int
) -> Int[np.ndarray, "k"]:
    """The k features whose means differ most between the labels, the most telling first."""
    gap = np.abs(x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0))
    return np.argsort(-gap, kind="stable")[:k]


def _judged(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> Float[np.ndarray, "context"]:
    """1 for every held-out context that a probe fitted on the others gets right."""
    weights, bias = logistic(x[~test], y[~test])
    return ((x[test] @ weights + bias > 0) == (y[test] == 1)).astype(float)


def logistic(
    x: Float[np.ndarray, "context feature"], y: Int[np.ndarray, "context"], ridge: float = RIDGE
) -> tuple[Float[np.ndarray, "feature"], float]:
    r"""Weights and bias of a logistic regression on standardised inputs, by L-BFGS.

    $$\min_{w, b} \tfrac1n \sum_i \log(1 + e^{-s_i (w \cdot z_i + b)}) + \frac{\lambda}{2} |w|^2$$

    with s = 2 y - 1 and z the inputs at mean 0 and deviation 1; weights are those of x itself.

    >>> weights, bias = logistic(x, y)
    """
    x, sign = np.asarray(x, np.float64), 2.0 * y - 1
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (x - mean) / spread

    def loss(both: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (z @ both[:-1] + both[-1])
        slope = -sign * special.expit(-margin) / len(z)
        value = np.logaddexp(0, -margin).mean() + ridge / 2 * both[:-1] @ both[:-1]
        return float(value), np.append(z.T @ slope + ridge * both[:-1], slope.sum())

    start = np.zeros(x.shape[1] + 1)
    both = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    weights = both[:-1] / spread
    return weights, float(both[-1] - mean @ weights)
