"""What the commands on feature circuits refuse, they refuse before a model or a text is loaded."""

import json

import jax
import pytest

from jaxcirc import experiments, models
from jaxcirc.cli import main
from jaxcirc.dictionaries.formats import _shipped

CIRCUIT, CLUSTERS, SHIFT = (f"features {name}" for name in ("circuit", "clusters", "shift"))
STUDY = "reproduce sparse-feature-circuits"
SIMPLE = f"{CIRCUIT} agreement_simple"
JUDGED = {"version": 1, "task": "chess", "model": "toy", "decisions": {"mlp_out.1/2": "keep"}}


@pytest.fixture(autouse=True)
def nothing_is_loaded(tmp_path, monkeypatch):
    """A folder of its own, where loading anything fails; one empty and some wrong files."""

    def never(*_, **__):
        raise AssertionError("loaded before it was checked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", never)
    monkeypatch.setattr(experiments, "contexts_of", never)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.jsonl").write_text("{}\n")
    (tmp_path / "judged.json").write_text(json.dumps(JUDGED))
    (tmp_path / "picture.png").write_text("")
    yield
    jax.config.update("jax_compilation_cache_dir", None)


BAD = {
    f"{CIRCUIT} chess": "unknown task 'chess': the tasks are ioi",
    f"{CIRCUIT} next --tokens 0": "next: tokens of text are predicted; give --tokens 16384",
    f"{SIMPLE} --suite nowhere": "no folder nowhere, nor a suite of that name",
    f"{SIMPLE} --suite empty": "empty holds neither attn_out_layer0/",
    f"{SIMPLE} --text nowhere.txt": "nowhere.txt",
    f"{SIMPLE} --text empty": "no text in empty: give files of kind",
    f"{SIMPLE} --text picture.png": "picture.png",
    f"{SIMPLE} --notes notes.jsonl": "notes.jsonl, line 1: write",
    f"{SIMPLE} --n 2": "--n 2: a circuit is found on 4 prompts or more",
    f"{SIMPLE} --nodes 0": "nodes=0: give 1 or more",
    f"{SIMPLE} --tolerance 0": "tolerance=0.0: give a share above 0",
    f"{CLUSTERS} --suite nowhere": "no folder nowhere, nor a suite of that name",
    f"{CLUSTERS} --text nowhere.txt": "nowhere.txt",
    f"{CLUSTERS} --notes notes.jsonl": "notes.jsonl, line 1: write",
    f"{CLUSTERS} --nodes 9 3": "give numbers of nodes that rise",
    f"{CLUSTERS} --most 1": "most=1: give --most 2 or more",
    f"{CLUSTERS} --context 8": "--context 8: contexts of 8 tokens or more need --context 16",
    f"{SHIFT} --suite nowhere": "no folder nowhere, nor a suite of that name",
    f"{SHIFT} --suite empty": "empty holds neither attn_out_layer0/",
    f"{SHIFT} --head mlp_out.12": "'mlp_out.12': give a residual, as in resid_post.16",
    f"{SHIFT} --text nowhere.txt": "nowhere.txt",
    f"{SHIFT} --decisions judged.json": "judged.json is on 'chess', run are gender, tense",
    f"{STUDY} --model gpt2": "preset 'default' is for smollm2-135m, glassllm-en, not 'gpt2'",
    f"{STUDY} --preset paper": "pythia-70m-deduped has no shipped dictionaries: --dictionaries",
    f"{STUDY} --preset paper --dictionaries empty": "empty holds neither attn_out_layer0/",
    f"{STUDY} --text nowhere.txt": "nowhere.txt",
}


@pytest.mark.parametrize("command", BAD)
def test_it_is_refused_in_one_line(command, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    line = str(stop.value.code)
    assert line.startswith("jaxcirc: ") and "\n" not in line and BAD[command] in line
    assert not (tmp_path / "runs").exists()


def test_a_suite_that_is_not_there_stops_the_study(monkeypatch, tmp_path):
    monkeypatch.setattr(_shipped, "suites_folder", lambda: tmp_path / "empty")
    with pytest.raises(SystemExit, match="the suites are not in the wheel"):
        main(STUDY.split())


@pytest.mark.parametrize("words", ["--method exact", "--preset huge"])
def test_words_that_are_no_choice(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*STUDY.split(), *words.split()])
    assert stop.value.code == 2 and "invalid choice" in capsys.readouterr().err
