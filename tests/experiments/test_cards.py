"""What cards say, and what text a dictionary is judged on."""

import warnings
from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest
from cases import tiny
from random_text import Words, made

from jaxcirc import experiments
from jaxcirc.cli._sae_judge import Subject
from jaxcirc.dictionaries import L1, Config, TopK, Transcoder, init_coder, load_dictionary
from jaxcirc.dictionaries.formats import save_dictionary
from jaxcirc.dictionaries.train import Stream
from jaxcirc.dictionaries.train._source import differences
from jaxcirc.experiments._train import card_of
from jaxcirc.experiments.dictionaries import OtherWeights, other_weights, place_of, processed
from jaxcirc.experiments.dictionaries._evaluate import trained_on
from jaxcirc.experiments.dictionaries._suite import subjects_of
from jaxcirc.models import process

LENGTH = 8


@pytest.fixture(scope="module")
def model():
    return tiny("grouped")


def transcoder(kind) -> Transcoder:
    coder = init_coder(jax.random.key(0), 16, 24, centred=False)
    return Transcoder(kind(coder) if kind is L1 else kind(coder, 2))


@pytest.mark.parametrize(
    "format, kind, name",
    [
        ("saelens", L1, "folder"),
        ("gemma_scope_2", L1, "folder"),
        ("circuit_tracer", L1, "layer_1.safetensors"),
        ("sparsify", TopK, "layers.1.mlp"),
        ("gemma_scope", L1, "gemma-scope-2b-pt-transcoders/layer_1/width_24/average_l0_2"),
    ],
)
def test_transcoders_of_other_formats_read_and_write_at_their_own_sites(
    format, kind, name, model, tmp_path
):
    facts = {"model": "tiny", "site": "mlp_normed", "layer": 1, "site_out": "mlp_out"}
    path = save_dictionary(transcoder(kind), tmp_path / name, format, facts)
    dictionary, card = load_dictionary(path)
    assert place_of(card) == "mlp_normed.1>mlp_out.1" == Subject(path).at(card)["place"]
    (subject,) = subjects_of(model, {"it": (dictionary, card)})
    assert str(subject.where.place) == "mlp_normed.1>mlp_out.1"


def test_places_of_cards():
    assert place_of({"place": "a.1+a.2", "site": "a", "layer": 1}) == "a.1+a.2"
    assert place_of({"site": "a", "layer": 0}) == "a.0"
    ends = {"site": "a", "layer": 0, "site_out": "b", "layer_out": 3}
    assert place_of(ends) == "a.0>b.3"
    assert place_of({"site": "embed"}) is None


def test_text_to_judge_on_is_not_text_to_train_on(model, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path))
    flat = eqx.tree_at(lambda m: m.embed, model, 0.05 * model.embed)  # few rows come by twice
    draw = partial(experiments.contexts_of, flat, Words(), tokens=40 * LENGTH, length=LENGTH)
    train = draw()
    subject = Subject(tmp_path, tokens=40 * LENGTH, context=LENGTH)
    judge = subject.contexts(flat, Words(), {}, lambda *_: None)
    rows = [set(map(tuple, each.tokens.tolist())) for each in (train, judge)]
    assert len(rows[0]) == len(rows[1]) == 40 and not rows[0] & rows[1]
    again = draw()
    np.testing.assert_array_equal(again.tokens, train.tokens)
    assert again.sources == train.sources
    card = {"text": list(train.sources)}
    assert trained_on(train, card) and not trained_on(judge, card)


def test_a_draw_cut_off_goes_on_where_it_was(model, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path))
    draw = partial(experiments.contexts_of, model, Words(), length=LENGTH)

    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt(done)

    with pytest.raises(KeyboardInterrupt, match="128"):
        draw(tokens=200 * LENGTH, progress=stop)
    (file,) = (tmp_path / "contexts").rglob("*.npy")
    made = file.stat().st_mtime_ns
    whole = draw(tokens=200 * LENGTH)
    assert len(whole) == 200 and file.stat().st_mtime_ns == made
    np.testing.assert_array_equal(whole.tokens[:128], np.load(file))
    np.testing.assert_array_equal(draw(tokens=40 * LENGTH).tokens, whole.tokens[:40])


def test_contexts_begin_as_the_card_says(model, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(experiments, "contexts_of", lambda *_, **asked: seen.append(asked["bos"]))
    for asked in (True, False, None):
        card = {} if asked is None else {"prepend_bos": asked}
        Subject(tmp_path).contexts(model, Words(), card, None)
    Subject(tmp_path, bos="always").contexts(model, Words(), {"prepend_bos": False}, None)
    assert seen == ["always", "never", "model", "always"]


PROCESSING = {
    "centred": {"center_writing_weights": True, "center_unembed": True, "fold_ln": False},
    "tl": {"fold_ln": True, "center_writing_weights": True, "fold_value_biases": True},
    "raw": {"center_writing_weights": False},
}


@pytest.mark.parametrize("mode, asked", PROCESSING.items(), ids=PROCESSING)
def test_weights_are_processed_as_those_of_training(mode, asked, tmp_path):
    layered = tiny("learned")
    dictionary = L1(init_coder(jax.random.key(0), 16, 24))
    facts = {"processing": asked, "prepend_bos": True, "context": 64}
    _, card = load_dictionary(save_dictionary(dictionary, tmp_path / "d", "saelens", facts))
    assert card["prepend_bos"] is True and card["context"] == 64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = processed(layered, card)
        assert processed(layered, {"processing": mode}).config == found.config
    assert found.config.processing == mode
    wanted = process(layered, mode)
    np.testing.assert_array_equal(found.blocks.attn.w_o, wanted.blocks.attn.w_o)


def test_weights_processed_otherwise_are_warned_of_where_they_are_used():
    layered, sha256 = tiny("learned"), tiny("learned").config.sha256
    contexts = made(8)
    facts = Stream(process(layered, "tl"), contexts, ["resid_post.0"], batch=16).facts
    card = card_of("resid_post.0", Config("l1", d_dict=24), facts)
    assert card["processing"] == "tl" and card["sha256"] == sha256
    with pytest.warns(OtherWeights, match="processed by tl, used on 'raw' ones: processed"):
        assert len(other_weights(layered, card)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert other_weights(processed(layered, card), card) == []
        assert other_weights(layered, Stream(layered, contexts, ["z.0"], batch=16).facts) == []


def test_processing_is_written_in_the_words_of_transformer_lens(tmp_path):
    dictionary = L1(init_coder(jax.random.key(0), 16, 24))
    for mode in ("tl", "centred"):
        path = save_dictionary(dictionary, tmp_path / mode, "saelens", {"processing": mode})
        _, card = load_dictionary(path)
        assert processed(tiny("learned"), card).config.processing == mode
        assert card["processing"]["center_writing_weights"] is True


def test_runs_of_before_processing_was_recorded_go_on():
    raw = {"source.processing": "raw", "source.model": "tiny"}
    assert differences({"source.model": "tiny"}, raw) == ""
    assert "processing raw, now tl" in differences(raw, raw | {"source.processing": "tl"})


def test_processing_that_cannot_be_done_is_said(model):
    layered = tiny("learned")
    with pytest.warns(OtherWeights, match="fold_ln.*used on 'raw' ones: no such"):
        assert processed(layered, {"processing": {"fold_ln": True}}) is layered
    with pytest.warns(OtherWeights, match="used on 'tl' ones: .*processed already"):
        processed(process(layered, "tl"), {"processing": PROCESSING["centred"]})
    with warnings.catch_warnings():  # the stream is read without LayerNorm: nothing to centre
        warnings.simplefilter("error")
        assert processed(model, {"processing": PROCESSING["centred"]}) is model
