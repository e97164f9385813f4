"""Prompts to find a circuit on and others to judge it by, of one length. May import `tasks`.

The reference data's test prompts also occur in its training data; here splits of agreement share no
noun, and no split shares a prompt.
"""

import dataclasses

import numpy as np

from ... import patching, tasks
from ...tasks import Prompts

SPARE = 6
"""Prompts drawn for each that is asked for: of one length, and known, fewer are left."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Prompts of one task.

    - `discovery`, `evaluation`: disjoint; `templates` are what intervals resample (the subject's
      noun, for agreement). `told`: how they were drawn.
    """

    name: str
    discovery: Prompts
    evaluation: Prompts
    told: str = ""


def split_of(model, tokenizer, task: str, n: int, seed: int = 0, *, known: bool = True) -> Split:
    """The two splits of a task of `tasks.TASKS`.

    - `n`: prompts of each, fewer if the model knows fewer. `known`: keep those that the model
      answers right both ways.

    Raises `ValueError` for an unknown task, and for fewer than four prompts.

    >>> split_of(model, tokenizer, "agreement_across", 24).discovery.texts[0]
    """
    check_task(task)
    drawn = _drawn(tokenizer, task, n, seed)
    length = tasks.common_length(drawn[0])
    found, told = [], []
    for prompts in drawn:
        own = tasks.of_length(prompts, length)
        kept = patching.known(model, own)[0] if known else own
        told.append(f"{len(kept)} of {len(own)}")
        found.append(kept.take(range(min(n, len(kept)))))
    least = min(map(len, found))
    if least < 4:
        raise ValueError(f"{task}: {least} prompts are known of {length} tokens; use a larger n")
    words = f"{task}: {length} tokens; known both ways {' and '.join(told)}" if known else task
    return Split(task, *(_named(prompts, task) for prompts in found), told=words)


def check_task(task: str) -> None:
    """Raise `ValueError` for an unknown task."""
    if task not in tasks.TASKS:
        raise ValueError(f"unknown task {task!r}: the tasks are {', '.join(tasks.TASKS)}")


def _drawn(tokenizer, task: str, n: int, seed: int) -> tuple[Prompts, Prompts]:
    """Many prompts of either split: by noun for agreement, by text for others."""
    make = tasks.TASKS[task]
    if task.startswith("agreement"):
        train = _most(make, tokenizer, n, seed, split="train")
        return train, _most(make, tokenizer, n, seed, split="test")
    first, second = (_most(make, tokenizer, n, seed + i) for i in range(2))
    seen = set(first.texts)
    return first, second.take([i for i, text in enumerate(second.texts) if text not in seen])


def _most(make, tokenizer, n: int, seed: int, **options) -> Prompts:
    """As many as `SPARE` for each, or as a task has."""
    for count in range(SPARE, 1, -1):
        try:
            return make(tokenizer, n=count * n, seed=seed, **options)
        except ValueError:
            continue
    return make(tokenizer, n=n, seed=seed, **options)


def _named(prompts: Prompts, name: str) -> Prompts:
    return dataclasses.replace(prompts, name=name)


def clusters(prompts: Prompts) -> np.ndarray:
    """What intervals resample: Int[example]."""
    return np.asarray(prompts.templates)
