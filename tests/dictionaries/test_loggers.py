"""Where a run's numbers go: lines that a kill has cut, loggers by stand-ins, a folder a run."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest

from jaxcirc.dictionaries import Config
from jaxcirc.dictionaries.train import json_lines, open_logger
from jaxcirc.experiments import run_folder

TOPK = Config("topk")


def steps(path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("cut", [1, 2, 9, 14])
def test_a_line_that_a_kill_has_cut_goes(tmp_path, cut):
    path = tmp_path / "new" / "metrics.jsonl"
    log = json_lines(path)
    for step in (50, 100, 150):
        log(step, {"l0": 32.0})
    path.write_text(path.read_text()[:-cut])
    again = json_lines(path)
    assert steps(path) == [50, 100]
    again(150, {"l0": 31.0})
    assert steps(path) == [50, 100, 150] and [file.name for file in path.parent.iterdir()] == [
        path.name
    ]


def test_a_resumed_run_takes_back_what_it_makes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for run, made in enumerate([(50, 100, 150), (100, 150, 200)]):
        log = json_lines(path)
        for step in made:
            log(step, {"run": float(run)})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["step"], each["run"]) for each in found] == [
        (50, 0),
        (100, 1),
        (150, 1),
        (200, 1),
    ]


class Calls(list):
    """Every call of a stand-in, by name."""

    def named(self, name: str, result=None):
        return lambda *given, **words: self.append((name, given, words)) or result


@pytest.fixture
def calls(monkeypatch):
    found = Calls()
    run = SimpleNamespace(log=found.named("log"))
    board = SimpleNamespace(add_scalar=found.named("scalar"), flush=found.named("flush"))
    for name in ("wandb", "trackio"):
        client = SimpleNamespace(init=found.named("init", run))
        monkeypatch.setitem(sys.modules, name, client)
    client = SimpleNamespace(SummaryWriter=found.named("writer", board))
    monkeypatch.setitem(sys.modules, "tensorboardX", client)
    return found


def test_tensorboard_gets_scalars(calls, tmp_path):
    open_logger("tensorboard", tmp_path, {})(50, {"a": 1.0, "b": 2.0})
    assert calls == [
        ("writer", (str(tmp_path / "tensorboard"),), {}),
        ("scalar", ("a", 1.0, 50), {}),
        ("scalar", ("b", 2.0, 50), {}),
        ("flush", (), {}),
    ]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_others_get_one_call_a_step_and_the_config(name, calls, tmp_path):
    open_logger(name, tmp_path / "sae-1", {"k": 32})(50, {"a": 1.0})
    (_, _, asked), (_, (numbers,), words) = calls
    assert asked["config"] == {"k": 32} and asked["name"] == "sae-1"
    assert numbers["a"] == 1.0 and (numbers | words)["step"] == 50
    assert name != "wandb" or (asked["id"], asked["resume"]) == ("sae-1", "allow")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_logger_that_is_not_installed_is_named(name, monkeypatch, tmp_path):
    package = "tensorboardX" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"^{name} is not installed: pip install {package}$"):
        open_logger(name, tmp_path, {})
    with pytest.raises(ValueError, match="unknown logger 'csv': use one of tensorboard, wandb"):
        open_logger("csv", tmp_path, {})


def test_every_run_has_a_folder_of_its_own(tmp_path):
    def folder(config=TOPK, **facts):
        known = {"model": "tiny", "places": ["z.1"], "sink_norm": {"z.1": 1.0}} | facts
        return run_folder(tmp_path, SimpleNamespace(facts=known), [config])

    own = folder()
    assert own.parent == tmp_path and own.name.startswith("sae-") and own == folder()
    assert own == folder(sink_norm={"z.1": 1.1}) == folder(processing="raw")
    others = {folder(processing="tl"), folder(places=["z.2"]), folder(model="other")}
    others |= {folder(dataclasses.replace(TOPK, seed=1)), folder(Config("l1"))}
    assert len(others) == 5 and own not in others
