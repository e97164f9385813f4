"""`fit`: train dictionaries on a source of activations, resumably.

May import the rest of the package.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._trained import Trainable
from ._checkpoint import Checkpoints
from ._config import Config, keys, peak
from ._interrupt import put_off
from ._mesh import check_divides, check_part, used
from ._resample import resampled
from ._run import Run, scaled
from ._settings import BY_K
from ._source import Arrays, Batch, Source
from ._step import Hyper, Report, alike, steps
from ._task import Task

Callback = Callable[[int, int, Mapping[str, Report]], None]
"""Told (step, steps, reports by place) as often as asked."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns: for every place the population's dictionaries, folded to the model's own
    units, and the last report of each.

    - `tokens`: that were learned from.
    """

    dictionaries: dict[str, tuple[Trainable, ...]]
    reports: dict[str, Report]
    configs: tuple[Config, ...]
    facts: dict[str, Any]
    tokens: int

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
    tell: Callback | None = None,
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
      told every `every` steps, and every ten seconds where steps are slow.
    - `mesh`: devices that share the work (see `make_mesh`); of several processes each gives its own
      part of every batch.

    Where the source ends before the run does, saves, warns (`RanOut`) and returns what there is.

    Returns `Fitted`. Raises `ValueError` for configs that cannot share a program, batches of
    another size than the config's, a source known to be too short, activations that are not finite,
    a run that has diverged, or checkpoints of another run.

    >>> fit(Config("topk", d_dict=2048, k=32), activations).only.encode(x)
    """
    configs = (configs,) if isinstance(configs, Config) else tuple(configs)
    config = _shared(configs)
    check_divides(config.d_dict, mesh)
    source = source if isinstance(source, Source) else Arrays(source)
    check_part(source, mesh)
    task = Task(configs, source, keep, mesh)
    run, waiting = task.start()
    hyper, shares = task.hyper, peak(config)
    with put_off(keep is not None) as asked, task:
        for i in range(run.done, config.steps):
            batch = waiting.pop(0) if waiting else task.next()
            if batch is None:
                task.end(run)
                break
            with used(mesh):
                run = _advance(config, run, hyper, batch, shares[i])
                run = _resample(config, configs, run, batch, i + 1)
            if tell is not None and task.tells(i + 1, every):
                task.check(run)
                tell(i + 1, config.steps, run.reports)
            if not waiting:
                task.save(i + 1, run, asked(i + 1))
    task.check(run, whole=True)
    tokens = run.done * config.batch
    return Fitted(_folded(run), run.reports, configs, task.facts["source"], tokens)


def _shared(configs: Sequence[Config]) -> Config:
    if not configs:
        raise ValueError('no config: fit(Config("topk"), activations)')
    if len({alike(config) for config in configs}) > 1:
        raise ValueError(
            "members of a population may differ in seed, learning_rate and sparsity only: call fit"
            " once for every other difference"
        )
    if len(set(configs)) < len(configs):
        raise ValueError(
            "two members of the population are the same: give each a seed of its own, as in"
            f" Config({configs[0].architecture!r}, seed=1)"
        )
    return configs[0]


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


def _folded(run: Run) -> dict[str, tuple[Trainable, ...]]:
    """Every member in the model's own units."""
    found = {}
    for place, state in run.states.items():
        unit, n = run.units[place], len(state.step)
        members = [jax.tree.map(lambda leaf, i=i: leaf[i], state.dictionary) for i in range(n)]
        found[place] = tuple(m.scaled(1 / unit.inputs, 1 / unit.outputs) for m in members)
    return found
