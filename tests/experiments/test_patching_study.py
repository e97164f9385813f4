"""The study of patching: its rows, its claims, and the whole of it on a small random model."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs

from jaxcirc import experiments, viz
from jaxcirc.cli import _reproduce
from jaxcirc.experiments import Claim, Sizes, sizes_of
from jaxcirc.experiments.patching import _facts, _heads, _prompts
from jaxcirc.models import toy
from jaxcirc.patching import Effects
from jaxcirc.patching._patch import Picks, pair, patched
from jaxcirc.taps import Sites
from jaxcirc.tasks import METRICS, Interval, ioi

SMALL = Sizes(8, 4, 6, 2, 4, 2, 2, (3,), ("greater_than",))


def effects(mean, metric="logit_difference", n=24, axes=("example", "layer", "head")):
    """A denoising sweep with these mean effects, four templates."""
    mean = np.asarray(mean, float)
    values = mean + 0.001 * np.random.default_rng(0).normal(size=(n, *mean.shape))
    base, source = jnp.zeros(n), jnp.ones(n)
    return Effects(
        jnp.asarray(values), base, source, jnp.arange(n) % 4, "z", metric, "denoise", 1.0, axes
    )


def test_a_negative_head_that_probability_misses_is_claimed():
    heads = np.zeros((4, 5))
    heads[2, 1], heads[3, 2] = 1.0, -0.6
    blind = np.where(heads > 0, heads, 0)
    by_metric = {"probability": effects(blind, "probability"), "logit_difference": effects(heads)}
    by_metric["kl"] = by_metric["logit_difference"]
    rows = _heads.head_rows({"STR": by_metric}, "ioi")
    assert [row["negative"] for row in rows] == ["-", "3.2", "3.2"]
    assert rows[1]["positive"] == "2.1" and rows[0]["jaccard"] == 0.5
    (claim,) = _heads.metric_claims({"STR": by_metric})
    assert claim.found.value == 1 and claim.verdict == "supported"
    same = {name: by_metric["logit_difference"] for name in by_metric}
    assert _heads.metric_claims({"STR": same})[0].verdict == "contradicted"


def test_windows_are_compared_with_their_sums():
    single = effects([0.5, 0, 0, 0.1, 0.2, 0.1], axes=("example", "layer"))
    wide = effects([0.5, 0.5, 0.1, 0.9, 0.8, 0.3], axes=("example", "layer"))
    other = effects([0.5, 0, 0, 0.05, 0.1, 0.05], axes=("example", "layer"))
    traces = {
        "GN": {1: {"logit_difference": single}, 3: {"logit_difference": wide}},
        "STR": {1: {"logit_difference": other}, 3: {"logit_difference": other.summed(3)}},
    }
    rows = _facts.trace_rows(traces)
    assert rows[1]["late peak layer"] == 4 and rows[0]["peak layer"] == 0
    assert rows[1]["window / sum"] == pytest.approx(2, rel=0.02)
    by_text = {claim.text: claim for claim in _facts.trace_claims(traces)}
    found = by_text["facts: the MLP peak is higher under GN than under STR (layers from 3)"]
    assert found.found.value == pytest.approx(2, rel=0.02) and found.verdict == "supported"
    window = by_text["facts, STR: a window of 3 exceeds its summed layers (none before 3)"]
    assert window.found.value == pytest.approx(1, rel=1e-6) and window.verdict == "contradicted"


@pytest.mark.parametrize(
    "low, value, high, verdict",
    [
        (0.3, 0.5, 0.7, "supported"),
        (0.05, 0.15, 0.4, "undecided"),
        (-0.1, 0.5, 0.9, "undecided"),
        (-0.2, 0.0, 0.1, "contradicted"),
        (float("nan"), 0.5, float("nan"), "undecided"),
    ],
)
def test_verdicts(low, value, high, verdict):
    assert (
        Claim("it is so", "excess", Interval(value, low, high, 9, 3), floor=0.2).verdict == verdict
    )


def test_presets():
    assert sizes_of("default", "anything").ioi >= 24
    assert sizes_of("paper", "gpt2-xl").facts == 145 and sizes_of("paper", "gpt2").ioi == 500
    with pytest.raises(
        ValueError, match="preset 'paper' is for gpt2, gpt2-xl, gpt-j-6b, attn-only"
    ):
        sizes_of("paper", "smollm2-135m")
    with pytest.raises(ValueError, match="unknown preset 'huge'"):
        sizes_of("huge", "gpt2")


def test_the_spans_of_subjects(smollm2):
    model, tokenizer = smollm2
    found = _prompts.fact_prompts(model, tokenizer, 12, 0)
    subject, last = (np.asarray(found.span(name)) for name in ("subject", "last"))
    assert (last.sum(axis=1) == 1).all() and (last <= subject).all()
    assert not (np.cumsum(last, axis=1) - last & subject).any()
    before = np.asarray(found.span("before"))
    assert (before.any(axis=1) == (subject.sum(axis=1) > 1)).all()
    assert len(found) % 2 == 0


@pytest.fixture(scope="module")
def study(smollm2):
    """The whole study of a random model that reads SmolLM2's tokens."""
    _, tokenizer = smollm2
    model = toy(jax.random.key(0), vocab=49152, n_layers=4, d_mlp=16)
    return experiments.study_patching(model, tokenizer, sizes=SMALL)


@pytest.mark.slow
def test_the_study_runs_whole_and_says_what_it_left_out(study, tmp_path):
    sections = {row["section"] for row in study.table}
    assert {"claim", "ioi", "class", "token", "direction", "distance", "task"} <= sections
    assert any(note.startswith("Recommended for toy") for note in study.notes)
    left_out = [note for note in study.notes if "left out" in note]
    assert all("head by the stated" in note or "knows none" in note for note in left_out), left_out
    written = {path.name for path in viz.write(study, tmp_path)}
    assert {"heads.png", "facts.png", "directions.png", "index.html"} <= written
    assert experiments.load_result(tmp_path).table == list(study.table)


@pytest.mark.slow
def test_the_study_is_printed_section_by_section(study, capsys):
    _reproduce._print(study)
    said = capsys.readouterr().out
    for title in ("(a) IOI heads found", "(e) noise against denoise", "claims", "Recommended"):
        assert title in said
    assert "nan" not in said


@pytest.mark.slow
def test_attribution_against_exact(tmp_path, smollm2):
    _, tokenizer = smollm2
    model = toy(jax.random.key(0), vocab=49152, n_layers=6, d_mlp=16)
    sites = ("z", "mlp_out")
    found = experiments.compare_attribution(model, ioi(tokenizer, n=8), sites=sites, steps=2)
    rows = [row for row in found.table if row["section"] == "estimate"]
    assert {row["estimator"] for row in rows} == {"AtP", "AtP*", "RelP", "IG inputs", "IG site"}
    assert all(-1 <= row["rank"] <= 1 and 0 <= row["recall"] <= 1 for row in rows)
    (verified,) = [row for row in found.table if row["section"] == "verified"]
    assert verified["largest of the rest"] <= verified["root sum of squares of the rest"]
    assert {path.name for path in viz.write(found, tmp_path)} >= {"estimates.png"}


@pytest.mark.slow
def test_on_smollm2_probability_misses_negative_heads(smollm2):
    """What independent measurement found: 24.4 and 29.0."""
    result = experiments.study_patching(*smollm2, sizes=sizes_of("default", "smollm2-135m"))
    rows = {
        (row["corruption"], row["metric"]): row for row in result.table if row["section"] == "ioi"
    }
    assert {"24.4", "29.0"} <= set(str(rows["STR", "logit_difference"]["negative"]).split())
    assert rows["STR", "probability"]["negative"] == "-"
    facts_rows = [row for row in result.table if row["section"] == "facts" and row["window"] == 1]
    assert {row["corruption"]: row["peak layer"] for row in facts_rows}["STR"] == 0


def noised_pairs(d_model):
    prompts = pairs()
    noise = jnp.zeros((*prompts.clean.shape, d_model))
    return dataclasses.replace(prompts, corrupt=prompts.clean, noise=noise)


PAPER_SHAPES = {
    "gpt2": dict(n_layers=12, d_model=768, n_heads=12, d_head=64, d_mlp=3072),
    "gpt2-xl": dict(n_layers=48, d_model=1600, n_heads=25, d_head=64, d_mlp=6400),
    "gpt-j-6b": dict(n_layers=28, d_model=4096, n_heads=16, d_head=256, d_mlp=16384, parallel=True),
    "attn-only-4l": dict(n_layers=4, d_model=512, n_heads=8, d_head=64, d_mlp=None),
}


@pytest.mark.parametrize("name", PAPER_SHAPES)
def test_the_papers_models_trace_at_their_own_sizes(name):
    """Whole programs at the preset's shapes, without the memory: windows, noise, every metric."""
    sizes, shape = sizes_of("paper", name), PAPER_SHAPES[name]
    options = {"n_kv_heads": shape["n_heads"], "vocab": 50257, "norm": "layer", "gated": False}
    model = eqx.filter_eval_shape(toy, jax.random.key(0), **shape, **options)
    prompts = noised_pairs(shape["d_model"])
    metrics = tuple(METRICS.items())
    sites = ("mlp_out", "z") if shape["d_mlp"] else ("z",)
    options = {"first": 4, "sites": sites, "metrics": metrics, "direction": "denoise"}
    runs = pair.eval_shape(model, prompts, **options)
    assert runs.resid.shape == (shape["n_layers"], len(prompts), 3, shape["d_model"])
    windows = [w for w in sizes.windows if w <= shape["n_layers"]]
    where = {"z": jnp.zeros((len(windows) + 1, shape["n_layers"], 1, 1, shape["n_heads"], 1), bool)}
    if shape["d_mlp"]:
        where["mlp_out"] = jnp.zeros((len(windows) + 1, shape["n_layers"], 1, 1, 1), bool)
    found = patched.eval_shape(model, runs, Picks(jnp.asarray(0), Sites(**where)), metrics=metrics)
    assert {x.shape for x in found.values()} == {(len(windows), len(prompts))}
