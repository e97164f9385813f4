"""The study of feature circuits: its parts by hand, and the whole of it on a tiny model."""

import json
from functools import cache

import equinox as eqx
import feature_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs

from jaxcirc import experiments, viz
from jaxcirc.circuits.features import Basis, Behaviour, Faithfulness, nodes
from jaxcirc.circuits.features._evaluate import _values
from jaxcirc.circuits.features._runs import begin
from jaxcirc.cli import _features_circuit, _reproduce_features
from jaxcirc.dictionaries import L1, Heads, Identity, JumpReLU, init_coder, save_dictionary
from jaxcirc.experiments import Claim
from jaxcirc.experiments.dictionaries import read_annotations, write_annotations
from jaxcirc.experiments.feature_circuits import (
    NEXT,
    How,
    Ready,
    Section,
    Store,
    Subject,
    Wanted,
    _claims,
    _curves,
    _mean,
    _part,
    _presets,
    _suites,
    _words,
    feature_circuit,
    next_tokens,
    paper_basis,
    read_published,
    score_bases,
    split_of,
    study_feature_circuits,
    subjects_of,
)
from jaxcirc.models import toy
from jaxcirc.tasks import Interval, logit_difference, recovered

# --- curves and what they say ------------------------------------------------------------------


def made_curve(kind: str, f, sizes, errors="default") -> _claims.Curve:
    """A curve with this faithfulness, metric 0 with nothing and 2 with all; 12 prompts."""
    noise = 1e-3 * np.random.default_rng(0).normal(size=(len(sizes), 12))
    values, full, empty = 2 * np.asarray(f)[:, None] + noise, np.full(12, 2.0), np.zeros(12)
    clusters = np.arange(12) % 4
    faithful = tuple(recovered(row, empty, full, clusters) for row in values)
    left = tuple(Interval(1 - x, 1 - x, 1 - x, 12, 4) for x in f) if errors == "default" else ()
    found = Faithfulness(
        tuple(sizes), tuple(2 * s for s in sizes), faithful, left, values, values[:0], full, empty
    )
    return _claims.Curve(kind, errors, found, clusters)


def test_crossings():
    assert _claims.crossing([10, 20], [0.25, 0.75]) == 15
    assert _claims.crossing([10, 20], [0.75, 0.2]) == pytest.approx(10 * 0.5 / 0.75)
    assert np.isnan(_claims.crossing([10, 20], [0.1, 0.4]))
    assert _curves.sizes_to(300, 4) == [50, 100, 200, 300]
    assert _curves.sizes_to(4, 9) == [1, 2, 4] and _curves.sizes_to(0, 3) == []


def test_half_rows_count_nodes_and_scalars():
    row = _curves.half_row(made_curve("features", [0.25, 0.75], [10, 20]))
    assert row["nodes at 0.5"] == pytest.approx(15, abs=0.1)
    assert row["scalars at 0.5"] == pytest.approx(30, abs=0.2)
    assert row["half broken by"] == 20 and row["best"] == pytest.approx(0.75, abs=0.01)


def test_claims_of_curves():
    sizes = [10, 100, 1000]
    curves = [
        made_curve("features", [0.8, 0.9, 1.0], sizes),
        made_curve("features", [0.7, 0.8, 0.9], sizes, "attn+mlp removed"),
        made_curve("features", [0.0, 0.0, 0.1], sizes, "removed"),
        made_curve("neurons", [0.0, 0.1, 0.9], sizes),
        made_curve("hidden", [0.9, 0.9, 0.9], sizes),
    ]
    by_text = {claim.text.partition(": ")[2]: claim for claim in _claims.claims_of(curves, "t")}
    few = "features need far fewer nodes than neurons (outputs) for half of the behaviour"
    assert by_text[few].verdict == "supported" and by_text[few].found.value > 50
    assert by_text[few.replace("outputs", "MLP hidden")].verdict == "contradicted"
    assert by_text["removing all errors collapses faithfulness"].found.value == pytest.approx(
        0.9, abs=0.01
    )
    less = by_text["errors of attention and MLPs matter less than those of the stream"]
    assert less.verdict == "supported" and less.found.value == pytest.approx(0.8, abs=0.01)


def test_a_basis_that_never_gets_there_counts_with_all_its_nodes():
    few, many = (made_curve(k, f, [10, 100]) for k, f in (("a", [0.5, 1]), ("b", [0, 0.2])))
    assert _claims._fewer(few, many, "t", "b", "").found.value == pytest.approx(10, rel=0.01)


def test_the_mean_curve_over_tasks():
    rows = [
        {"section": "curve", "task": task, "kind": "features", "errors": "default"}
        | {"nodes": n, "scalars": n, "faithfulness": f}
        for task, line in {"a": [(10, 0.5), (20, 1.0)], "b": [(10, 0.0), (20, 0.5)]}.items()
        for n, f in line
    ]
    (row,) = _mean.mean_rows(rows)
    assert row["nodes at 0.5"] == pytest.approx(15, abs=0.3) and row["best"] == 0.75
    assert row["tasks"] == 2 and row["paper: Pythia-70M"] == "75"


# --- what is kept ------------------------------------------------------------------------------


def test_sections_are_kept_and_made_once(tmp_path):
    claim = Claim("it holds", "excess", Interval(0.5, 0.1, float("nan"), 3, 1), floor=0.2)
    made = []

    def make():
        made.append(1)
        return Section([{"section": "a", "x": float("nan")}], {"v": np.arange(3)}, [claim], ["n"])

    for _ in range(2):
        found = Store(tmp_path, {"seed": 0}).section("one thing", make)
        assert found.rows == [{"section": "a", "x": None}] and found.arrays["v"].tolist() == [
            0,
            1,
            2,
        ]
        assert found.claims[0].text == "it holds" and np.isnan(found.claims[0].found.high)
    assert made == [1]
    with pytest.raises(ValueError, match="holds another study: give another --out folder"):
        Store(tmp_path, {"seed": 1})


def test_a_killed_section_is_made_again(tmp_path):
    store = Store(tmp_path, {})

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.section("one", killed)
    assert store.section("one", Section).rows == []


def test_presets():
    assert {s.model for s in subjects_of("default")} == {"smollm2-135m", "glassllm-en"}
    assert subjects_of("paper", "gemma-2-2b")[0].start == 8
    assert all(
        s.sizes.edge_sample >= 300 for name in ("default", "paper") for s in subjects_of(name)
    )
    with pytest.raises(ValueError, match="'paper' is for pythia-70m-deduped, gemma-2-2b, not 'gpt"):
        subjects_of("paper", "gpt2")
    with pytest.raises(ValueError, match="unknown preset 'huge'"):
        subjects_of("huge")


def test_published_annotations(tmp_path):
    lines = [
        {"Name": "resid_5/17", "Annotation": "plural", "Notes": ""},
        {"Name": "embed/3", "Annotation": '"men"', "Notes": "rare"},
        {"Name": "Name", "Annotation": "Annotation", "Notes": "Notes"},
        {"Component": "embed", "Feature": "4", "Name": "embed/4"},
        {"Name": "attn_2/1", "Annotation": "that", "notes": "gemma's way"},
    ]
    path = tmp_path / "published.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    found = read_published(path, "pythia-70m-deduped")
    assert [(n.place, n.feature) for n in found] == [
        ("resid_post.5", 17),
        ("resid_pre.0", 3),
        ("attn_out.2", 1),
    ]
    assert found[1].text == '"men" (rare)' and found[0].model == "pythia-70m-deduped"
    path.write_text('{"Feature": 1}')
    with pytest.raises(ValueError, match="published.jsonl, line 1: no"):
        read_published(path)


def test_explanations_go_through_an_annotation_file(tmp_path):
    row = {"section": "explained", "place": "resid_post.1", "feature": 3, "explanation": "days"}
    found = _words.annotations_of([{**row, "AUROC": 0.8}, {"section": "detection"}], "toy")
    path = write_annotations(found, tmp_path / "annotations.jsonl")
    assert read_annotations(path) == found and found[0].score == 0.8


@cache
def one_block():
    return eqx.filter_jit(lambda key: toy(key, n_layers=1, d_mlp=8))(jax.random.key(0))


# --- dictionaries of the paper -----------------------------------------------------------------


def test_gemma_scope_is_found_by_its_l0_and_spliced(tmp_path):
    model = one_block()
    for part, l0s in {"att": (40, 130), "mlp": (98,), "res": (101, 200)}.items():
        for l0 in l0s:
            coder = init_coder(jax.random.key(l0), 16, 24)
            folder = tmp_path / f"gemma-scope-2b-pt-{part}/layer_0/width_16k/average_l0_{l0}"
            save_dictionary(JumpReLU(coder, jnp.ones(24)), folder, "gemma_scope")
    files = _suites.paper_files(tmp_path, 1)
    assert [files[p].name for p in ("z.0", "mlp_out.0", "resid_post.0")] == [
        "average_l0_130",
        "average_l0_98",
        "average_l0_101",
    ]
    _, basis = paper_basis(model, tmp_path)
    assert [p.site for p in basis.places] == ["z", "mlp_out", "resid_post"]
    assert isinstance(basis.dictionaries[0], Heads)
    with pytest.raises(ValueError, match="has nothing for layer 1"):
        _suites.paper_files(tmp_path, 2)
    with pytest.raises(ValueError, match="holds neither attn_out_layer0"):
        _suites.paper_files(tmp_path / "nothing", 1)


def test_pythia_files(tmp_path):
    for name in ("embed", "attn_out_layer0", "mlp_out_layer0", "resid_out_layer0"):
        path = tmp_path / name / "10_32768" / "ae.pt"
        path.parent.mkdir(parents=True)
        path.touch()
    found = _suites.paper_files(tmp_path, 1)
    assert list(found) == ["resid_pre.0", "attn_out.0", "mlp_out.0", "resid_post.0"]


# --- behaviours and scores ---------------------------------------------------------------------


class Numbers:
    """A tokenizer of numbers."""

    def decode(self, ids):
        return " ".join(map(str, ids))


def test_behaviours_of_any_model():
    model, text = one_block(), feature_cases.contexts(vocab=14, rows=40)
    options = {"window": 5, "least": 0.0, "behaviours": 2, "candidates": 6}
    found = next_tokens(model, Numbers(), text, 6, **options)
    assert len(found) == 2
    for split in found:
        sides = [set(np.asarray(x.templates).tolist()) for x in (split.discovery, split.evaluation)]
        assert not sides[0] & sides[1]
        for prompts in (split.discovery, split.evaluation):
            clean, corrupt = np.asarray(prompts.clean), np.asarray(prompts.corrupt)
            assert ((clean != corrupt).sum(axis=1) == 1).all()
            assert (clean[:, -1] == corrupt[:, -1]).all()
            assert len(np.unique(prompts.answers)) == 1
            assert not (np.asarray(prompts.answers) == np.asarray(prompts.wrongs)).any()
    with pytest.raises(ValueError, match="no token is predicted well behind 400 unlike windows"):
        next_tokens(model, Numbers(), text, 200, **options)


@pytest.mark.slow
def test_one_slope_serves_every_basis():
    model, prompts = one_block(), pairs()
    dictionary = feature_cases.dictionaries(("mlp_out.0",))["mlp_out.0"]
    bases = {
        "features": Basis.of(model, {"mlp_out.0": dictionary}),
        "neurons": Basis.of(model, {"mlp_out.0": Identity(16)}),
    }
    found = score_bases(model, prompts, bases, steps=2)
    for name, basis in bases.items():
        alone = nodes(model, prompts, basis, method="ig", steps=2)
        np.testing.assert_allclose(found[name].mean, alone.mean, atol=1e-5)
        np.testing.assert_allclose(found[name].joint, alone.joint, atol=1e-5)
    assert found["neurons"].error_share == 0 < found["features"].error_share


# --- the whole of it ---------------------------------------------------------------------------

SMALL = _presets.FeatureSizes(
    n=6,
    steps=2,
    circuits=3,
    draws=1,
    exact_all=True,
    edge_nodes=12,
    edge_sample=30,
    edge_prompts=3,
    pruned=(10,),
    tokens=400,
    context=16,
    explained=6,
)


@pytest.fixture(scope="module")
def ready(smollm2):
    model = feature_cases.model()
    subject = Subject("toy", "", ("agreement_simple",), SMALL)
    return Ready(subject, model, smollm2[1], feature_cases.basis(model))


def prepared(monkeypatch):
    """A behaviour that a random model has, and text that needs no sampling."""

    def split(model, tokenizer, task, n, seed, **_):
        return feature_cases.split(model, tokenizer, n)

    monkeypatch.setattr(_part, "split_of", split)
    monkeypatch.setattr(_part, "contexts_of", lambda *_, **__: feature_cases.contexts())


@pytest.mark.slow
def test_the_study_runs_whole_and_resumes(ready, tmp_path, monkeypatch, capsys):
    prepared(monkeypatch)
    monkeypatch.setattr(_words, "LEAST", 1)
    result, _ = study_feature_circuits([ready], tmp_path / "kept")
    sections = {row["section"] for row in result.table}
    wanted = {"claim", "place", "share", "curve", "half", "errors only", "layers", "mean"}
    assert wanted | {"edge quality", "edges kept", "detection"} <= sections, result.notes
    kinds = {row["kind"] for row in result.table if row["section"] == "half"}
    assert kinds == {"features", "features, exact", "neurons", "hidden", "random dictionary", "PCA"}
    gaps = [r for r in result.table if r["section"] == "layers" and r["estimator"] == "AtP"]
    assert len(gaps) == len(feature_cases.PLACES)
    _reproduce_features.print_sections(
        result, _reproduce_features.TITLES, _reproduce_features.COLUMNS
    )
    said = capsys.readouterr().out
    assert "completeness gaps" in said and "1,582" in said and " nan" not in said
    names = {path.name for path in viz.write(result, tmp_path / "written")}
    assert {"curves.png", "errors.png", "layers.png", "index.html"} <= names

    def never(*_, **__):
        raise AssertionError("computed again")

    for name in ("score_bases", "curves_of", "judge_edges", "compare_layers", "explain_kinds"):
        monkeypatch.setattr(_part, name, never)
    again, _ = study_feature_circuits([ready], tmp_path / "kept")
    assert list(again.table) == list(result.table)
    assert list(again.numbers) == list(result.numbers)
    with pytest.raises(ValueError, match="holds another study"):
        study_feature_circuits([ready], tmp_path / "kept", how=How(seed=1))


@pytest.mark.slow
def test_one_circuit_with_its_page_and_file(ready, tmp_path, capsys):
    split = feature_cases.split(ready.model, ready.tokenizer)
    notes = [experiments.dictionaries.Annotation(20, "days", "toy", "resid_post.1", "me")]
    report = feature_circuit(
        ready.model,
        ready.tokenizer,
        split,
        ready.basis,
        Wanted(nodes=14, edges=30, steps=2),
        contexts=feature_cases.contexts(),
        annotations=notes,
    )
    labels = {row["node"]: row["label"] for row in report.result.table if row["section"] == "node"}
    assert labels["resid_post.1/20 at 4"] == "days"
    kept = [row for row in report.result.table if row["section"] == "edges kept"]
    nodes_alone = report.result.numbers["faithfulness"].value
    assert kept[-1]["faithfulness"] == pytest.approx(nodes_alone, abs=1e-4)
    _features_circuit.show(report)
    assert "error nodes carry" in capsys.readouterr().out
    _features_circuit.save(report, tmp_path)
    folder = tmp_path / report.result.name
    assert {path.name for path in folder.iterdir()} >= {"circuit.json", "circuit.html"}
    assert read_annotations(folder / "annotations.jsonl") == notes
    page = (folder / "circuit.html").read_text()
    assert "days" in page and "Top activations" in page


@pytest.mark.slow
def test_glassllm_has_behaviours():
    pytest.importorskip("glassllm")
    from jaxcirc import load_model

    model, tokenizer = load_model("glassllm-en")
    text = experiments.contexts_of(model, tokenizer, tokens=32_768, length=64, stream="judge")
    found = next_tokens(model, tokenizer, text, 12, behaviours=1)
    difference = found[0].evaluation
    assert len(difference) >= 6 and found[0].name.startswith(NEXT)


def test_agreement_splits_share_no_noun(smollm2):
    model, tokenizer = smollm2
    split = split_of(model, tokenizer, "agreement_across", 6, known=False)
    lengths = {int(n) for x in (split.discovery, split.evaluation) for n in x.lengths}
    assert lengths == {6}
    sides = [set(np.asarray(x.templates).tolist()) for x in (split.discovery, split.evaluation)]
    assert not sides[0] & sides[1] and len(split.discovery) == len(split.evaluation) == 6


SHAPES = {
    "pythia-70m-deduped": (
        dict(n_layers=6, d_model=512, n_heads=8, n_kv_heads=8, d_head=64, d_mlp=2048, vocab=50304)
        | dict(norm="layer", gated=False, parallel=True, biases=True, tied=False),
        ("attn_out", "mlp_out", "resid_post"),
        32768,
    ),
    "gemma-2-2b": (
        dict(n_layers=26, d_model=2304, n_heads=8, n_kv_heads=4, d_head=256, d_mlp=9216)
        | dict(vocab=256000, post_norm=True, window=4096, soft_cap=50.0),
        ("z", "mlp_out", "resid_post"),
        16384,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_the_papers_models_trace_at_their_own_sizes(name):
    """Whole programs at the preset's shapes, without the memory: scores' runs and faithfulness."""
    shape, sites, features = SHAPES[name]
    assert subjects_of("paper", name)[0].start < shape["n_layers"]

    def build(key):
        model = toy(key, **shape)
        wide = {"z": shape["n_heads"] * shape["d_head"]}
        coded = {
            f"{site}.{i}": L1(init_coder(key, wide.get(site, shape["d_model"]), features))
            for i in range(shape["n_layers"])
            for site in sites
        }
        fitted = {p: Heads(d, shape["n_heads"]) if p[0] == "z" else d for p, d in coded.items()}
        return model, Basis.of(model, fitted)

    model, basis = eqx.filter_eval_shape(build, jax.random.key(0))
    objective = Behaviour(logit_difference)
    runs = begin.eval_shape(model, objective, basis, pairs(), None, patch="counterfactual")
    assert len(runs.at) == len(sites) * shape["n_layers"]
    kept = tuple(jnp.ones((2, 7, features + 1), bool) for _ in basis.places)
    found = _values.eval_shape(model, objective, runs, kept, places=basis.places)
    assert found.shape == (2, 3)
