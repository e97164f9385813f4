"""The study of observables: its parts on made data, the command, theorem 1 by simulation."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, tiny

from jaxcirc import attribution, experiments, viz
from jaxcirc.experiments.observable_propagation import _labels, _look, _rows, _theorem, subject_of
from jaxcirc.observables import Observable, auc
from jaxcirc.tasks import Prompts

ASKED = Observable((3, 7), (1.0, -1.0))


class Words:
    """A token for every word with its space, longer words in pieces of four letters."""

    bos_id, pad_id, adds_bos = 1, 0, True

    def encode(self, text: str) -> list[int]:
        found = []
        for word in text.split():
            pieces = [word[i : i + 4] for i in range(0, len(word), 4)]
            found += [2 + sum(map(ord, piece)) % 48 for piece in pieces]
        return found

    def decode(self, ids) -> str:
        return " ".join(map(str, ids))

    def token(self, id: int) -> str:
        return str(id)


@pytest.mark.parametrize("kind, mean", [("RMSNorm", 1.92), ("LayerNorm", 2.99)])
def test_theorem_1_by_simulation(kind, mean):
    """The figures of 576 dimensions, and the bounds above them."""
    found = _theorem.angles(576, 3000, kind).mean()
    assert found == pytest.approx(mean, rel=0.03)
    assert found < _theorem.bound(576, kind)
    assert _theorem.bound(576, kind) == pytest.approx(
        {"RMSNorm": 2.39, "LayerNorm": 4.78}[kind], rel=0.01
    )


def rows_of(n: int = 3):
    kinds = ["Anna", "Jo", "Margaret"][:n], ["Bob", "Al", "Maximili"][:n]
    return _rows.filled(Words(), ("My friend {name} said that", "We saw {name}"), kinds)


def test_rows_know_where_the_name_stands():
    rows = rows_of()
    assert len(rows) == 12 and rows.labels.sum() == 6
    tokenizer = Words()
    places = [
        np.asarray(t)[np.asarray(p)].tolist() for t, p in zip(rows.tokens, rows.place, strict=True)
    ]
    assert places[0] == tokenizer.encode("Anna") and places[1] == tokenizer.encode("Bob")
    assert places[4] == tokenizer.encode("Margaret") and len(places[4]) == 2
    assert np.asarray(rows.tokens)[0, np.asarray(rows.mask)[0]][0] == 1  # the start token
    pairs = _rows.pairs_of(rows, 3)
    assert (np.asarray(pairs.clean) != np.asarray(pairs.corrupt)).any(axis=1).all()
    some = rows.spread(4)
    assert some.labels.tolist() == [True, False] * 2
    assert some.templates.tolist() == [0, 0, 1, 1] and some.clusters.tolist() == [0, 0, 2, 2]


@pytest.mark.slow
def test_a_look_is_what_separate_runs_show():
    """Outputs, readings, and the direct effects of `attribution.direct`."""
    model, rows = tiny("gemma"), rows_of()
    seen = _look.look(model, rows, [ASKED])
    zero = jnp.zeros((len(rows), 1))
    prompts = Prompts(
        rows.tokens,
        rows.tokens,
        rows.mask,
        zero.astype(int),
        zero + 1,
        zero.astype(int),
        zero + 1,
        spans={},
        templates=jnp.zeros(len(rows), int),
    )
    told = attribution.direct(model, prompts, metric=ASKED)
    close(np.moveaxis(seen.direct[0], -1, 0), told.heads, 1e-4)
    close(seen.outputs[0], told.total, 1e-4)
    effects = _look.effects_of(seen, rows, 0)
    assert effects.shape == (3, model.n_layers, 4)
    assert seen.place.shape == seen.mean.shape == (model.n_layers, 12, 16)


def made(n: int = 40, d: int = 12):
    """Rows whose label lies along one coordinate of what a head reads, and a look at them."""
    rng = np.random.default_rng(0)
    labels = np.tile([True, False], n)
    x = rng.normal(size=(1, 2 * n, d))
    x[0, :, 3] += np.where(labels, 2.0, -2.0)
    outputs = (3 * x[0, :, 3] + 0.1 * rng.normal(size=2 * n))[None]
    direct = (
        np.where(labels, 1.0, -1.0)[None, None, None] * np.array([1.0, 0.1])[None, None, :, None]
    )
    blank = jnp.zeros((2 * n, 1), bool)
    clusters = np.repeat(np.arange(n), 2)
    rows = _rows.Rows(blank.astype(int), blank, blank, labels, clusters, np.zeros(2 * n, int))
    return _look.Look(x, 0 * x, outputs, direct), rows


class Ready:
    """What `low_data` asks of a subject."""

    sizes = dataclasses.replace(subject_of("smoke").sizes, labels=(2, 20))
    seed = 0

    def tell(self, stage):
        return lambda done, total: None


def test_no_labels_beat_few_where_the_feature_is_right():
    seen, rows = made()
    features = np.zeros((1, 2, 12))
    features[0, 0, 3], features[0, 1, 5] = 1.0, 0.5
    heads = _labels.choices(seen, rows, 0, features, seed=0)
    assert str(heads[0]) == "0.0" and heads[0].effect == pytest.approx(2.0)
    assert heads[0].how.startswith("length, no data; direct effect of one pair; r2, all labels")
    curves = _labels.low_data(Ready(), "made", seen, rows, 0, features, heads[:1], ("place",))
    ours = curves.r2("place", _labels.OURS, 0)
    assert ours.value > 0.99 and ours.low > 0.98
    few, more = (curves.r2("place", "ridge", n).value for n in (2, 20))
    assert few < more < ours.value
    kinds = {row["kind"] for row in curves.rows}
    assert kinds == {_labels.OURS, "random", *_labels.LEARNED}
    (first, *_) = _labels._claims(curves, ("place",))
    assert first.verdict == "supported" and "ridge on 2" in first.text


def test_an_area_is_resampled_on_both_sides():
    rng = np.random.default_rng(2)
    labels, clusters = np.tile([True, False], 30), np.repeat(np.arange(10), 6)
    reading = rng.normal(size=60).round(1) + labels
    found = _labels._auc_interval(reading, labels, clusters)
    assert found.value == pytest.approx(auc(reading, labels)) and found.clusters == 10
    assert found.low < found.value < found.high


@pytest.mark.slow
def test_observe_prints_heads_tokens_and_couplings(tmp_path):
    model = tiny("gemma")
    found = experiments.observe(model, Words(), ASKED, [Observable((9,), (1.0,))], top=3, near=2)
    sections = [row["section"] for row in found.table]
    assert sections.count("head") == sections.count("feature") == sections.count("coupling") == 3
    norms = found.arrays["norms"]
    assert found.table[0]["norm"] == pytest.approx(norms.max(), rel=1e-5)
    paths = viz.write(found, tmp_path)
    assert {path.name for path in paths} >= {"norms.png", "index.html", "result.json"}


@pytest.mark.slow
def test_the_whole_study_on_smollm2(smollm2, tmp_path):
    """At its smallest: every section, resumed without a run, and a page."""
    model, tokenizer = smollm2
    from jaxcirc.experiments import observable_propagation

    sizes = subject_of("smoke").sizes
    options = {"sizes": sizes, "seed": 0}
    study = observable_propagation.study_observables
    found = study(model, tokenizer, tmp_path / "kept", **options)
    sections = {row["section"] for row in found.table}
    assert sections >= {
        "claim",
        "head",
        "shared",
        "low data",
        "group",
        "debias",
        "steering",
        "text",
    }
    first = next(row for row in found.table if row["section"] == "head")
    assert first["head"] == "26.2" and first["rank by effect"] == 1
    again = study(model, tokenizer, tmp_path / "kept", **options)
    assert again.table == found.table
    viz.write(found, tmp_path / "page")
    with pytest.raises(ValueError, match="another study"):
        study(model, tokenizer, tmp_path / "kept", sizes=sizes, seed=1)
