"""`fit`: train dictionaries on a source of activations, resumably.

May import the rest of the package.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._trained import Trainable
from ._checkpoint import Checkpoints
from ._config import BY_K, Config, keys, peak
from ._interrupt import put_off
from ._mesh import check_divides, check_part, shared_out, used, whole
from ._resample import resampled
from ._run import Run, begun, outline, scaled
from ._source import Arrays, Batch, Source
from ._step import Hyper, Report, alike, steps

CALIBRATION = 4
"""Batches that set units and starting biases."""

Told = Callable[[int, int, Mapping[str, Report]], None]
"""Told (step, steps, reports by place) as often as asked."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns: for every place the population's dictionaries, folded to the model's own
    units, and the last report of each."""

    dictionaries: dict[str, tuple[Trainable, ...]]
    reports: dict[str, Report]
    configs: tuple[Config, ...]
    facts: dict[str, Any]

    @property
    def only(self) -> Trainable:
        """The dictionary, where there is one."""
        (found,) = itertools.chain(*self.dictionaries.values())
        return found


def fit(
    configs: Config | Sequence[Config],
    source: Source | Iterable[np.ndarray],
    *,
    keep: Checkpoints | None = None,
    tell: Told | None = None,
    every: int = 50,
    mesh: Mesh | None = None,
) -> Fitted:
    r"""Train one dictionary, or a population on the same tokens, for every place of a source.

    Activations are divided by the root of their mean square over the first batches, and the
    decoder's bias starts at their mean; the dictionaries returned have the units folded away.

    - `configs`: a population may differ in seed, learning rate and sparsity; everything else is
      compiled in. `source`: a `Source`, or any iterable of arrays Float[token d].
    - `keep`: a `Checkpoints`, from which the run resumes and to which it saves; Ctrl-C (of several
      processes: a SIGTERM to one) then saves too, before it raises `KeyboardInterrupt`. `tell`:
      told every `every` steps.
    - `mesh`: devices that share the work (see `make_mesh`); of several processes each gives its own
      part of every batch.

    Returns `Fitted`. Raises `ValueError` for configs that cannot share a program, activations that
    are not finite, an empty source, or checkpoints of another run.

    >>> fit(Config("topk", d_dict=2048, k=32), activations).only.encode(x)
    """
    configs = (configs,) if isinstance(configs, Config) else tuple(configs)
    config = _shared(configs)
    check_divides(config.d_dict, mesh)
    source = source if isinstance(source, Source) else Arrays(source)
    check_part(source, mesh)
    task = _Task(configs, source, keep, mesh)
    run, waiting = task.start()
    hyper, shares = task.hyper, peak(config)
    with put_off(keep is not None) as asked, task:
        for i in range(run.done, config.steps):
            batch = waiting.pop(0) if waiting else task.next()
            with used(mesh):
                run = _advance(config, run, hyper, batch, shares[i])
                run = _resample(config, configs, run, batch, i + 1)
            if tell is not None and ((i + 1) % every == 0 or i + 1 == config.steps):
                tell(i + 1, config.steps, run.reports)
            if not waiting:
                task.save(i + 1, run, asked(i + 1))
    _check(run)
    return Fitted(_folded(run), run.reports, configs, task.facts["source"])


class _Task:
    """What stays the same through a run: where its batches come from, and where it is saved."""

    def __init__(
        self, configs: Sequence[Config], source: Source, keep: Checkpoints | None, mesh: Mesh | None
    ):
        self.configs, self.source, self.keep, self.mesh = tuple(configs), source, keep, mesh
        self.hyper = whole(_hyper(configs), mesh)
        self.facts = {
            "configs": [dataclasses.asdict(config) for config in configs],
            "source": dict(source.facts),
        }

    def __enter__(self) -> "_Task":
        return self

    def __exit__(self, *_) -> None:
        """However the run ends, what is being written is finished."""
        if self.keep is not None:
            self.keep.wait()

    def start(self) -> tuple[Run, list[Mapping[str, Batch]]]:
        """The run as it was left, or as it begins, and the batches it has seen but not learned."""
        first = [self.next()]
        if self.keep is not None:
            with used(self.mesh):
                shape = outline(self.configs, self.hyper, first[0], self.mesh)
            found = self.keep.restore(shape, self.source, self.facts)
            if found is not None:
                return found, []
        more = min(CALIBRATION, self.configs[0].steps) - 1
        first += [self.next() for _ in range(more)]
        with used(self.mesh):
            return begun(self.configs, first, self.mesh), first

    def next(self) -> Mapping[str, Batch]:
        """The next batch, on its devices."""
        try:
            return shared_out(self.source.batch(), self.mesh)
        except StopIteration:
            raise ValueError(
                "the source has run out of activations: give more text, or fewer tokens,"
                " Config(tokens=100_000)"
            ) from None

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


def _shared(configs: Sequence[Config]) -> Config:
    if not configs:
        raise ValueError('no config: fit(Config("topk"), activations)')
    if len({alike(config) for config in configs}) > 1:
        raise ValueError(
            "members of a population may differ in seed, learning_rate and sparsity only: call fit"
            " once for every other difference"
        )
    return configs[0]


def _hyper(configs: Sequence[Config]) -> Hyper:
    rates = jnp.asarray([config.rate for config in configs], jnp.float32)
    sparsity = jnp.asarray([config.sparsity for config in configs], jnp.float32)
    return Hyper(rates, sparsity)


def _advance(
    config: Config, run: Run, hyper: Hyper, batch: Mapping[str, Batch], share: float
) -> Run:
    states, reports = {}, {}
    for place, state in run.states.items():
        x, y = scaled(batch[place], run.units[place])
        now = jnp.asarray(share, jnp.float32)
        states[place], reports[place] = steps(alike(config), state, hyper, x, y, now)
    return Run(states, run.units, reports)


def _resample(
    config: Config, configs: Sequence[Config], run: Run, batch: Mapping[str, Batch], done: int
) -> Run:
    """Dead features drawn anew at even distances over the first half of the run."""
    if not config.resample or config.architecture in BY_K:
        return run
    gap = max(1, config.steps // (2 * config.resample))
    if done % gap or done > gap * config.resample:
        return run
    states = {}
    for place, state in run.states.items():
        draws = jnp.stack([jax.random.fold_in(keys(member)[1], done) for member in configs])
        states[place] = resampled(
            alike(config), state, draws, *scaled(batch[place], run.units[place])
        )
    return Run(states, run.units, run.reports)


def _check(run: Run) -> None:
    for place, state in run.states.items():
        for leaf in jax.tree.leaves(eqx.filter(state.dictionary, eqx.is_inexact_array)):
            if not bool(jnp.isfinite(leaf).all()):
                raise ValueError(
                    f"{place}: training has diverged (NaN): lower the learning rate, as in"
                    " Config(learning_rate=1e-4), or check the activations"
                )


def _folded(run: Run) -> dict[str, tuple[Trainable, ...]]:
    """Every member in the model's own units."""
    found = {}
    for place, state in run.states.items():
        unit, n = run.units[place], len(state.step)
        members = [jax.tree.map(lambda leaf, i=i: leaf[i], state.dictionary) for i in range(n)]
        found[place] = tuple(m.scaled(1 / unit.inputs, 1 / unit.outputs) for m in members)
    return found
