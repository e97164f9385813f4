"""`jaxcirc sae train` and `jaxcirc acts save`, from the command to the files."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import tiny
from random_text import Words, made
from safetensors.numpy import load_file

from jaxcirc import experiments, models
from jaxcirc.cli import _sae_train, main
from jaxcirc.dictionaries import load_dictionary

TRAIN: str = "sae train --d-dict 40 --tokens 150 --out"
TEXT: str = "--model tiny --text a.jsonl --layer 1 --context 8 --batch 32"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own with text in it, a small model, every step told of."""
    monkeypatch.chdir(tmp_path)
    loaded = {"tiny": (tiny("grouped"), Words())}
    monkeypatch.setattr(models, "load_model", lambda name: loaded[name])
    monkeypatch.setattr("jaxcirc.experiments._train.EVERY", 1)
    rng = np.random.default_rng(0)
    lines = [{"text": " ".join(map(str, rng.integers(1, 50, 60)))} for _ in range(60)]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def done(command: str) -> None:
    main(command.split())


def refused(command: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    return str(stop.value)


def files(out: str) -> list[Path]:
    return sorted(Path(out).glob("sae-*/*.safetensors"))


def test_a_population_is_stopped_and_goes_on_and_has_a_page(monkeypatch):
    @contextmanager
    def stopping(batch):
        yield lambda step, *_: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None

    command = f"{TRAIN} runs {TEXT} --k 3 --seed 0 1"
    with monkeypatch.context() as patched:
        patched.setattr(_sae_train, "bar", stopping)
        assert "stopped after step 4 of 5, which is saved in" in refused(
            command
        )  # four were read ahead
    (folder,) = Path("runs").iterdir()
    said = json.loads((folder / "run.json").read_text())
    assert [config["seed"] for config in said["configs"]] == [0, 1] and not files("runs")
    assert said["source"]["order"] == {"seed": 0, "block": 256, "rows": 16}
    done(command)
    done(f"{TRAIN} whole {TEXT} --k 3 --seed 0 1 --no-page")
    assert [path.name for path in files("runs")] == [
        "resid_post.1-0.safetensors",
        "resid_post.1-1.safetensors",
    ]
    for one, other in zip(files("runs"), files("whole"), strict=True):
        a, b = load_file(one), load_file(other)
        assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert {"resid_post.1/l0/0", "resid_post.1/dead/1"} <= set(lines[0])
    assert list(folder.glob("resid_post.1-0*/**/features.html"))
    assert not list(Path("whole").rglob("*.html"))


def test_activations_are_saved_once_and_trained_on_without_the_model(monkeypatch, capsys):
    save = f"acts save --place resid_post.1 --tokens 150 --dtype float32 {TEXT}"
    done(save.replace("--layer 1 ", ""))
    done(save.replace("--layer 1 ", ""))  # nothing is left to do
    index = json.loads(Path("acts/index.json").read_text())
    assert index["batch"] == 32 and sum(shard["batches"] for shard in index["shards"]) == 5
    monkeypatch.setattr(models, "load_model", None)
    stored = f"{TRAIN} runs --stored acts --no-page"
    done(f"{stored} --architecture l1 --sparsity 1 2")
    assert len(files("runs")) == 2
    _, card = load_dictionary(files("runs")[0])
    assert card["tokens"] == 160 and card["config"]["batch"] == 32
    assert card["stored"]["dtype"] == "float32" and card["place"] == "resid_post.1"
    assert "--batch 32" in refused(f"{stored} --batch 64")
    assert "mlp_out.12 was not saved" in refused(f"{stored} --site mlp_out")
    assert "--text is not read" in refused(f"{stored} --text a.jsonl")
    assert "at most 5 batches of 32 tokens" in refused(f"{stored} --tokens 9999")


def test_settings_without_effect_are_refused_before_the_model_is_read(monkeypatch):
    monkeypatch.setattr(models, "load_model", None)
    assert "sparsity=2.0: a topk has none" in refused(f"{TRAIN} runs {TEXT} --sparsity 1 2")
    assert "--k 3: gated has none" in refused(f"{TRAIN} runs {TEXT} --architecture gated --k 3")
    assert "resample=2: a topk has none" in refused(f"{TRAIN} runs {TEXT} --resample 2")
    assert "adam has none" in refused(f"{TRAIN} runs {TEXT} --weight-decay 0.1")
    assert "--place says it all" in refused(f"{TRAIN} runs {TEXT} --place resid_post.1")
    assert not Path("runs").exists()


def test_text_that_is_short_is_saved_as_far_as_it_goes():
    command = f"acts save --place resid_post.1 --tokens 9000 {TEXT.replace('--layer 1 ', '')}"
    with pytest.warns(UserWarning, match="ended after 3,104 of 9,000 tokens, saved in acts"):
        done(command)
    assert Path("acts/index.json").exists()


def test_text_is_enough_for_whole_batches():
    assert experiments.enough(3000, 128, 2048) > 4096
    assert experiments.enough(3000, 128, 2048, epochs=4) == experiments.enough(1024, 128, 1024)


def test_contexts_held_out_are_the_last_ones():
    contexts = made(50)
    train, rest = experiments.held_out(contexts)
    assert (len(train), len(rest)) == (45, 5)
    np.testing.assert_array_equal(np.concatenate([train.tokens, rest.tokens]), contexts.tokens)
    assert len(experiments.held_out(contexts, 2)[1]) == 2
    assert len(experiments.held_out(made(2))[1]) == 1
