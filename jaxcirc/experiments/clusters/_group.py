"""Clusters of samples by the cosine of their rows, by scikit-learn, and how stable they are.

Rows have length 1, so that k-means is spherical but for the lengths of its centres. Spectral
clustering on the matrix of cosines is that of Marks et al. 2024 (arXiv 2403.19647). Imports numpy
and scikit-learn.
"""

import heapq
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from ...tasks import Interval, interval

Grouping = Literal["kmeans", "minibatch", "bisecting", "spectral"]

SPECTRAL = 5000
"""Samples whose matrix of cosines is still taken apart."""


def grouped(
    x: Float[np.ndarray, "sample dim"], k: int, *, method: Grouping = "kmeans", seed: int = 0
) -> Int[np.ndarray, "sample"]:
    """The cluster of every sample, the largest first.

    - `x`: rows of length 1.
    - `method`: "kmeans", "minibatch" (of very many samples), "bisecting" (the largest cluster is
      parted until there are enough, so that sizes differ less), "spectral" (on cosines, negative
      ones as 0).

    Raises `ValueError` for more clusters than samples, and for spectral clustering of very many.

    >>> grouped(represent(model, samples, basis), 1000)
    """
    from sklearn import cluster

    if method not in get_args(Grouping):
        raise ValueError(
            f"method={method!r}: use one of {', '.join(map(repr, get_args(Grouping)))}"
        )
    if not 1 <= k <= len(x):
        raise ValueError(f"{k} clusters of {len(x)} samples: give --clusters {max(1, len(x) // 8)}")
    if method == "spectral":
        if len(x) > SPECTRAL:
            raise ValueError(
                f"spectral clustering of {len(x)} samples takes hours: --grouping kmeans, or"
                f" --samples {SPECTRAL}"
            )
        way = cluster.SpectralClustering(k, affinity="precomputed", random_state=seed)
        return by_size(way.fit_predict(np.clip(x @ x.T, 0, None)))
    if method == "bisecting":
        strategy = {"bisecting_strategy": "largest_cluster", "random_state": seed}
        return by_size(cluster.BisectingKMeans(k, **strategy).fit_predict(x))
    kind = cluster.KMeans if method == "kmeans" else cluster.MiniBatchKMeans
    options: Any = {"n_init": 1, "random_state": seed}
    return by_size(kind(k, **options).fit_predict(x))


def by_size(labels: Int[np.ndarray, "sample"]) -> Int[np.ndarray, "sample"]:
    """Clusters numbered anew, the largest first; of equals the one that comes first."""
    values, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    number = np.empty(len(values), int)
    number[order] = np.arange(len(values))
    return number[np.searchsorted(values, labels)]


def enough(labels: Int[np.ndarray, "sample"], least: int) -> int:
    """How many clusters have `least` samples or more: the first ones, by `by_size`."""
    return int((np.bincount(labels) >= least).sum())


def clusters_of(
    x: Float[np.ndarray, "sample dim"],
    wanted: int,
    *,
    least: int = 4,
    method: Grouping = "kmeans",
    seed: int = 0,
) -> Int[np.ndarray, "sample"]:
    """Clusters of which `wanted` have `least` samples or more, if there are so many.

    So many clusters to begin with, of which some are small; then the largest one is cut in two by
    k-means, and the next, until there are. Raises `ValueError` for samples that are too few.

    >>> labels = clusters_of(x, 1000); enough(labels, 4) >= 1000
    """
    most = len(x) // least
    if not 1 <= wanted <= most:
        raise ValueError(
            f"{len(x)} samples make no {wanted} clusters of {least}: --clusters {max(1, most // 2)}"
            f" or --samples {2 * least * max(1, wanted)}"
        )
    labels = grouped(x, wanted, method=method, seed=seed)
    sizes = np.bincount(labels).tolist()
    heap = [(-size, cluster) for cluster, size in enumerate(sizes) if size >= 2 * least]
    heapq.heapify(heap)
    while heap and sum(size >= least for size in sizes) < wanted:
        _, cluster = heapq.heappop(heap)
        apart = _half(x, np.flatnonzero(labels == cluster), seed)
        labels[apart] = len(sizes)
        sizes[cluster] -= len(apart)
        sizes.append(len(apart))
        pieces = (cluster, len(sizes) - 1) if len(apart) else ()
        for piece in pieces:
            if sizes[piece] >= 2 * least:
                heapq.heappush(heap, (-sizes[piece], piece))
    return by_size(labels)


def _half(
    x: Float[np.ndarray, "sample dim"], members: Int[np.ndarray, "member"], seed: int
) -> Int[np.ndarray, "half"]:
    """Those members of a cluster that k-means puts apart; none where all rows are the same."""
    rows = x[members]
    if (rows == rows[0]).all():
        return members[:0]
    return members[grouped(rows, 2, seed=seed) == 1]


def shuffled(labels: Int[np.ndarray, "sample"], seed: int = 0) -> Int[np.ndarray, "sample"]:
    """The same labels on other samples: clusters of the same sizes that mean nothing."""
    return np.random.default_rng((seed, 1)).permutation(labels)


def stability(clusterings: Sequence[Int[np.ndarray, "sample"]]) -> Interval | None:
    """The adjusted Rand index of clusterings of the same samples from different seeds: 1 the same
    clusters, 0 as by chance. The mean over all pairs; None for one clustering.

    >>> stability([clusters_of(x, 1000, seed=seed) for seed in range(3)]).value
    """
    from sklearn.metrics import adjusted_rand_score

    pairs = list(combinations(clusterings, 2))
    return interval(np.asarray([adjusted_rand_score(a, b) for a, b in pairs])) if pairs else None
