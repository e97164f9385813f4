"""`jaxcirc observe`."""

import dataclasses
from pathlib import Path

from .. import experiments, models, tasks
from ._sections import print_sections
from ._show import console, write

TITLES = {
    "head": "heads by the length of what they read for it (weights alone)",
    "feature": "what their features read: the nearest embeddings, and the opposite ones",
    "coupling": "coupling: the reading of one given 1 in the other, x on the sphere of its norm",
    "path": "two heads in a row, by length",
}


@dataclasses.dataclass(frozen=True)
class Observe:
    """Find the heads that write an observable of the next token, by weights alone."""

    positive: tuple[str, ...] = (" she",)
    """Tokens that count for it, with their leading spaces."""
    negative: tuple[str, ...] = (" he",)
    """Tokens that count against it."""
    also: tuple[str, ...] = ()
    """Other observables to compare at the same heads, each as "POSITIVE/NEGATIVE": " her/ him"."""
    model: str = "smollm2-135m"
    """A name that `load_model` knows, or the path of a GGUF file."""
    task: str | None = None
    """A task on whose pairs direct effects are measured beside: "pronouns"."""
    n: int = 32
    """Pairs of that task."""
    top: int = 8
    """Heads to look at."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        if self.task is not None and self.task not in tasks.TASKS:
            raise ValueError(f"unknown task {self.task!r}: use {', '.join(tasks.TASKS)}")
        for words in self.also:
            if "/" not in words:
                raise ValueError(f'{words!r} names one side: --also " her/ him"')
        model, tokenizer = models.load_model(self.model)
        asked = experiments.observable_of(tokenizer, self.positive, self.negative)
        others = [_parsed(tokenizer, words) for words in self.also]
        prompts = None
        if self.task is not None:
            prompts = tasks.TASKS[self.task](tokenizer, n=self.n)
        result = experiments.observe(model, tokenizer, asked, others, prompts=prompts, top=self.top)
        console.print(f"{asked.name} on {model.config.name}", style="bold", markup=False)
        print_sections(result, TITLES, {})
        write(result, self.out)


def _parsed(tokenizer, words: str):
    positive, _, negative = words.partition("/")
    return experiments.observable_of(tokenizer, positive, negative or ())
