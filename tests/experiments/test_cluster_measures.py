"""Clusters of samples: planted groups, the measures of whether they are behaviours, bad input."""

import re

import numpy as np
import pytest
from clusters_killed import HOW, LABELS, small, spliced, text

from jaxcirc import viz
from jaxcirc.cli import _features_clusters
from jaxcirc.experiments import clusters
from jaxcirc.experiments.clusters import HeldOut, How, Samples
from jaxcirc.experiments.clusters._group import by_size, enough
from jaxcirc.experiments.clusters._measures import Measures
from jaxcirc.experiments.clusters._parts import claim
from jaxcirc.tasks import interval


def planted(groups: int = 6, each: int = 8, noise: float = 0.03, seed: int = 0):
    """Rows of length 1 around some centres, and which of them."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(groups), each)
    x = np.eye(16)[truth] + noise * rng.normal(size=(len(truth), 16))
    return x / np.linalg.norm(x, axis=1, keepdims=True), truth


@pytest.mark.parametrize("method", ["kmeans", "minibatch", "bisecting", "spectral"])
def test_planted_groups_are_found(method):
    x, truth = planted()
    found = clusters.grouped(x, 6, method=method)
    pairs = set(zip(found.tolist(), truth.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == 6
    assert steady(x, 6, method) == 1
    noise = np.random.default_rng(1).normal(size=(120, 16))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert steady(noise, 12, method) < 0.6


def steady(x: np.ndarray, k: int, method) -> float:
    """How alike three clusterings are."""
    found = clusters.stability([clusters.grouped(x, k, method=method, seed=i) for i in range(3)])
    assert found is not None
    return found.value


def test_clusters_that_are_large_enough_come_first_and_are_as_many_as_wanted():
    assert by_size(np.asarray([5, 5, 2, 7, 7, 7])).tolist() == [1, 1, 2, 0, 0, 0]
    x, truth = planted(each=4, noise=0.01)
    x = np.concatenate([x, -np.eye(16)[:4]])  # four that are like no other
    labels = clusters.clusters_of(x, 6, least=4)
    assert enough(labels, 4) == 6 and (np.diff(np.bincount(labels)) <= 0).all()
    finer = clusters.clusters_of(x, 7, least=2)
    assert enough(finer, 2) >= 7
    assert clusters.clusters_of(np.ones((9, 3)) / 3**0.5, 2).max() == 0, "nothing to cut"
    mixed = clusters.shuffled(labels)
    assert (np.bincount(mixed) == np.bincount(labels)).all() and (mixed != labels).any()


def held(f: float, seed: int = 0) -> HeldOut:
    """Twelve clusters whose circuits are so faithful."""
    rng = np.random.default_rng(seed)
    of, empty = np.repeat(np.arange(12), 3), rng.normal(-6, 0.3, 36)
    full = rng.normal(-1, 0.1, 36)
    own = empty + f * (full - empty) + rng.normal(0, 0.2, 36)
    return HeldOut(of, np.stack([own, own, own, empty], axis=1), full)


def measures(real: HeldOut, other: HeldOut | None, shares: dict) -> Measures:
    rand = interval(np.asarray([0.7, 0.72, 0.71]))
    return Measures(HOW, real, other, shares, shares, rand)


def test_clusters_are_measured_against_shuffled_ones():
    shares = {name: np.asarray([0.9, 0.2, 0.1, 0.3]) for name in ("token", "bigram", "copied")}
    of = measures(held(0.8), held(0.3, 1), shares)
    numbers = of.numbers()
    assert numbers["faithfulness_5_nodes"].value == pytest.approx(0.8, abs=0.05)
    gap = numbers["difference_12_nodes"]
    assert 0.4 < gap.low < gap.value < gap.high < 0.6
    assert [claim.verdict for claim in of.claims()] == ["supported"] * 2 + ["undecided"]
    alike = clusters.difference(held(0.5), held(0.5), 0)
    assert alike.value == pytest.approx(0, abs=1e-12)
    few = held(0.8).take(held(0.8).clusters < 5)
    assert clusters.difference(few, held(0.3, 1), 0).clusters == 5
    each = held(0.8).each(0)
    assert len(each) == 12 and np.mean(list(each.values())) == pytest.approx(0.8, abs=0.1)
    rows = {row["measure"]: row for row in of.rows()}
    assert rows["clusters with one next token"]["clusters"] == 0.25


def test_what_less_would_explain():
    tokens = np.asarray([[1, 2], [1, 2], [3, 2], [1, 2], [5, 6], [7, 8], [5, 6], [9, 9]])
    answers = np.asarray([4, 4, 4, 4, 1, 2, 3, 4])
    rest = (np.ones_like(tokens, bool), answers, np.zeros(8), np.arange(8))
    some = Samples(tokens, *rest, np.asarray([3, 3, 0, 0, 3, 3, 3, 3]))
    found = clusters.explained(some, np.repeat([0, 1], 4), 2)
    assert found["token"].tolist() == [1, 0.25] and found["bigram"].tolist() == [0.75, 0.5]
    assert found["copied"].tolist() == [0.5, 1]


NONE = np.zeros((0, 2), int)
BAD = {
    "no method": (lambda: How(method="exact"), "method='exact': use one of 'atp', 'relp', 'ig'"),
    "sizes": (lambda: How(sizes=(9, 3)), "give numbers of nodes that rise"),
    "few samples": (lambda: clusters.clusters_of(planted()[0], 40), "samples make no 40 clusters"),
    "k": (lambda: clusters.grouped(planted()[0], 99), "99 clusters of 48 samples: give --clusters"),
    "one half": (
        lambda: clusters.halves(LABELS, np.arange(4), 1),
        "half of a cluster finds, half judges",
    ),
    "no page": (
        lambda: viz.write_clusters(
            clusters.ClusterPage({}, NONE, NONE > 0, NONE[:, 0], (), {}, {}, {}), "a.html"
        ),
        "a page without clusters",
    ),
    "context": (
        lambda: _features_clusters.Clusters(context=8)(),
        "--context 8: contexts of 8 tokens or more need --context 16",
    ),
}


@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD)
def test_bad_input_gets_one_line(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as stop:
        make()
    assert "\n" not in str(stop.value)


def test_bad_samples_get_one_line(tmp_path):
    model = small()
    whole = np.zeros(1, int)
    samples = Samples(np.ones((1, 2), int), np.ones((1, 2), bool), whole, 1.0 * whole, whole, whole)
    with pytest.raises(ValueError, match="windows have 9 tokens, so give 2 to 8"):
        clusters.find_samples(model, text(), 4, shortest=9)
    with pytest.raises(ValueError, match="repeats='flag': use 'drop' or 'keep'"):
        clusters.find_samples(model, text(), 4, shortest=5, repeats="flag")
    with pytest.raises(ValueError, match="kind='logits': use one of 'effects'"):
        clusters.represent(model, samples, spliced(model), "logits")
    claim(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="holds another job: give another folder"):
        claim(tmp_path, {"seed": 1})
