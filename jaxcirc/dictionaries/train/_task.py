"""`Task`: what stays the same through a run of `fit`: where its batches come from, and what they
must be, where it is saved, when it is told of.

May import `_checkpoint`, `_clock`, `_config`, `_mesh`, `_run`, `_source`, `_step`.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax.sharding import Mesh

from ._checkpoint import Checkpoints
from ._clock import Clock
from ._config import Config
from ._mesh import shared_out, used, whole
from ._run import Run, begun, check_finite, outline
from ._source import Batch, RanOut, Source
from ._step import Hyper

CALIBRATION = 4
"""Batches that set units and starting biases."""

SECONDS = 10.0
"""Nobody waits longer than so to be told of a run, or than the step that is taken."""


class Task:
    """One call of `fit`. Inside `with`, what is being written is finished however it ends."""

    def __init__(
        self, configs: Sequence[Config], source: Source, keep: Checkpoints | None, mesh: Mesh | None
    ):
        self.configs, self.source, self.keep, self.mesh = tuple(configs), source, keep, mesh
        self.hyper = whole(_hyper(configs), mesh)
        self.facts = {
            "configs": [dataclasses.asdict(config) for config in configs],
            "source": dict(source.facts),
        }
        self._clock = Clock(SECONDS)

    def __enter__(self) -> "Task":
        return self

    def __exit__(self, *_) -> None:
        if self.keep is not None:
            self.keep.wait()

    def start(self) -> tuple[Run, list[Mapping[str, Batch]]]:
        """The run as it was left, or as it begins, and the batches it has seen but not learned."""
        first = [self._first()]
        if self.keep is not None:
            with used(self.mesh):
                shape = outline(self.configs, self.hyper, first[0], self.mesh)
            found = self.keep.restore(shape, self.source, self.facts)
            if found is not None:
                return found, []
        more = min(CALIBRATION, self.configs[0].steps) - 1
        rest = (self.next() for _ in range(more))
        first += [batch for batch in rest if batch is not None]
        with used(self.mesh):
            return begun(self.configs, first, self.mesh), first

    def next(self) -> Mapping[str, Batch] | None:
        """The next batch, on its devices; None at the end."""
        try:
            batch = self.source.batch()
        except StopIteration:
            return None
        return shared_out(batch, self.mesh)

    def _first(self) -> Mapping[str, Batch]:
        """The first batch, if it is as large as the config says and there are enough."""
        batch, config = self.next(), self.configs[0]
        if batch is None:
            raise ValueError("the source has not one whole batch: give more text")
        _, parts = getattr(self.source, "part", (0, 1))
        n = len(next(iter(batch.values()))[0]) * (parts if self.mesh is None else 1)
        if n != config.batch:
            raise ValueError(
                f"the source hands out batches of {n} tokens, the config counts {config.batch}:"
                f" Config(batch={n})"
            )
        most = getattr(self.source, "batches", None)
        if most is not None and most < config.steps:
            raise ValueError(
                f"the source has at most {most} batches of {n} tokens, the run takes"
                f" {config.steps}: give more text or epochs, or fewer tokens,"
                f" Config(tokens={most * n})"
            )
        return batch

    def tells(self, step: int, every: int) -> bool:
        """Whether to tell of the run after this step."""
        due = step % every == 0 or step == self.configs[0].steps or self._clock.late
        if due:
            self._clock.restart()
        return due

    def check(self, run: Run, whole: bool = False) -> None:
        """Raises `ValueError` if the run has diverged, with the last good checkpoint."""
        kept = self.keep.newest if isinstance(self.keep, Checkpoints) else lambda: None
        check_finite(run, kept, whole)

    def end(self, run: Run) -> None:
        """Save, and say, that the source has ended early."""
        if self.keep is not None:
            self.keep.save(run.done, run, self.source, self.facts, last=True)
        config = self.configs[0]
        message = (
            f"the source has ended after {run.done * config.batch:,} of {config.tokens:,} tokens:"
            " these are the dictionaries so far, for others give more text and begin anew"
        )
        warnings.warn(message, RanOut, stacklevel=3)

    def save(self, step: int, run: Run, asked: bool) -> None:
        """Save if it is time; where somebody asked to stop, save and stop."""
        if self.keep is None:
            return
        last = step == self.configs[0].steps
        self.keep.save(step, run, self.source, self.facts, last=last or asked)
        if asked and not last:
            raise KeyboardInterrupt(
                f"stopped after step {step} of {self.configs[0].steps}, which is saved in"
                f" {self.keep.folder}: the same call goes on from there"
            )


def _hyper(configs: Sequence[Config]) -> Hyper:
    rates = jnp.asarray([config.rate for config in configs], jnp.float32)
    sparsity = jnp.asarray([config.sparsity for config in configs], jnp.float32)
    return Hyper(rates, sparsity)
