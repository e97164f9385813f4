"""Dictionaries of the Hugging Face Hub, by a stand-in for its client: few files, clear errors."""

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from format_cases import CASES

from jaxcirc.cli._sae_judge import Subject
from jaxcirc.dictionaries import load_dictionary, save_dictionary
from jaxcirc.dictionaries.formats._hub import HubFile, parse_hub_file

RELEASE = "google/gemma-scope-2b-pt-transcoders"
LAYER = "layer_3/width_24/average_l0_4"
FACTS = {"model": "gpt2", "site": "resid_pre", "layer": 8}


class Hub:
    """What `huggingface_hub` does: files that match a pattern, copied to a folder it keeps."""

    def __init__(self, folder: Path):
        self.folder, self.kept, self.asked = folder / "hub", folder / "kept", []

    def snapshot_download(self, repo, *, revision, allow_patterns):
        if not (self.folder / repo).is_dir():
            raise ConnectionError("Name or service not known\nand more lines")
        self.asked.append((repo, revision))
        kept = self.kept / f"models--{repo.replace('/', '--')}" / "snapshots" / "0a1b2c"
        for file in (self.folder / repo).rglob("*"):
            name = str(file.relative_to(self.folder / repo))
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (kept / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, kept / name)
        kept.mkdir(parents=True, exist_ok=True)
        return str(kept)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    found = Hub(tmp_path)
    client = SimpleNamespace(snapshot_download=found.snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return found


def same(one, other) -> bool:
    leaves = (jax.tree.leaves(each) for each in (one, other))
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_names():
    assert parse_hub_file("hub:a/b") == HubFile("a/b")
    assert parse_hub_file(Path("hub:a/b@v1/c/d.npz")) == HubFile("a/b", "c/d.npz", "v1")
    assert str(parse_hub_file("hub:a/b@v1/c/d.npz")) == "hub:a/b@v1/c/d.npz"
    for words in ("hub:", "hub:a", "hub:a/", "hub:a b/c"):
        with pytest.raises(ValueError, match=r"write hub:OWNER/NAME\[@REVISION\]\[/PATH\]"):
            load_dictionary(words)


@pytest.mark.parametrize(
    "format, name",
    [
        ("saelens", "blocks.8.hook_resid_pre"),
        ("saelens", ""),
        ("native", "a/resid_pre.8.safetensors"),
    ],
)
def test_one_of_many_is_fetched_with_what_belongs_to_it(hub, format, name):
    own, other = CASES["topk"], hub.folder / "a/b/blocks.9.hook_resid_pre"
    save_dictionary(own, hub.folder / "a/b" / name, format, FACTS)
    save_dictionary(own, other, "saelens", FACTS)
    dictionary, facts = load_dictionary(f"hub:a/b@v2/{name}".rstrip("/"), expect={"layer": 8})
    assert same(dictionary, own) and facts["format"] == format
    assert facts["source"] == f"hub:a/b@v2/{name}".rstrip("/") and hub.asked == [("a/b", "v2")]
    assert not list(hub.kept.rglob(other.name))


def test_a_path_tells_the_site_as_it_does_in_the_repository(hub):
    path = hub.folder / RELEASE / LAYER
    save_dictionary(CASES["to_jumprelu"], path, "gemma_scope", FACTS)
    dictionary, facts = load_dictionary(f"hub:{RELEASE}/{LAYER}")
    assert same(dictionary, load_dictionary(path)[0])
    assert (facts["model"], facts["layer"], facts["site_out"]) == ("gemma-2-2b", 3, "mlp_out")
    name = Subject(Path(f"hub:{RELEASE}/{LAYER}")).name
    assert name == f"google-gemma-scope-2b-pt-transcoders-{LAYER.replace('/', '-')}"


def test_a_configuration_above_is_found(hub):
    folder = save_dictionary(CASES["topk"], hub.folder / "a/b/x", "dictionary_learning", FACTS)
    (folder / "checkpoints").mkdir()
    (folder / "ae.pt").rename(folder / "checkpoints" / "ae_100.pt")
    _, facts = load_dictionary("hub:a/b/x/checkpoints/ae_100.pt")
    assert facts["model"] == "gpt2"


@pytest.mark.parametrize(
    "words, said",
    [
        ("hub:a/none", r"^cannot download hub:a/none \(Name or service not known\): check the"),
        ("hub:a/b", r"^there is no dictionary at hub:a/b: name its folder .*, hub:a/b/PATH$"),
        ("hub:a/b/y", r"^there is no dictionary at hub:a/b/y: name its folder"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(words, said, hub):
    save_dictionary(CASES["topk"], hub.folder / "a/b/x", "saelens", FACTS)
    with pytest.raises(FileNotFoundError, match=said) as caught:
        load_dictionary(words)
    assert "\n" not in str(caught.value)


def test_without_the_client_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r'^hub:a/b needs .*: pip install "jaxcirc\[hub\]"'):
        load_dictionary("hub:a/b")
