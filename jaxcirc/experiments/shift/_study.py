"""`jaxcirc features shift`: a classifier freed from a confound by ablating what a judge points at.

    uv run jaxcirc features shift                  SmolLM2-135M, both made tasks, five seeds

SHIFT (Marks et al. 2024, arXiv 2403.19647, section 4) beside its baselines, and beside what the
critique of it asks for: words deleted, the lowest places left out, seeds with intervals. About 15
minutes on two cores; every seed is kept as it is done, and the same command goes on. May import
`taps`, `tasks`, `models`, `dictionaries`, `circuits`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._types import Tell, TokenizerLike
from ...circuits.features import Basis
from .._clock import clock
from .._result import Result, finite, model_facts
from . import _table
from ._biographies import biographies
from ._contexts import activity
from ._head import Pool
from ._judge import Decisions, Judge, judge_of
from ._kept import key_of, read_answers, read_found, save_answers, save_found
from ._page import JudgePage, Shown, shown
from ._place import placed, sink_norm_of
from ._rows import Rows, length_of
from ._section import Found, Scoring, Setting, Texts, found, judged
from ._texts import Counts, Task

LATER = ("seeds", "judged", "contexts", "above")
"""Facts that the heads of a seed do not depend on."""

MEMORY = 4 * 2**30
"""Bytes of streams that are kept between the steps of a study; beyond, they are made again."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of the study to run.

    - `judged`: texts that the judge sees features on. `contexts`: of each feature. `most`: tokens
      of a text, of which longer ones lose their end.
    """

    counts: Counts = Counts()
    scoring: Scoring = Scoring()
    seeds: int = 5
    judged: int = 256
    contexts: int = 10
    most: int = 40

    def __post_init__(self):
        for name, least in (("seeds", 1), ("judged", 1), ("contexts", 1), ("most", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: give {least} or more")


class Shift(NamedTuple):
    """The numbers, and a page of features for every task."""

    result: Result
    pages: tuple[JudgePage, ...]


def study_shift(
    model,
    tokenizer: TokenizerLike,
    basis: Basis,
    folder: str | Path,
    *,
    tasks: Sequence[Task] | None = None,
    place: str | None = None,
    sink_norm: float | None = None,
    above: int | None = None,
    decisions: Sequence[Decisions] = (),
    text: Rows | None = None,
    sizes: Sizes = Sizes(),  # noqa: B008 (frozen)
    dictionaries: str = "",
    progress: Tell | None = None,
) -> Shift:
    """Run SHIFT and everything it is compared with.

    - `basis`: dictionaries whose features are ablated. `folder`: where seeds are kept; a study that
      asks the same goes on from there. `tasks`: default, made biographies with two confounds.
    - `place`: the residual that the head reads (default: the first behind all dictionaries); those
      that are not below it are left out. Tokens of a norm above `sink_norm` do not count there
      (default: as at the highest residual with a dictionary).
    - `above`: places below this layer are the lowest, which one row leaves out (default: the first
      place alone). `decisions`: on tasks, instead of their word lists. `text`: what the judge sees
      features on (default: ambiguous texts of the first seed). `dictionaries`: what to call them.

    Returns `Shift`. Raises `ValueError` for a place without dictionaries below it, and for
    decisions on a task that is not run or on another model.

    >>> study_shift(model, tokenizer, basis, "runs/shift").result.table
    """
    chosen = [biographies("gender"), biographies("tense")] if tasks is None else list(tasks)
    check_tasks(chosen, decisions)
    at, basis = placed(model, basis, place)
    norm = sink_norm_of(basis) if sink_norm is None else sink_norm
    pool = Pool(jnp.asarray(norm, jnp.float32), at)
    facts = _facts(model, basis, at, sizes, dictionaries, norm, above)
    with clock() as seconds, jax.default_matmul_precision("highest"):
        parts = []
        for task in chosen:
            setting = _setting(model, tokenizer, basis, pool, task, sizes, above)
            judge = judge_of(decisions, task.name, model.config.name, task.words)
            study = _Task(setting, judge, sizes, Path(folder), facts, text, progress)
            parts.append(study.run())
    table = _table.table_of({part.task.name: part for part in parts})
    return Shift(_result(table, parts, facts, seconds), tuple(part.page for part in parts))


def check_tasks(tasks: Sequence[Task], decisions: Sequence[Decisions]) -> None:
    """Raise `ValueError` for no task, one named twice, and decisions on another."""
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks {', '.join(names) or 'none'}: give one or more, each once")
    for each in decisions:
        if each.task not in names:
            raise ValueError(f"{each.source} is on {each.task!r}, run are {', '.join(names)}")


def _setting(model, tokenizer, basis, pool, task: Task, sizes: Sizes, above) -> Setting:
    """The task as it is run; all seeds have rows of one length."""
    drawn = task.draw(0, sizes.counts)
    texts = [text for split in vars(drawn).values() for text in split.texts]
    length = length_of(tokenizer, texts, sizes.most)
    counts = sizes.counts
    return Setting(model, tokenizer, basis, pool, task, counts, sizes.scoring, length, above)


def _facts(model, basis: Basis, at, sizes: Sizes, named: str, norm: float, above) -> dict:
    """What two studies must have in common to be comparable."""
    places = [f"{place.site}.{place.layer}" for place in basis.places]
    widths = [dictionary.d_dict for dictionary in basis.dictionaries]
    asked = {"dictionaries": named, "places": places, "features": widths}
    asked |= {"sinks": [float(norm) for norm in basis.sink_norms], "above": above}
    asked |= {"fingerprint": _fingerprint(basis), "head": f"{at.site}.{at.layer}"}
    return model_facts(model) | asked | {"head_sink_norm": norm} | dataclasses.asdict(sizes)


def _fingerprint(basis: Basis) -> list[float]:
    """A number for every dictionary, that other weights would not have."""
    each = [np.asarray(d.directions, np.float64) for d in basis.dictionaries]
    return [float(np.square(x).sum() + x.ravel()[0]) for x in each]


class _Task:
    """One task: its seeds, the judge, and the page."""

    def __init__(self, at, judge, sizes, folder, facts, text, progress):
        self.at: Setting = at
        self.judge: Judge = judge
        self.sizes: Sizes = sizes
        self.text: Rows | None = text
        self.folder, self.facts, self.progress = folder, facts, progress
        self._page: tuple[Shown, ...] = ()
        self._ablate: dict[str, bool] = {}

    def run(self) -> _table.Part:
        seeds = range(self.sizes.seeds)
        texts: dict[int, Texts] = {}
        before = [self._found(seed, texts) for seed in seeds]
        self._judge(before)
        after = [self._judged(seed, before[seed], texts.pop(seed, None)) for seed in seeds]
        said = [{**one.said, **other} for one, other in zip(before, after, strict=True)]
        task = self.at.task
        model = self.at.model.config.name
        page = JudgePage(task.name, model, task.labels, task.attributes, self.judge.key, self._page)
        return _table.Part(task, before, said, page, self._ablate)

    def _tell(self, stage: str, done: int) -> None:
        if self.progress is not None:
            self.progress(f"{self.at.task.name}: {stage}", done, self.sizes.seeds)

    def _path(self, seed: int, *more: str) -> Path:
        words = sorted(self.at.task.words), self.at.task.concepts
        own: dict[str, Any] = {"words": words, "more": more, "texts": self._hash(seed)}
        shared = {name: fact for name, fact in self.facts.items() if name not in LATER}
        key = key_of(shared | own)
        return self.folder / f"{self.at.task.name}-{seed}-{key}"

    def _hash(self, seed: int) -> str:
        parts = vars(self.at.task.draw(seed, self.at.counts)).values()
        return key_of({"texts": [(part.texts, part.cell.tolist()) for part in parts]})

    def _found(self, seed: int, texts: dict[int, Texts]) -> Found:
        path = self._path(seed)
        kept = read_found(path)
        if kept is None:
            texts[seed] = own = Texts(self.at, seed)
            save_found(found(self.at, own, seed), path, self.at.task.name)
            kept = read_found(path)
            own.forget("balanced")
            if own.nbytes * self.sizes.seeds > MEMORY:
                own.forget("ambiguous", "test")
        assert kept is not None
        self._tell("heads", seed + 1)
        return kept

    def _judge(self, before: Sequence[Found]) -> None:
        """One verdict for every feature that any seed chose."""
        importances: dict[str, list[float]] = {}
        for one in before:
            head = one.chosen["head"]
            for name, value in zip(head.names, head.importance, strict=True):
                importances.setdefault(name, []).append(value)
        seen = activity(self.at.model, self.at.tokenizer, self._texts(), self.at.basis)
        self._page = shown(importances, seen, self.judge, self.sizes.contexts)
        self._ablate = {str(each.node): each.verdict.ablate for each in self._page}

    def _texts(self) -> Rows:
        if self.text is not None:
            return self.text
        rows = self.at.rows(self.at.task.draw(0, self.at.counts).ambiguous)
        return rows.take(np.arange(len(rows))[: self.sizes.judged])

    def _judged(self, seed: int, before: Found, texts: Texts | None):
        own = {name: self._ablate[name] for name in before.chosen["head"].names}
        path = self._path(seed, key_of(own), f"above {self.at.above}")
        kept = read_answers(path)
        if kept is None:
            texts = texts or Texts(self.at, seed)
            save_answers(judged(self.at, texts, before, own, seed), path, self.at.task.name)
            kept = read_answers(path)
        assert kept is not None
        self._tell("ablating", seed + 1)
        return kept


def _result(table: _table.Table, parts, facts: Mapping[str, Any], seconds) -> Result:
    judges = {part.task.name: part.page.judge for part in parts}
    return Result(
        kind="study_shift",
        task="shift",
        numbers=table.numbers,
        table=finite(table.rows),
        arrays=table.arrays,
        axes=table.axes,
        facts={**facts, "tasks": [part.task.name for part in parts], "judges": judges},
        seconds=seconds,
        notes=table.notes,
    )
