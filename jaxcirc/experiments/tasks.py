"""`jaxcirc tasks smollm2-135m`: what a model can do, task by task. Under a minute on two cores."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from .._types import Bos, Tell
from ..patching import known_both_ways, last_logits
from ..tasks import ONE_WAY, TASKS, Interval, Prompts, accuracy, bos_ids, interval, logit_difference


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """What a model does on one task.

    - `accuracy`: the share of clean prompts whose best answer scores above the best wrong; `clean`,
      `corrupt`: the logit difference behind either prompt. Clustered by template.
    - `known`: pairs answered right both ways, None where the corruption makes no wrong answer
      right. `dropped`: pairs that the tokenizer could not use.
    - `note`: why there are no numbers, if there are none.
    """

    task: str
    n: int
    accuracy: Interval | None = None
    clean: Interval | None = None
    corrupt: Interval | None = None
    known: int | None = None
    dropped: int = 0
    note: str = ""


def survey_tasks(
    model,
    tokenizer,
    names: Sequence[str] = (),
    *,
    n: int = 64,
    seed: int = 0,
    bos: Bos = "model",
    progress: Tell | None = None,
) -> list[TaskRow]:
    """Accuracy and logit differences of a model on the registered tasks.

    - `names`: which tasks (default: all). `n`: pairs of each. `bos`: as for `from_texts`.

    A task that the tokenizer cannot serve gets a row with the reason. Raises `ValueError` for an
    unknown task or n < 1.

    >>> {row.task: row.accuracy for row in survey_tasks(model, tokenizer)}
    """
    _check(names, n)
    bos_ids(tokenizer, bos)
    rows, names = [], list(names) or list(TASKS)
    for done, name in enumerate(names, start=1):
        try:
            prompts = TASKS[name](tokenizer, n=n, seed=seed, bos=bos)
        except ValueError as error:
            rows.append(TaskRow(name, 0, note=str(error)))
        else:
            rows.append(_row(model, name, prompts))
        if progress is not None:
            progress("tasks", done, len(names))
    return rows


def _check(names: Sequence[str], n: int) -> None:
    for name in names:
        if name not in TASKS:
            raise ValueError(f"unknown task {name!r}: the tasks are {', '.join(TASKS)}")
    if n < 1:
        raise ValueError(f"n={n}: every task needs at least one pair, n=64")


def _row(model, name: str, prompts: Prompts) -> TaskRow:
    # Lengths in steps of eight, so that tasks share their compiled runs.
    prompts = prompts.padded_to(-(-prompts.clean.shape[1] // 8) * 8)
    clean, corrupt = last_logits(model, prompts, batch=32)

    def mean(values) -> Interval:
        return interval(np.asarray(values), np.asarray(prompts.templates))

    both = None if name in ONE_WAY else int(known_both_ways(prompts, clean, corrupt).sum())
    return TaskRow(
        name,
        len(prompts),
        accuracy=mean(accuracy(clean, prompts)),
        clean=mean(logit_difference(clean, prompts)),
        corrupt=mean(logit_difference(corrupt, prompts)),
        known=both,
        dropped=prompts.dropped,
    )
