"""Which model and which prompts a command works on."""

import dataclasses
from pathlib import Path

import tyro

from .. import tasks
from .._types import Bos
from ._show import console

Word = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Source:
    """Which model, and which prompts."""

    model: str = "smollm2-135m"
    """A name that `load_model` knows, or the path of a GGUF file."""
    prompts: Path | None = None
    """Your own pairs instead of a task: JSON lines with clean, corrupt, answers, wrongs, spans."""
    n: int = 32
    """Prompts to draw from the task."""
    seed: int = 0
    """Of the prompts, the random baselines and the lens."""
    bos: Bos = "model"
    """Whether a start token is put before every prompt; "model": as the model was trained."""


def prompts_of(source: Source, task: str, tokenizer):
    """The prompts asked for, and those that ablation means are taken over."""
    if source.prompts is not None:
        loaded = tasks.from_jsonl(tokenizer, source.prompts, bos=source.bos)
        for drop in loaded.drops:
            console.print(f"[yellow]dropped[/] {drop}")
        return loaded.prompts, None
    if task not in tasks.TASKS:
        raise ValueError(f"unknown task {task!r}: the tasks are {', '.join(tasks.TASKS)}")
    make = tasks.TASKS[task]
    prompts = make(tokenizer, n=source.n, seed=source.seed, bos=source.bos)
    return prompts, make(tokenizer, n=5 * source.n, seed=source.seed + 1, bos=source.bos)
