"""Means and ratios of means with bootstrap intervals clustered by template. Imports no jax.

Prompts of one template are alike, so whole templates are resampled (Cameron, Gelbach & Miller 2008,
"Bootstrap-based improvements for inference with clustered errors"). Percentile intervals, expanded
for few clusters (Hesterberg 2015, "What Teachers Should Know About the Bootstrap").
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import special

Values = Any
"""A one-dimensional array of numbers, numpy or JAX."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its interval, low to high, of `n` examples in `clusters` clusters.

    The bounds are NaN for a single example, which has no spread to speak of.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(
    values: Values, clusters: Values = None, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean with its interval, from `n` resamplings of whole clusters.

    - `values`: Float[example]. `clusters`: Int[example] (default: every example is its own). If all
      are in one cluster, examples are resampled, which `Interval.clusters == 1` shows.
    - `level`: how often the interval should cover the mean.

    Raises `ValueError` for no values, NaN, or clusters of another length.

    >>> interval(logit_difference(logits, prompts), prompts.templates)
    """
    columns, clusters = _checked([values], clusters)
    means = _resampled(columns, clusters, n, seed)[:, 0]
    return _interval(columns[:, 0].mean(), means, clusters, level)


def recovered(
    patched: Values,
    base: Values,
    target: Values,
    clusters: Values = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    r"""How much of the way from base to target patching goes, as a ratio of means.

    $$\frac{\overline{m}_\mathrm{patched} - \overline{m}_\mathrm{base}}
           {\overline{m}_\mathrm{target} - \overline{m}_\mathrm{base}}$$

    - `patched`, `base`, `target`: Float[example], a metric on three runs; the rest as for
      `interval`.

    Returns the ratio (0: as base, 1: as target) with its interval. Raises `ValueError` if the mean
    denominator lies within two standard errors (clustered) of zero.

    >>> recovered(patched_values, corrupt_values, clean_values, prompts.templates).value
    """
    columns, clusters = _checked([patched, base, target], clusters)
    parts = columns[:, [0, 2]] - columns[:, 1:2]
    _refuse_zero(parts[:, 1], clusters)
    means = _resampled(parts, clusters, n, seed)
    value = parts[:, 0].mean() / parts[:, 1].mean()
    return _interval(value, means[:, 0] / means[:, 1], clusters, level)


def interval_of(
    statistic: Callable[..., float],
    values: Sequence[Values],
    clusters: Sequence[Values],
    n: int = 400,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Any statistic of means with its interval, from `n` resamplings of whole clusters.

    - `statistic(*means)`: a number from the mean over examples of each of `values`.
    - `values`: arrays [example ...]; `clusters`: the cluster of every example of each,
      Int[example]. Clusters of one label are resampled together, whichever array they are in.

    The interval's `n` is that of the smallest array; resamplings where the statistic is NaN do not
    count.

    >>> interval_of(lambda a, b: a.max() / b.max(), [noise.raw, exact.raw], [t, t]).low
    """
    arrays = [np.asarray(value, np.float64) for value in values]
    labels, units = np.unique(
        np.concatenate([np.asarray(c) for c in clusters]), return_inverse=True
    )
    units = np.split(units, np.cumsum([len(array) for array in arrays])[:-1])
    sums, sizes = [], []
    for array, unit in zip(arrays, units, strict=True):
        total = np.zeros((len(labels), *array.shape[1:]))
        np.add.at(total, unit, array)
        sums.append(total)
        sizes.append(np.bincount(unit, minlength=len(labels)))
    rng = np.random.default_rng(seed)

    def once(often: np.ndarray) -> float:
        counts = [often @ size for size in sizes]
        if not all(counts):
            return float("nan")
        means = [np.tensordot(often, s, 1) / c for s, c in zip(sums, counts, strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(statistic(*means))

    drawn = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), n)
    found = np.asarray([once(often) for often in drawn])
    value, size = once(np.ones(len(labels))), min(map(len, arrays))
    if len(labels) == 1:
        return Interval(value, float("nan"), float("nan"), size, 1)
    tail = _tail(len(labels), level)
    found = found[~np.isnan(found)]
    low, high = np.quantile(found, [tail, 1 - tail]) if len(found) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), size, len(labels))


def recovered_each(
    patched: Values, base: Values, target: Values, floor: float = 0.1
) -> tuple[Float[np.ndarray, "example"], int]:
    """The recovered share of every example, NaN where target and base are within `floor` logits.

    Returns the shares, Float[example], and how many examples were left out.

    >>> shares, left_out = recovered_each(patched_values, corrupt_values, clean_values)
    """
    columns, _ = _checked([patched, base, target], None)
    part, whole = columns[:, 0] - columns[:, 1], columns[:, 2] - columns[:, 1]
    kept = np.abs(whole) > floor
    shares = np.where(kept, part / np.where(kept, whole, 1.0), np.nan)
    return shares, int((~kept).sum())


def _checked(
    columns: list[Values], clusters: Values
) -> tuple[Float[np.ndarray, "example column"], Int[np.ndarray, "example"]]:
    arrays = [np.asarray(column, np.float64) for column in columns]
    shapes = [array.shape for array in arrays]
    if shapes[0] == (0,):
        raise ValueError("no values: interval(values) needs at least one example")
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        raise ValueError(f"values have shapes {shapes}: give one number for every example")
    if any(np.isnan(array).any() for array in arrays):
        raise ValueError("values hold NaN: leave those examples out, values[~np.isnan(values)]")
    size = len(arrays[0])
    labels = np.arange(size) if clusters is None else np.asarray(clusters)
    if labels.shape != (size,):
        raise ValueError(
            f"clusters have shape {labels.shape}: give one id for each of {size} values"
        )
    return np.stack(arrays, axis=1), np.unique(labels, return_inverse=True)[1]


def _units(clusters: Int[np.ndarray, "example"]) -> Int[np.ndarray, "example"]:
    """What is resampled: clusters, or examples where there is but one cluster."""
    return clusters if clusters.max() > 0 else np.arange(len(clusters))


def _sums(
    columns: Float[np.ndarray, "example column"], units: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "unit column"]:
    sums = np.zeros((units.max() + 1, columns.shape[1]))
    np.add.at(sums, units, columns)
    return sums


def _resampled(
    columns: Float[np.ndarray, "example column"],
    clusters: Int[np.ndarray, "example"],
    n: int,
    seed: int,
) -> Float[np.ndarray, "draw column"]:
    """Means over `n` resamplings. A unit drawn twice counts twice: draws are rows of a matrix."""
    units = _units(clusters)
    sums, sizes = _sums(columns, units), np.bincount(units)
    often = np.random.default_rng(seed).multinomial(
        len(sizes), np.full(len(sizes), 1 / len(sizes)), n
    )
    return (often @ sums) / (often @ sizes)[:, None]


def _standard_error(
    values: Float[np.ndarray, "example"], clusters: Int[np.ndarray, "example"]
) -> float:
    """Of the mean, robust to correlation inside clusters; 0 for a single example."""
    sums = _sums((values - values.mean())[:, None], _units(clusters))[:, 0]
    groups = len(sums)
    return float(np.sqrt((sums**2).sum() * groups / max(groups - 1, 1)) / len(values))


def _refuse_zero(denominator: Float[np.ndarray, "example"], clusters) -> None:
    mean, error = denominator.mean(), _standard_error(denominator, clusters)
    if abs(mean) <= 2 * error or mean == 0:
        raise ValueError(
            f"target minus base is {mean:.3g} with a standard error of {error:.3g}, too near 0 to"
            " divide by: report the raw effects, or use prompts that the model can do"
        )


def _interval(
    value: float, means: Shaped[np.ndarray, "draw"], clusters: np.ndarray, level: float
) -> Interval:
    sizes = len(clusters), int(clusters.max()) + 1
    units = int(_units(clusters).max()) + 1
    if units == 1:
        return Interval(float(value), float("nan"), float("nan"), *sizes)
    tail = _tail(units, level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), *sizes)


def _tail(units: int, level: float) -> float:
    """The share of resamplings beyond each bound, expanded for few clusters."""
    normal = np.sqrt(units / (units - 1)) * special.stdtrit(units - 1, (1 - level) / 2)
    return float(special.ndtr(normal))
