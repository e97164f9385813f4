"""Dictionaries by name: the manifest decides, and what is shipped here is what it says."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from format_cases import CASES, FACTS, coder, inputs

from jaxcirc.dictionaries import TopK, formats, load_dictionary, shipped, shipped_places
from jaxcirc.dictionaries.formats import _shipped
from jaxcirc.experiments import Result
from jaxcirc.tasks import Interval

PLACES = ("mlp_out.3", "resid_pre.3")
SOURCE = {"release": "tiny==1.0", "licence": "MIT"}
ROOT = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def maker():
    """The script that makes the suites, as a module."""
    spec = importlib.util.spec_from_file_location("make_suites", ROOT / "make_suites.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(maker, tmp_path, monkeypatch):
    """A folder of suites with one suite of two dictionaries."""
    for i, place in enumerate(PLACES):
        facts = FACTS | {"place": place, "sha256": "ab" * 32, "config": {"k": 4}, "tokens": 100}
        path = tmp_path / "tiny" / f"{place}.safetensors"
        formats.save(TopK(coder(i), 4), path, facts | {"sink_norm": 9.0 + i}, storage="float16")
    maker.seal(tmp_path, "tiny", SOURCE)
    monkeypatch.setattr(_shipped, "suites_folder", lambda: tmp_path)
    return tmp_path


def test_a_dictionary_by_its_name(root):
    assert shipped_places("tiny") == PLACES
    one, facts = shipped("tiny", "mlp_out.3")
    other, same = load_dictionary("tiny/mlp_out.3", expect={"layer": 3, "d_in": 8})
    assert facts == same and facts["place"] == "mlp_out.3" and facts["format"] == "native"
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    third, _ = shipped("tiny", "resid_pre.3", root)
    x = inputs(CASES["topk"])
    assert np.abs(np.asarray(one.encode(x) - third.encode(x))).max() > 0.1


def test_a_file_that_has_changed_is_refused(root):
    path = root / "tiny" / "mlp_out.3.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for load in (lambda: shipped("tiny", "mlp_out.3"), lambda: load_dictionary("tiny/mlp_out.3")):
        with pytest.raises(ValueError, match="the manifest says .*: get it again") as caught:
            load()
        assert "\n" not in str(caught.value)
    shipped("tiny", "resid_pre.3")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="get checkpoints/suites of the repository again"):
        shipped("tiny", "mlp_out.3")


def test_names_that_are_not_known(root):
    with pytest.raises(ValueError, match="no suite 'huge': there are tiny"):
        shipped("huge", "mlp_out.3")
    with pytest.raises(ValueError, match="its places are mlp_out.3, resid_pre.3"):
        load_dictionary("tiny/mlp_out.4")
    with pytest.raises(FileNotFoundError, match="the name of a shipped one, tiny/mlp_out.3"):
        load_dictionary("small/mlp_out.3")


def test_without_the_folder_it_is_said_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(_shipped, "suites_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="not in the wheel, get checkpoints/suites"):
        shipped("tiny", "mlp_out.3")
    with pytest.raises(FileNotFoundError, match="get checkpoints/suites of the repository"):
        load_dictionary("tiny/mlp_out.3")


def test_the_card_says_what_the_files_are(root):
    card = json.loads((root / "tiny" / "card.json").read_text())
    assert card["model"] == {"name": "gpt2", "sha256": "ab" * 32} | SOURCE
    assert [text["repository"] for text in card["text"]] == [
        "mlschmitt/classic-books-markdown",
        "python/peps",
    ]
    assert card["recipe"] == {"k": 4} and card["tokens"] == 100 and card["expected"] == {}
    assert card["sink_norm"] == {"mlp_out.3": 9.0, "resid_pre.3": 10.0}
    manifest = json.loads((root / "manifest.json").read_text())["tiny"]
    for place, entry in card["places"].items():
        assert manifest[place] == {"file": entry["file"], "sha256": entry["sha256"]}
        assert formats.sha256_of(root / entry["file"]) == entry["sha256"]
        assert (entry["d_in"], entry["d_dict"]) == (8, 24)


def run_of_table(folder, place="mlp_out.3"):
    """What `sae table` writes, as far as it is read."""
    number = Interval(0.25, 0.2, 0.3, 10, 9)
    names = ("nats", "fve", "pca_64_nats", "kl", "pca_64_fve")
    numbers = {f"books/{place}/{name}": number for name in names}
    return Result("suite", "tiny", numbers, [], {}, {}, {}, {}).save(folder)


def test_numbers_to_expect_come_from_a_table_and_go_with_the_files(maker, root, tmp_path):
    maker.seal(root, "tiny", SOURCE, run_of_table(tmp_path / "run"))
    read = lambda: json.loads((root / "tiny" / "card.json").read_text())["expected"]  # noqa: E731
    numbers = {"nats": 0.25, "FVE": 0.25, "pca_64_nats": 0.25}
    assert read() == {"books": {"mlp_out.3": numbers}}
    maker.seal(root, "tiny", SOURCE)
    assert read() == {"books": {"mlp_out.3": numbers}}
    facts = FACTS | {"config": {}, "sha256": "ab" * 32}
    formats.save(TopK(coder(9), 4), root / "tiny" / "mlp_out.3.safetensors", facts)
    maker.seal(root, "tiny", SOURCE)
    assert read() == {}
    with pytest.raises(SystemExit, match="has z.0, which the suite has not"):
        maker.seal(root, "tiny", SOURCE, run_of_table(tmp_path / "other", "z.0"))


HERE = [(suite, place) for suite in formats.shipped_suites() for place in shipped_places(suite)]


@pytest.mark.skipif(not HERE, reason="no suites in checkpoints/")
def test_what_is_shipped_here_loads_and_has_its_shape(maker):
    for suite, place in HERE:
        dictionary, facts = shipped(suite, place)
        wanted = maker.SUITES[suite]
        assert place in wanted["places"] and facts["suite"] == suite
        assert dictionary.d_dict == wanted["config"].d_dict and facts["place"] == place
        assert dictionary.directions.shape == (dictionary.d_dict, dictionary.d_in)
        assert facts["sink_norm"] > 0 and facts["model"] == wanted["model"]
    for suite in {suite for suite, _ in HERE}:
        assert set(shipped_places(suite)) == set(maker.SUITES[suite]["places"])
