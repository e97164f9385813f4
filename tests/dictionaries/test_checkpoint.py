"""Killed, interrupted or damaged, a run of training ends with the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from killed import BATCH, EVERY, STEPS, Draws, configs, train

from jaxcirc.dictionaries.train import (
    Arrays,
    Checkpoints,
    Config,
    DamagedCheckpoint,
    InexactResume,
    RanOut,
    _clock,
    fit,
)
from jaxcirc.dictionaries.train._checkpoint import EXACT
from jaxcirc.dictionaries.train._fit import _advance
from jaxcirc.dictionaries.train._run import outline
from jaxcirc.dictionaries.train._task import Task

HERE = Path(__file__).parent


class Stop(Exception):
    pass


def stopping(at: int):
    """A `tell` that raises after so many steps."""

    def tell(step, *_):
        if step == at:
            raise Stop

    return tell


def same(one, other) -> bool:
    """Every bit of what was trained, and of what the last step said."""
    a, b = (jax.tree.leaves((f.dictionaries, f.reports)) for f in (one, other))
    return len(a) == len(b) > 0 and all(
        x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


@pytest.fixture(scope="module")
def uninterrupted():
    return train(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The checkpoints of a run that has ended: steps 20 and 24."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    train(folder)
    assert steps_in(folder) == [20, STEPS]
    return folder


def killed(folder: Path, where: str, step: int) -> None:
    command = [sys.executable, str(HERE / "killed.py"), str(folder), where, str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(tmp_path, uninterrupted):
    killed(tmp_path, "write", 10)
    assert not (tmp_path / "000000010" / "manifest.json").exists()
    with pytest.warns(DamagedCheckpoint, match="000000010 is damaged .*never finished"):
        assert same(train(tmp_path), uninterrupted)
    assert steps_in(tmp_path) == [20, STEPS]


@pytest.mark.slow
def test_killed_at_five_random_steps(tmp_path, uninterrupted):
    seed = int.from_bytes(os.urandom(4), "little")
    steps = np.sort(np.random.default_rng(seed).choice(np.arange(1, 20), 4, replace=False))
    for step in steps:
        killed(tmp_path, "step", int(step))
    killed(tmp_path, "write", (int(steps[-1]) // EVERY + 1) * EVERY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedCheckpoint)
        assert same(train(tmp_path), uninterrupted), f"seed {seed}, killed after {steps}"


def test_nothing_learned_before_the_first_checkpoint_is_lost_for_good(tmp_path, uninterrupted):
    with pytest.raises(Stop):
        train(tmp_path, stopping(3))
    assert same(train(tmp_path), uninterrupted)


class Sick(Draws):
    """Draws of which the twelfth is not a number."""

    def batch(self):
        x, y = super().batch()["here"]
        bad = self.given == 12
        return {"here": (x * np.nan, y) if bad else (x, y)}


def test_a_run_that_has_diverged_is_not_saved(tmp_path):
    for _ in range(2):  # and the same call finds the last good checkpoint again
        with pytest.raises(ValueError, match="diverged .*last good checkpoint is .*000000010$"):
            fit(configs(), Sick(), keep=Checkpoints(tmp_path, every=5), every=50)
        assert steps_in(tmp_path) == [5, 10]


class Short(Draws):
    """Draws that end after nine."""

    def batch(self):
        if self.given == 9:
            raise StopIteration
        return super().batch()


def test_a_run_whose_source_ends_is_saved_as_it_is(tmp_path, uninterrupted):
    ends = []
    for _ in range(2):
        with pytest.warns(RanOut, match="after 288 of 768 tokens"):
            ends.append(train(tmp_path, source=Short()))
        assert steps_in(tmp_path) == [5, 9] and ends[-1].tokens == 288
    assert same(*ends)
    assert same(train(tmp_path), uninterrupted)  # the same tokens, and more of them


def test_slow_steps_are_saved_in_between(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_clock, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def tell(step, *_):
        now[0] += 70.0
        if step == 12:
            raise Stop

    with pytest.raises(Stop):
        fit(configs(), Draws(), keep=Checkpoints(tmp_path, 100, 9), tell=tell, every=1)
    assert Checkpoints(tmp_path).steps == [5, 10]


CONFIGS = {
    "topk": Config("topk", d_dict=64, k=4, k_start=16, dead_after=100, batch=BATCH),
    "batchtopk": Config("batchtopk", d_dict=64, k=4, optimiser="muon", batch=BATCH),
    "jumprelu": Config("jumprelu", d_dict=64, k=4, dtype="bfloat16", batch=BATCH),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_resumed_run_ends_with_the_same_bits(name, tmp_path):
    config = CONFIGS[name].__class__(**{**vars(CONFIGS[name]), "tokens": BATCH * 12})
    whole = fit(config, Draws())
    with pytest.raises(Stop):
        fit(config, Draws(), keep=Checkpoints(tmp_path, 4), tell=stopping(9), every=1)
    told = []
    again = fit(
        config,
        Draws(),
        keep=Checkpoints(tmp_path, 4),
        tell=lambda step, *_: told.append(step),
        every=1,
    )
    assert same(again, whole) and told == [9, 10, 11, 12]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(number, tmp_path, uninterrupted):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 7 of 24, which is saved in"):
        train(tmp_path, lambda step, *_: os.kill(os.getpid(), number) if step == 7 else None)
    assert steps_in(tmp_path)[-1] == 7 and signal.getsignal(number) is before
    assert same(train(tmp_path), uninterrupted)


def test_a_second_signal_stops_at_once(tmp_path):
    def tell(step, *_):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tell)
    assert steps_in(tmp_path) == [5]


def test_a_finished_run_is_read_back(finished, uninterrupted):
    def tell(*_):
        raise AssertionError("nothing is left to train")

    assert same(train(finished, tell), uninterrupted)


def restored(folder: Path, **changes) -> int | None:
    """The step that a run would go on from."""
    source = Draws()
    task = Task(configs(**changes), source, None, None)
    first = task.next()
    assert first is not None
    shape = outline(task.configs, task.hyper, first, None)
    found = Checkpoints(folder).restore(shape, source, task.facts)
    assert found is None or source.given == found.done
    return None if found is None else found.done


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << 3
    path.write_bytes(data)


def test_every_flipped_bit_is_seen(finished, tmp_path):
    rng = np.random.default_rng(0)
    files = [path for path in (finished / f"{STEPS:09d}").rglob("*") if path.is_file()]
    assert len(files) > 4 and any(path.name == "source-0.safetensors" for path in files)
    for path in files:
        copy = shutil.copytree(finished, tmp_path / "copy", dirs_exist_ok=True)
        flip(copy / path.relative_to(finished), rng.random())
        with pytest.warns(DamagedCheckpoint, match="is damaged .*using the one before") as told:
            assert restored(copy) == 20, path
        assert len(told) == 1 and "\n" not in str(told[0].message)


def cut_short(folder: Path) -> None:
    path = max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "no manifest.json": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json cannot be read": lambda folder: (folder / "manifest.json").write_text("{"),
    "is missing": lambda folder: (folder / "source-0.safetensors").unlink(),
    "bytes of": cut_short,
}


@pytest.mark.parametrize("why", DAMAGES)
def test_other_damage(why, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    DAMAGES[why](copy / f"{STEPS:09d}")
    with pytest.warns(DamagedCheckpoint, match=rf"{why}.*: using the one before"):
        assert restored(copy) == 20


def test_the_one_before_leads_to_the_same_end(finished, tmp_path, uninterrupted):
    copy = shutil.copytree(finished, tmp_path / "copy")
    cut_short(copy / f"{STEPS:09d}")
    with pytest.warns(DamagedCheckpoint):
        assert same(train(copy), uninterrupted)
    assert restored(copy) == STEPS


def test_nothing_whole_begins_anew(finished, tmp_path, uninterrupted):
    copy = shutil.copytree(finished, tmp_path / "copy")
    for step in (20, STEPS):
        cut_short(copy / f"{step:09d}")
    with pytest.warns(DamagedCheckpoint) as told:
        assert restored(copy) is None
    assert [str(each.message).rpartition(": ")[2] for each in told] == [
        "using the one before",
        "beginning anew",
    ]
    with pytest.warns(DamagedCheckpoint):
        assert same(train(copy), uninterrupted)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sparsity": 0.4}, "configs.0.sparsity 0.3, now 0.4"),
        ({"d_dict": 128}, "configs.0.d_dict 64, now 128"),
        ({"source": Draws(name="another")}, "source.source draws, now another"),
        ({"source": Draws(d_in=8)}, "coder/b_dec float32[2, 16], now float32[2, 8]"),
    ],
)
def test_another_run_is_refused(changes, told, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with pytest.raises(ValueError, match="holds another run") as error:
        train(finished, **changes)
    message = str(error.value)
    assert told in message and 'or another folder, Checkpoints("runs/new")' in message
    assert "\n" not in message
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_measured_facts_may_differ_in_their_last_digits(finished):
    source = Draws()
    source.facts["norm"] *= 1 + 1e-5
    train(finished, source=source)
    source.facts["norm"] *= 1.1
    with pytest.raises(ValueError, match="source.norm 1.25, now 1.37"):
        train(finished, source=source)


def test_what_is_being_written_does_not_change(tmp_path):
    """Steps that follow a save work in the memory of the run that is saved."""
    config = Config("l1", d_dict=2048, batch=BATCH, tokens=BATCH * 100)
    source = Draws(d_in=256)
    task, keep = Task([config], source, None, None), Checkpoints(tmp_path, every=1)
    run, waiting = task.start()
    run = _advance(config, run, task.hyper, waiting[0], 1.0)
    before = jax.tree.map(np.array, run)
    keep.save(1, run, source, task.facts)
    for batch in waiting:
        run = _advance(config, run, task.hyper, batch, 1.0)
    keep.wait()
    found = keep.restore(outline([config], task.hyper, waiting[0], None), source, task.facts)
    assert jax.tree.structure(found) == jax.tree.structure(before)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_oldest_go(tmp_path):
    with pytest.raises(Stop):
        fit(configs(), Draws(), keep=Checkpoints(tmp_path, 4, keep=3), tell=stopping(21), every=1)
    assert Checkpoints(tmp_path).steps == [12, 16, 20]


def test_an_iterator_goes_only_onwards():
    batches = [np.full((2, 3), i, np.float32) for i in range(6)]
    for make in (iter, list):
        source = Arrays(make(batches))
        source.batch()
        source.restore({"used": np.asarray(4)})
        assert float(source.batch()["activations"][0][0, 0]) == 4.0
    source = Arrays(iter(batches))
    source.batch(), source.batch()
    with pytest.raises(ValueError, match="an iterator cannot start over"):
        source.restore({"used": np.asarray(1)})
    with pytest.raises(ValueError, match="the source has 6 arrays, the run has used 9"):
        source.restore({"used": np.asarray(9)})


def test_a_gpu_is_asked_to_add_in_order(finished, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.warns(InexactResume, match=f"set XLA_FLAGS={EXACT}"):
        restored(finished)
    monkeypatch.setenv("XLA_FLAGS", EXACT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restored(finished) == STEPS


def test_numbers_of_checkpoints():
    with pytest.raises(ValueError, match="every=0, keep=2: give 1 or more of each"):
        Checkpoints("anywhere", every=0)


def test_what_failed_in_writing_is_raised(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("jaxcirc.dictionaries.train._checkpoint.seal", full)
    with pytest.raises(OSError, match="no space left"):
        train(tmp_path)
