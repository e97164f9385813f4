"""The command line on SmolLM2 at its smallest, and one line for whatever it cannot do."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxcirc import load_result, models
from jaxcirc.cli import main

PAIR = {
    "clean": "The capital of France is",
    "corrupt": "The capital of Italy is",
    "answers": [" Paris"],
    "wrongs": [" Rome"],
    "spans": {"country": " France"},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, smollm2):
    """A folder of its own, the model at hand, and no compilation cache left behind."""
    load = models.load_model
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        models, "load_model", lambda name: smollm2 if name == "smollm2-135m" else load(name)
    )
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def written(*pairs) -> str:
    """The path of a file of prompts."""
    with open("my.jsonl", "w") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    return "my.jsonl"


def saved():
    """The one result below runs/, and the names of its files."""
    (folder,) = Path("runs").iterdir()
    return load_result(folder), {path.name for path in folder.iterdir()}


def test_discover_finds_verifies_and_draws(capsys):
    main("discover ioi --n 4 --verify 4 --sizes 2 9 --draws 1".split())
    result, files = saved()
    assert len(result.table) == 4 and result.facts["sizes"] == [2]
    assert result.numbers["clean"].value > result.numbers["corrupt"].value
    assert {"result.json", "table.csv", "arrays.safetensors", "index.html", "circuit.png"} <= files
    said = capsys.readouterr().out
    assert "ioi on smollm2-135m, 4 prompts" in said and "faithfulness" in said
    assert str(result.name) in said.replace("\n", "")


def test_patch_takes_prompts_of_your_own(capsys):
    bad = PAIR | {"corrupt": "The capital of the Netherlands is"}
    prompts = written(PAIR, bad)
    main(["patch", "--prompts", prompts, "--site", "mlp_out", "--pos", "country"])
    result, files = saved()
    assert result.arrays["examples"].shape == (1, 30)
    assert result.facts["pos"] == "country" and "effects.png" in files
    said = capsys.readouterr().out
    assert "dropped" in said and "replace words by words of as many tokens" in said.replace(
        "\n", " "
    )


@pytest.mark.slow
def test_heads_by_codes_of_texts_of_your_own(capsys):
    Path("p.txt").write_text(
        "Mary met John. John saw\nAnn met Tom. Tom saw\nKate met Ben. Ben saw\n"
    )
    Path("n.txt").write_text("Mary met John. Paul saw\nAnn met Tom. Luke saw\n")
    line = "discover --method discrete --positives p.txt --negatives n.txt --steps 3 --seeds 2"
    main(f"{line} --examples 2 --features 30".split())
    result, files = saved()
    heads = [row for row in result.table if row["section"] == "head"]
    assert len(heads) == 270 and heads[0]["unique codes"] >= heads[-1]["unique codes"]
    assert result.facts["positives"] == 3 and result.facts["examples"] == 2
    assert {"heads.png", "table.csv"} <= files
    said = capsys.readouterr().out
    assert "3 texts with the behaviour, 2 without" in said and heads[0]["head"] in said


@pytest.mark.slow
def test_lens_says_what_comes_next(capsys):
    main(["lens", "The capital of France is", "--top", "3"])
    said = capsys.readouterr().out
    assert "' Paris'" in said and "logit lens" in said


def unequal() -> str:
    return written(PAIR | {"corrupt": "The capital of the Netherlands is"})


def many_tokens() -> str:
    return written(PAIR | {"answers": [" Paris and Rome"]})


def truncated() -> str:
    whole = models.MODELS["smollm2-135m"].paths()[0]
    with open("short.gguf", "wb") as file, whole.open("rb") as source:
        file.write(source.read(3_000_000))
    return "short.gguf"


BAD = {
    "unknown model": ("lens hello --model gpt5", "unknown model 'gpt5': known are 'smollm2-135m'"),
    "absent file": ("lens hello --model no.gguf", "there is no file no.gguf: give the path"),
    "truncated file": (lambda: f"lens hello --model {truncated()}", "short.gguf"),
    "unknown task": ("discover chess", "unknown task 'chess': the tasks are ioi"),
    "no prompts": ("discover ioi --n 0", "n=0: ioi needs at least one pair"),
    "empty list": (lambda: f"discover --prompts {written()}", "my.jsonl holds no usable pair"),
    "absent prompts": ("discover --prompts no.jsonl", "there is no file no.jsonl"),
    "unequal pair": (lambda: f"discover --prompts {unequal()}", "as many tokens"),
    "long answer": (lambda: f"discover --prompts {many_tokens()}", "use a single-token answer"),
    "unknown site": ("patch --n 2 --site zz", "unknown site 'zz': did you mean 'z'?"),
    "absent site": ("patch --n 2 --site q_norm_scale", "has no site 'q_norm_scale': it has"),
    "outer site": ("patch --n 2 --site logits", "outside the layers: patch the metric itself"),
    "layer in a name": ("patch --n 2 --site blocks.99.attn.hook_z", "use site='z', layers=[99]"),
    "absent axis": ("patch --n 2 --site mlp_out --by head", "has no axis 'head': by= may name pos"),
    "absent span": ("patch --n 2 --pos verb", "there is no span 'verb': these prompts have"),
    "wide window": ("patch --n 2 --window 31", "this model has 30 layers; use 1..30"),
    "noise in no span": (
        "patch --n 2 --gaussian verb",
        "there is no span 'verb': these prompts have",
    ),
    "ablation of noise": (
        "patch --n 2 --value zero --direction denoise",
        'an ablation changes the clean run: direction="noise"',
    ),
    "negatives alone": (
        "discover --method discrete --negatives no.txt",
        "negatives alone: --positives FILE --negatives FILE",
    ),
    "absent positives": ("discover --method discrete --positives no.jsonl", "there is no file no"),
    "positives alone": (
        "discover --method discrete --positives no.txt",
        "positives alone: --positives no.txt --negatives FILE",
    ),
    "classes of another method": ("discover --positives no.txt", "need --method discrete"),
    "metric of codes": (
        "discover --method discrete --metric kl --draws 2",
        "--method discrete patches nothing: leave out --metric, --draws",
    ),
    "edges' method for nodes": ("discover --method acdc", "scores edges: --level edge"),
    "one text": (
        "discover --method discrete --n 1",
        "1 positive and 1 negative texts: give at least two of each",
    ),
    "other preset": ("reproduce patching --preset paper", "preset 'paper' is for gpt2, gpt2-xl"),
    "words of many tokens": (
        "observe --positive housekeeper --negative he",
        "an observable weighs single tokens",
    ),
    "one side of two": ("observe --also her", '--also " her/ him"'),
    "another model's sites": (
        "reproduce principled-evaluation --preset paper",
        "preset 'paper' is for gpt2, not 'smollm2-135m': use the default",
    ),
    "no such dictionary": ("dictionary eval --dictionary no.npz", "there is no no.npz"),
    "no size": ("discover --n 2 --verify 2 --sizes 5", "no size is at most verify=2"),
    "empty text": (["lens", ""], "an empty text has no next token"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_input_gets_one_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "cache"))
    arguments = arguments() if callable(arguments) else arguments
    with pytest.raises(SystemExit) as stop:
        main(arguments.split() if isinstance(arguments, str) else arguments)
    line = str(stop.value.code)
    assert line.startswith("jaxcirc: ") and "\n" not in line
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_line_is_all_that_is_printed_and_the_exit_status_is_1():
    code = "from jaxcirc.cli import main; main(['discover', 'chess'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("jaxcirc: unknown task 'chess': the tasks are ioi")


def test_tracebacks_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("JAXCIRC_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown task"):
        main(["discover", "chess"])


@pytest.mark.parametrize("command", [[], ["discover"], ["patch"], ["lens"], ["dictionary", "eval"]])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "jaxcirc" in capsys.readouterr().out
