"""Many dictionaries on some texts: the numbers of `evaluate`, from shared runs."""

import json

import jax
import numpy as np
import pytest
from cases import tiny
from random_text import Words, made

from jaxcirc import experiments, models, viz
from jaxcirc.cli import main
from jaxcirc.dictionaries import TopK, Transcoder, init_coder, init_crosscoder
from jaxcirc.dictionaries.formats import save
from jaxcirc.experiments.dictionaries import OtherWeights, evaluate, table

BATCH = 7
CARD = {"sink_norm": 1e3, "model": "tiny", "context": 8}


@pytest.fixture(scope="module")
def model():
    return tiny("grouped")


@pytest.fixture(scope="module")
def loaded():
    """An autoencoder, a transcoder and a crosscoder, in no order."""
    keys = jax.random.split(jax.random.key(0), 3)
    across = Transcoder(TopK(init_coder(keys[1], 16, 24, centred=False), 2))
    both = init_crosscoder(keys[2], 2, 16, 24)
    return {
        "both": (both, CARD | {"place": "resid_post.1+resid_post.2"}),
        "one": (TopK(init_coder(keys[0], 16, 24), 3), CARD | {"site": "resid_post", "layer": 0}),
        "across": (across, CARD | {"place": "mlp_normed.1>mlp_out.1"}),
    }


@pytest.fixture(scope="module")
def found(model, loaded):
    texts = {"first": made(32), "second": made(32, seed=3)}
    return table(model, loaded, texts, name="tiny", components=(2,), tokens=80, batch=BATCH)


def test_rows_come_by_text_and_in_the_order_of_a_run(found):
    rows = [(row["section"], row["place"], row["dictionary"]) for row in found.table]
    of = ("dictionary", "pca-2", "random")
    names = [(place, name) for place in ("one", "across", "both") for name in of]
    assert rows == [(text, *name) for text in ("first", "second") for name in names]


def test_a_dictionary_has_the_numbers_that_evaluate_gives_it(model, loaded, found):
    for name in ("one", "across"):
        dictionary, card = loaded[name]
        place = card.get("place", "resid_post.0")
        alone = evaluate(
            model, dictionary, made(32), place, sink_norm=1e3, components=(2,), batch=BATCH
        )
        for what in ("l0", "fve", "nats", "kl", "dead"):
            here, there = found.numbers[f"first/{name}/{what}"], alone.numbers[what]
            assert here.value == pytest.approx(there.value, abs=2e-5), what
            assert here.n == there.n and here.clusters == there.clusters
        assert found.facts["texts"]["first"]["reference_hash"] == alone.facts["reference_hash"]


def test_baselines_are_spliced_on_a_part_and_saved_compares_the_same_tokens(model, loaded):
    texts = {"a": made(32)}
    some = {"one": loaded["one"]}
    whole, part = (
        table(model, some, texts, components=(2,), tokens=n, batch=BATCH) for n in (10**6, 80)
    )
    rows = [{row["dictionary"]: row for row in each.table} for each in (whole, part)]
    assert rows[0]["pca-2"]["tokens"] == rows[0]["dictionary"]["tokens"]
    assert rows[1]["pca-2"]["tokens"] < rows[1]["dictionary"]["tokens"]
    assert rows[0]["dictionary"]["tokens"] == rows[1]["dictionary"]["tokens"]
    numbers = whole.numbers
    saved = 1 - numbers["a/one/nats"].value / numbers["a/one/pca_2_nats"].value
    assert numbers["a/one/saved"].value == pytest.approx(saved, rel=1e-6)


def test_a_table_is_written_drawn_and_read_back(found, tmp_path):
    written = {path.name for path in viz.write(found, tmp_path)}
    assert {"result.json", "table.csv", "nats.png", "index.html"} <= written
    again = experiments.load_result(tmp_path)
    assert again.table == found.table and again.numbers["first/one/nats"].n > 0
    with pytest.raises(ValueError, match="use jaxcirc.viz.suite_picture"):
        viz.dictionary_picture(found)
    labels = [text.get_text() for text in viz.suite_picture(found).axes[0].get_yticklabels()]
    assert labels == ["one", "across", "both"]


def test_what_cannot_be_judged(model, loaded):
    with pytest.raises(ValueError, match="no dictionaries"):
        table(model, {}, {"a": made(32)})
    with pytest.raises(ValueError, match="bare names no place"):
        table(model, {"bare": (loaded["one"][0], {})}, {"a": made(32)})


def test_other_weights_are_warned_of_once(model, loaded):
    dictionary, card = loaded["one"]
    two = {"x": (dictionary, card | {"sha256": "cd" * 32}), "y": (dictionary, card)}
    with pytest.warns(OtherWeights, match="weights cdcd.*FVE .* there") as said:
        result = table(model, two, {"a": made(32)}, components=(2,), tokens=80, batch=BATCH)
    assert len([each for each in said if each.category is OtherWeights]) == 1
    assert result.notes[0].startswith("Trained on weights cdcd")


def test_the_command_takes_a_folder_and_texts_apart(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda name: {"tiny": (model, Words())}[name])
    for layer in (1, 0):
        card = CARD | {"place": f"resid_post.{layer}"}
        dictionary = TopK(init_coder(jax.random.key(layer), 16, 24), 3)
        save(dictionary, tmp_path / "own" / f"resid_post.{layer}.safetensors", card)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        lines = [{"text": " ".join(map(str, rng.integers(1, 50, 40)))} for _ in range(12)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    sizes = ["--tokens", "160", "--baseline-tokens", "64", "--components", "2"]
    main(["sae", "table", "own", "--text", "a.jsonl", "--text", "b.jsonl", *sizes])
    jax.config.update("jax_compilation_cache_dir", None)
    (folder,) = (tmp_path / "runs").iterdir()
    result = experiments.load_result(folder)
    assert result.kind == "suite" and result.task == "own" and folder.name.startswith("own-")
    assert [row["place"] for row in result.table[:6:3]] == ["resid_post.0", "resid_post.1"]
    assert {row["section"] for row in result.table} == {"a", "b"}
    assert "pca-2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("nowhere", "no folder nowhere, nor a suite of that name"),
        ("empty", "empty holds no dictionaries"),
    ],
)
def test_folders_without_dictionaries(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=message):
        main(["sae", "table", arguments])
    jax.config.update("jax_compilation_cache_dir", None)


def test_shared_runs_do_not_depend_on_what_else_is_judged(model, loaded, found):
    """The same place alone, whose run begins at another layer, and is read at fewer spots."""
    texts = {"first": made(32)}
    alone = table(
        model, {"one": loaded["one"]}, texts, components=(2,), tokens=80, batch=BATCH
    ).numbers
    for what in ("nats", "pca_2_nats", "random_nats", "random_fve", "saved"):
        value = found.numbers[f"first/one/{what}"].value
        assert alone[f"first/one/{what}"].value == pytest.approx(value, abs=2e-4), what
