"""`Checkpoints`: a run saved while it goes on, and found again exactly, or not at all.

A step's folder holds the run's arrays (orbax, written asynchronously and renamed when whole), where
each process's source stood and what it was (safetensors), and a manifest with the sha256 of every
file, written last: what was half written, or has changed since, is never used. All that training
draws follows from (seed, step), so there is no random state to save.

May import `_clock`, `_manifest`, `_run`, `_source`.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from safetensors import safe_open
from safetensors.numpy import save_file

from ._clock import Clock
from ._manifest import Damaged, check, seal
from ._run import Run, check_finite
from ._source import Plain, Source, comparable, differences

EXACT = "--xla_gpu_deterministic_ops=true"
"""Named in XLA_FLAGS, this makes a GPU add in one order, and choose its kernels alike each time."""


class DamagedCheckpoint(UserWarning):
    """A checkpoint is half written or has been changed, and another is used."""


class InexactResume(UserWarning):
    """This device does not add in one order: a resumed run is as good, but not the same to the
    bit."""


class Checkpoints:
    """Checkpoints of one training run in one folder.

    - `every`: steps between two. `minutes`: so long after one there is another, even before (not of
      several processes). `keep`: so many are kept; with 2 or more there is one to go back to.
      Several processes share the folder.

    A resumed run equals an uninterrupted one to the bit on the same devices. On a GPU both need
    XLA_FLAGS=--xla_gpu_deterministic_ops=true, and a warning says so; on another mesh a run goes
    on, equal to rounding.

    >>> fit(Config("topk"), source, keep=Checkpoints("runs/mine/checkpoints", every=500))
    """

    def __init__(
        self, folder: str | os.PathLike, every: int = 500, keep: int = 2, minutes: float = 5.0
    ):
        if every < 1 or keep < 1:
            raise ValueError(f"every={every}, keep={keep}: give 1 or more of each")
        self.folder, self.every, self.keep = Path(folder).absolute(), every, keep
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._sealing: Future | None = None
        self._saved: int | None = None
        self._clock = Clock(60 * minutes)

    def newest(self) -> Path | None:
        """The checkpoint last written or read, when it is whole."""
        self.wait()
        return None if self._saved is None else self._folder(self._saved)

    @property
    def steps(self) -> list[int]:
        """The steps of which there is a folder, whole or not."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def restore(self, outline: Run, source: Source, facts: Mapping[str, Any]) -> Run | None:
        """The newest checkpoint that is whole, with the source brought to its place; None if there
        is none.

        - `outline`: shapes and shardings. `facts`: what must be equal for the run to be the same.

        Warns of each checkpoint passed over. Raises `ValueError` for a checkpoint of another run.
        """
        _warn_of_gpu()
        self._saved = None
        self._clock.restart()
        known = _comparable({**facts, "arrays": _arrays(outline)})
        for step in self._whole():
            with safe_open(self._source(step), "np") as file:
                found = json.loads(file.metadata()["facts"])
                state = {name: file.get_tensor(name) for name in file.keys()}
            _check_same(self.folder, found, known)
            source.restore(state)
            self._saved = step
            return self._read(step, outline)
        return None

    def save(
        self, step: int, run: Run, source: Source, facts: Mapping[str, Any], last: bool = False
    ) -> None:
        """Begin to write a checkpoint if one is due; `last`: in any case, and wait for it.

        Raises `ValueError`, and writes nothing, for a run that has diverged.
        """
        if (last or step % self.every == 0 or self._clock.late) and step != self._saved:
            check_finite(run, self.newest)
            self.wait()
            self._write(step, run, source, facts)
            self._clock.restart()
        if last:
            self.wait()

    def wait(self) -> None:
        """Until what is being written is whole; raises what went wrong in writing."""
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def _write(self, step: int, run: Run, source: Source, facts: Mapping[str, Any]) -> None:
        folder = self._folder(step)
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was not finished
            folder.mkdir(parents=True)
        _meet(f"jaxcirc begins step {step}")
        state = {name: np.asarray(value, order="C") for name, value in source.state().items()}
        facts = _comparable({**facts, "arrays": _arrays(run)})
        save_file(state, self._source(step), {"facts": json.dumps(facts)})
        self._orbax.save(folder / "run", args=ocp.args.StandardSave(_named(run)))
        self._sealing, self._saved = self._thread.submit(self._seal, step, facts), step

    def _seal(self, step: int, facts: Mapping[str, Any]) -> None:
        """When every process has written all of its part; then the oldest may go."""
        self._orbax.wait_until_finished()
        if jax.process_index() == 0:
            seal(self._folder(step), facts)
            for old in [other for other in self.steps if other <= step][: -self.keep]:
                (self._folder(old) / "manifest.json").unlink(missing_ok=True)
                shutil.rmtree(self._folder(old), ignore_errors=True)

    def _whole(self) -> Iterator[int]:
        """Steps whose checkpoints are as they were written, newest first."""
        for step in reversed(self.steps):
            try:
                check(self._folder(step))
                yield step
            except Damaged as why:
                rest = "using the one before" if step > self.steps[0] else "beginning anew"
                message = f"checkpoint {self._folder(step)} is damaged ({why}): {rest}"
                warnings.warn(message, DamagedCheckpoint, stacklevel=4)

    def _read(self, step: int, outline: Run) -> Run:
        named = _named(outline)
        found = self._orbax.restore(
            self._folder(step) / "run", args=ocp.args.StandardRestore(named)
        )
        return jax.tree.unflatten(jax.tree.structure(outline), [found[name] for name in named])

    def _folder(self, step: int) -> Path:
        return self.folder / f"{step:09d}"

    def _source(self, step: int) -> Path:
        return self._folder(step) / f"source-{jax.process_index()}.safetensors"


def _named(run: Run) -> dict[str, Any]:
    """Its arrays by name, as "states/resid_post.12/dictionary/coder/w_enc"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(run)
    }


def _arrays(run: Run) -> dict[str, str]:
    named = _named(run).items()
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in named}


def _comparable(facts: Mapping[str, Any]) -> dict[str, Plain]:
    return comparable({**facts, "processes": jax.process_count()})


def _check_same(folder: Path, found: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    told = differences(found, known)
    if told:
        raise ValueError(
            f"{folder} holds another run ({told}): give what it was begun with, or another folder,"
            ' Checkpoints("runs/new")'
        )


def _warn_of_gpu() -> None:
    if jax.default_backend() == "gpu" and EXACT not in os.environ.get("XLA_FLAGS", ""):
        message = f"a resumed run will not be the same to the bit: set XLA_FLAGS={EXACT}"
        warnings.warn(message, InexactResume, stacklevel=4)


def _meet(name: str) -> None:
    """Wait for the other processes, if there are any."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
