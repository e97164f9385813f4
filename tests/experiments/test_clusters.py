"""Circuits of clusters: samples, rows, clusters, circuits, measures, and a job that is killed."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import clusters_killed as killed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close
from clusters_killed import HOW, LABELS, LENGTH, LOOSE, PLACES, VOCAB, coder, small, spliced, text
from random_text import Words

from jaxcirc import experiments, models
from jaxcirc.circuits.features import circuit_values, errors_of, nodes, select
from jaxcirc.cli import _features_clusters
from jaxcirc.dictionaries.formats import save
from jaxcirc.experiments import clusters
from jaxcirc.experiments.clusters import How, Samples, Settings
from jaxcirc.taps import Read, Sites, run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def basis(model):
    return spliced(model)


@pytest.fixture(scope="module")
def samples(model) -> Samples:
    return killed.found(model)


def test_samples_are_tokens_that_are_predicted_well(model, samples):
    assert len(samples) == 24 and samples.loss.max() < 3 and len(set(samples.mask.sum(1))) > 1
    for i in (0, 7):
        context = samples.tokens[i][samples.mask[i]]
        logits, _ = run(model, jnp.asarray(context)[None], logits_at=-1)
        loss = -jax.nn.log_softmax(logits[0])[samples.answers[i]]
        assert loss == pytest.approx(samples.loss[i], abs=1e-4)
    alone = clusters.find_samples(model, text(96), 40, each="document", **LOOSE)
    assert len(set(alone.document.tolist())) == len(alone) <= 32


def test_copies_of_the_context_are_left_out(model):
    windows = text(40, of=3)
    kept = clusters.find_samples(model, windows, 40, repeats="keep", **LOOSE)
    left = clusters.find_samples(model, windows, 40, **LOOSE)
    assert (kept.copied == 3).any() and (left.copied < 3).all()
    for i in range(len(kept)):
        context = kept.tokens[i][kept.mask[i]].tolist()
        grams = {n: _grams(context, n) for n in (1, 2, 3)}
        end = [*context, int(kept.answers[i])]
        longest = max([0, *(n for n in grams if tuple(end[-n:]) in grams[n])])
        assert kept.copied[i] == longest


def test_text_that_is_not_predicted_gets_one_line(model):
    with pytest.raises(ValueError, match="costs less than 1e-09 nats behind 5 tokens: --threshold"):
        clusters.find_samples(model, text(8), 4, threshold=1e-9, shortest=5)


def _grams(ids, n):
    return {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}


@pytest.mark.slow
def test_rows_of_features_are_pooled_activations(model, basis, samples):
    few = samples.take(np.arange(6))
    x = clusters.represent(model, few, basis, "features")
    edits, mask = Sites(mlp_out=Read(), resid_post=Read()), jnp.asarray(few.mask)
    _, records = run(model, jnp.asarray(few.tokens), edits, mask=mask)
    xs = records.mlp_out[1], records.resid_post[1]
    codes = [d.encode(x) for d, x in zip(basis.dictionaries, xs, strict=True)]
    on = (few.mask & (few.mask.cumsum(axis=1) > 1))[..., None]  # the first token has no nodes
    expected = (np.concatenate(codes, axis=-1) * on).sum(axis=1)
    close(x, expected / np.linalg.norm(expected, axis=1, keepdims=True), 1e-4)
    assert clusters.represent(model, few, basis, "features", dims=16).shape == (6, 16)


@pytest.mark.slow
def test_gradients_are_those_of_the_weights(model, samples):
    """P G Q' of every weight, with G by autograd, one sample at a time."""
    few = samples.take(np.arange(2))
    sketch = clusters.sketch_of(model, side=3)
    found = clusters.gradient_rows(model, few.prompts().arrays(), sketch)
    blocks = {"q": "w_q", "k": "w_k", "v": "w_v", "attn_out": "w_o"}
    blocks |= {"mlp_pre": "w_gate", "mlp_up": "w_in", "mlp_out": "w_out"}

    @jax.jit
    @jax.grad
    def gradient(model, tokens, mask, answer):
        logits, _ = run(model, tokens[None], mask=mask[None], logits_at=-1)
        return -jax.nn.log_softmax(logits[0])[answer]

    for i in range(2):
        grad = gradient(model, *map(jnp.asarray, (few.tokens[i], few.mask[i], few.answers[i])))
        parts = []
        for (_, writes), (p, q) in sorted(sketch.sides.items()):
            holder = grad.blocks.attn if hasattr(grad.blocks.attn, blocks[writes]) else None
            holder = grad.blocks.mlp if holder is None else holder
            g = getattr(holder, blocks[writes]).reshape(2, p.shape[2], q.shape[2])
            parts.append(jnp.einsum("lai,lio,lbo->lab", p, g, q).ravel())
        close(found[i], np.concatenate(parts), 1e-4)


@pytest.fixture(scope="module")
def chosen():
    return clusters.halves(LABELS, np.arange(4), 6)


@pytest.fixture(scope="module")
def average(model, basis, samples):
    return clusters.node_means(model, samples, basis)


@pytest.fixture(scope="module")
def found(model, basis, samples, chosen, average, tmp_path_factory):
    """Circuits of four clusters, and the folder of their files."""
    folder = tmp_path_factory.mktemp("whole")
    options = {"folder": folder, "batch": 2}
    return clusters.run_circuits(model, samples, basis, chosen, average, HOW, **options)[0], folder


def test_halves_share_no_sample(chosen):
    for i in range(4):
        find, judge = (set(chosen.rows[i, h][chosen.weight[i, h] > 0].tolist()) for h in (0, 1))
        assert not find & judge and len(find) + len(judge) == min(6, (LABELS == i).sum())
        assert all(LABELS[j] == i for j in find | judge)
    assert (chosen.weight[3].sum(axis=1) == [3, 2]).all()


def test_a_circuit_is_what_nodes_and_select_find(model, basis, samples, chosen, found):
    i, (got, _) = 3, found
    find = samples.take(chosen.rows[i, 0][chosen.weight[i, 0] > 0])
    options = {"patch": "zero", "by_position": False}
    scores = nodes(model, find.prompts(), basis, "log_probability", **options)
    columns = select(scores, 12)
    assert got["columns"][i].tolist() == columns.tolist()
    close(got["effects"][i], scores.mean[columns], 1e-4)
    assert got["error_share"][i] == pytest.approx(scores.error_share, rel=1e-4)
    assert got["total"][i] == pytest.approx(scores.effect, rel=1e-4)
    assert got["gap"][i] == pytest.approx(scores.gap[-1], rel=1e-3)


@pytest.mark.slow
def test_held_out_values_are_those_of_circuit_values(model, basis, samples, chosen, found):
    i, (got, _) = 3, found
    own = [chosen.rows[i, h][chosen.weight[i, h] > 0] for h in (0, 1)]
    find, judge = (samples.take(rows) for rows in own)
    options = {"patch": "zero", "by_position": False}
    scores = nodes(model, find.prompts(), basis, "log_probability", **options)
    columns, layout = select(scores, 12), scores.layout
    sets = [columns[:5], columns, errors_of(layout), np.zeros(0, int)]
    over = {"reference": samples.prompts()}
    values = circuit_values(model, judge.prompts(), basis, layout, sets, "log_probability", **over)
    close(got["values"][i][: len(judge)], values.T, 1e-4)
    x = clusters.represent(model, find, basis, "effects")  # the same scores, a row a sample
    rows = scores.raw.toarray()[:, ~layout.errors(np.arange(layout.size))]
    close(x, rows / np.linalg.norm(rows, axis=1, keepdims=True), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"method": "relp"}, {"method": "ig", "steps": 2}])
def test_other_scores_are_those_of_nodes(model, basis, samples, chosen, average, how):
    one = chosen.take(np.asarray([0]))
    asked = How((6,), **how, patch="mean", errors="kept")
    got, _ = clusters.run_circuits(model, samples, basis, one, average, asked)
    prompts = samples.take(one.rows[0, 0][one.weight[0, 0] > 0]).prompts()
    options = {"patch": "mean", "reference": samples.prompts(), "by_position": False}
    scores = nodes(model, prompts, basis, "log_probability", **how, **options)
    assert got["columns"][0].tolist() == select(scores, 6).tolist()
    close(got["effects"][0], scores.mean[got["columns"][0]], 1e-4)


def test_a_killed_job_goes_on(model, basis, samples, chosen, average, found, tmp_path):
    """Dead while it writes the second batch, then again: the same files, the first not touched."""
    whole, folder = found
    asked = (model, samples, basis, chosen, average, HOW)

    def die(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clusters.run_circuits(*asked, folder=tmp_path, batch=2, progress=die)
    (first,) = tmp_path.iterdir()
    written = first.stat().st_mtime_ns
    told = []
    again, _ = clusters.run_circuits(
        *asked, folder=tmp_path, batch=2, progress=lambda *now: told.append(now)
    )
    assert told == [(2, 4), (4, 4)] and first.stat().st_mtime_ns == written
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir()) and len(names) == 2
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert all((again[key] == whole[key]).all() for key in whole)


@pytest.mark.slow
def test_a_job_on_two_devices_is_killed_and_goes_on(model, found, tmp_path):
    """Its numbers are those of one device."""
    path = f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, str(HERE / "clusters_killed.py"), str(tmp_path), "2"]
    options = {"env": os.environ | {"PYTHONPATH": path}, "capture_output": True, "text": True}
    dead = subprocess.run([*command, "die"], **options)
    assert dead.returncode == -signal.SIGKILL, dead.stderr[-2000:]
    assert [p.name for p in tmp_path.iterdir()] == ["circuits-0000.safetensors"]
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    again = killed.circuits(model, tmp_path)  # reads what is there
    for name, array in found[0].items():
        close(again[name], array, 1e-4)


SMALL = Settings(
    samples=40, clusters=4, least=3, most=6, nodes=(5, 12), shuffled=2, seeds=2, batch=2, **LOOSE
)


@pytest.fixture
def suite(model, monkeypatch, tmp_path):
    """A folder of two dictionaries, a text of numbers, and the model by its name."""
    monkeypatch.setattr(models, "load_model", lambda name: (model, Words()))
    for i, place in enumerate(PLACES):
        facts = {"place": place, "model": "toy", "sink_norm": 1e3}
        save(coder(i), tmp_path / "suite" / f"{place}.safetensors", facts)
    words = np.random.default_rng(0).integers(1, VOCAB, 700)
    (tmp_path / "a.txt").write_text(" ".join(map(str, words)))
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_a_page_and_goes_on(suite, capsys):
    command = _features_clusters.Clusters(
        text=(suite / "a.txt",),
        suite=suite / "suite",
        context=LENGTH - 1,
        settings=SMALL,
        out=suite / "runs",
    )
    command()
    said = capsys.readouterr().out.replace("\n", " ")
    assert "are clusters behaviours?" in said and "circuits" in said
    (folder,) = (suite / "runs").iterdir()
    result = experiments.load_result(folder)
    rows = [row for row in result.table if row["section"] == "cluster"]
    assert len(rows) == result.facts["circuits"] == len(result.arrays["columns"]) > 0
    page = (folder / "clusters.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert len(data["clusters"]) == len(rows)
    _check_page(data, result)
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("circuits-*")}
    command()
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.glob("circuits-*")}


def _check_page(data, result):
    """Every cluster's samples are its own, and peaks lie inside their contexts."""
    for cluster, row in zip(data["clusters"], result.table[-len(data["clusters"]) :], strict=True):
        assert cluster["i"] == row["cluster"] and cluster["s"] == row["samples"]
        assert 0 < cluster["h"] < len(cluster["r"]) <= SMALL.most
        assert cluster["n"][0][0] in row["nodes"]
        values = dict(zip(data["measures"], cluster["m"], strict=True))
        assert values["error share"] == pytest.approx(row["error share"], rel=6e-3)
    assert data["peaks"]
    for peaks in data["peaks"].values():
        assert all(0 <= at < len(data["rows"][i]) and value > 0 for i, at, value in peaks)
