"""Data sets of the Hugging Face Hub as text, by a stand-in for `datasets`, and a local one."""

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro
from cases import tiny
from letters import Letters

from jaxcirc import experiments
from jaxcirc.cli._acts import Acts
from jaxcirc.dictionaries.train import excerpts, read_texts
from jaxcirc.dictionaries.train._hub import HubText, parse_hub


class Hub:
    """What `datasets` does: rows by name, counted as they are read."""

    def __init__(self, **sets):
        self.sets, self.asked, self.rows_read = sets, [], 0

    def load_dataset(self, name, config=None, *, split, streaming):
        assert streaming
        self.asked.append((name, config, split))
        if name not in self.sets:
            raise ConnectionError("offline mode is enabled\nand more lines")
        return self._rows(self.sets[name])

    def _rows(self, rows):
        for row in rows:
            self.rows_read += 1
            if isinstance(row, Exception):
                raise row
            yield row


@pytest.fixture
def hub(monkeypatch):
    endless = ({"text": f"line {i} of it", "id": i} for i in itertools.count())
    found = Hub(
        **{
            "a/few": [{"text": "one"}, {"text": " "}, {"text": None}, {"text": "two"}],
            "a/endless": endless,
            "a/body": [{"id": 1, "body": "a text"}],
            "a/broken": [{"text": "one"}, RuntimeError("")],
        }
    )
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=found.load_dataset))
    return found


def test_names_of_data_sets():
    assert parse_hub("hub:a/b") == HubText("a/b", None, "train", "text")
    assert parse_hub("hub:a/b:en") == HubText("a/b", "en")
    assert parse_hub("hub:a/b:en:test") == HubText("a/b", "en", "test")
    assert parse_hub("hub:a/b::test") == HubText("a/b", None, "test")
    assert parse_hub("hub:a/b:::body") == HubText("a/b", None, "train", "body")
    for words in ("hub:", "hub:a/b:1:2:3:4"):
        with pytest.raises(ValueError, match=r"write hub:OWNER/NAME\[:CONFIG"):
            parse_hub(words)


def test_documents_bear_the_name_and_empty_ones_are_left_out(hub):
    found = list(read_texts(Path("hub:a/few:en:test")))
    assert found == [("a/few", "one"), ("a/few", "two")]
    assert hub.asked == [("a/few", "en", "test")]


def test_nothing_is_read_ahead(hub):
    documents = read_texts("hub:a/endless")
    assert [next(documents).text for _ in range(3)] == [f"line {i} of it" for i in range(3)]
    assert hub.rows_read == 3


def test_of_an_endless_one_the_beginning_is_read(hub):
    found = excerpts(read_texts("hub:a/endless", most=100), characters=100)
    assert sum(len(document.text) for document in found) == 100
    assert hub.rows_read == len(found) == 9 and found[0].text == "line 0 of it"


def test_beside_files_both_give(hub, tmp_path):
    lines = [json.dumps({"text": f"line {i} of a file"}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = excerpts(read_texts(tmp_path, "hub:a/endless", most=500), characters=500)
    sizes = [sum(len(d.text) for d in found if d.source == s) for s in ("a.jsonl", "a/endless")]
    assert 100 < min(sizes) and 400 < sum(sizes) < 600


@pytest.mark.parametrize(
    "words, said",
    [
        ("hub:a/body", r"no text in \"text\": its fields are id, body; --text hub:a/body::train:b"),
        ("hub:a/body:::id", r"no text in \"id\""),
        ("hub:a/none", r"cannot read hub:a/none::train:text \(offline mode is enabled\): check"),
        ("hub:a/broken", r"cannot read hub:a/broken::train:text \(RuntimeError\): check"),
        ("hub:a/few:::text:x", "write hub:OWNER/NAME"),
    ],
)
def test_what_cannot_be_read_is_one_line(words, said, hub):
    with pytest.raises(ValueError, match=said) as caught:
        list(read_texts(words))
    assert "\n" not in str(caught.value)


def test_the_field_that_is_named_works(hub):
    assert list(read_texts("hub:a/body::train:body")) == [("a/body", "a text")]


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'^a/b needs datasets: pip install "jaxcirc\[data\]"$'):
        next(read_texts("hub:a/b"))


def test_from_the_command_line_to_contexts(hub):
    text = tyro.cli(Acts, args=["save", "--text", "hub:a/endless"]).text
    found = experiments.contexts_of(tiny("grouped"), Letters(), text, tokens=40, length=10)
    assert 40 <= found.mask[:, 1:].sum() < 50 and set(found.sources) == {"a/endless"}
    assert hub.rows_read < 40
    with pytest.raises(FileNotFoundError, match="no file or folder a/endless"):
        next(read_texts(Path("a/endless")))


def test_a_data_set_on_disk(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [{"text": f"text {i}", "n": i} for i in range(5)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = list(read_texts(f"hub:{folder}"))
    assert [document.text for document in found] == [line["text"] for line in lines]
    with pytest.raises(ValueError, match="its fields are text, n"):
        next(read_texts(f"hub:{folder}:::body"))
    with pytest.raises(ValueError, match="cannot read") as caught:
        next(read_texts(f"hub:{folder}::nosuch"))
    assert "\n" not in str(caught.value)
