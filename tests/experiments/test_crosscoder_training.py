"""Crosscoders from a place name to a file and a judgement, like every other architecture."""

import json

import jax
import numpy as np
import pytest
from cases import tiny
from random_text import Words, made

from jaxcirc import experiments, models
from jaxcirc.cli import main
from jaxcirc.dictionaries import Config, Crosscoder, load_dictionary
from jaxcirc.dictionaries.train import Contexts, Stream
from jaxcirc.experiments.dictionaries import collect, evaluate, feature_page, probe

PLACE = "resid_post.0+resid_post.2"
SMALL = {"d_dict": 24, "batch": 64, "tokens": 640, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def model():
    return tiny("grouped")


def text(rows: int = 160) -> Contexts:
    """Whole rows, so that there are tokens enough."""
    found = made(2 * rows).take(slice(rows))
    return found


@pytest.fixture(scope="module", params=[None, 3], ids=["penalty", "k"])
def trained(request, model, tmp_path_factory):
    """A crosscoder's file and its card."""
    source = Stream(model, text(), [PLACE], batch=64, block=16, rows=8)
    config = Config("crosscoder", k=request.param, **SMALL)
    folder = tmp_path_factory.mktemp("run")
    (path,) = experiments.train_dictionaries(source, [config], folder)
    return *load_dictionary(path), source


def test_its_card_has_the_sinks_of_every_site_and_no_single_one(trained):
    dictionary, card, source = trained
    assert isinstance(dictionary, Crosscoder) and card["place"] == PLACE
    assert card["sink_norm"] == source.sink_norm and len(card["sink_norm"]) == 2
    assert "site" not in card and "layer" not in card
    assert dictionary.directions.shape == (24, 2, 16) and dictionary.units.shape == (2,)
    assert card["config"]["k"] == dictionary.k


def test_it_is_judged_where_it_was_trained(model, trained):
    dictionary, card, _ = trained
    options = {"sink_norm": card["sink_norm"], "components": (2,), "batch": 8, "card": card}
    found = evaluate(model, dictionary, made(32, seed=4), PLACE, **options)
    assert found.task == "resid_post.0-and-resid_post.2" and len(found.table) == 3
    assert 0 < found.numbers["fve"].value < 1 and found.numbers["nats"].n > 0
    if dictionary.k is not None:
        assert found.numbers["l0"].value == pytest.approx(3, rel=0.5)


def test_its_features_have_codes_and_pages_but_no_logits(model, trained):
    dictionary, card, _ = trained
    at = {"sink_norm": card["sink_norm"], "batch": 8}
    codes = collect(model, dictionary, made(32), PLACE, **at)
    page = feature_page(model, Words(), dictionary, made(32), PLACE, **at)
    assert [f.density for f in page.features] == pytest.approx(codes.density.tolist())
    assert all(feature.top == () for feature in page.features)
    mean = np.stack([codes.dense(i).sum(axis=1) for i in range(24)], axis=1)
    best = int(mean.std(axis=0).argmax())
    labels = mean[:, best] > np.median(mean[:, best])
    found = probe(model, dictionary, made(32), labels, PLACE, ks=(24,), **at)
    assert str(best) in found.table[0]["features"].split(", ")
    assert found.numbers["dictionary_24"].value > found.numbers["chance"].value + 0.1


def test_sites_of_unlike_width_do_not_stand_side_by_side(model):
    with pytest.raises(ValueError, match="only sites of one width stand side by side"):
        Stream(model, text(), ["resid_post.0+mlp_post.0"])


def test_a_crosscoder_has_no_other_targets(model, tmp_path):
    source = Stream(model, text(), [f"{PLACE}>mlp_out.0+mlp_out.2"], batch=64, block=16, rows=8)
    with pytest.raises(ValueError, match="without >"):
        experiments.train_dictionaries(source, [Config("crosscoder", **SMALL)], tmp_path / "run")


def test_the_command_reads_all_layers_at_once(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda name: {"tiny": (model, Words())}[name])
    rng = np.random.default_rng(0)
    lines = [{"text": " ".join(map(str, rng.integers(1, 50, 60)))} for _ in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = "--model tiny --architecture crosscoder --site resid_post --layer 0 2 --text a.jsonl"
    sizes = "--tokens 320 --batch 32 --context 8 --d-dict 24 --k 3 --out runs --no-page"
    main(["sae", "train", *given.split(), *sizes.split()])
    jax.config.update("jax_compilation_cache_dir", None)
    (file,) = (tmp_path / "runs").glob("sae-*/*.safetensors")
    dictionary, card = load_dictionary(file)
    assert isinstance(dictionary, Crosscoder) and dictionary.k == 3 and card["place"] == PLACE
