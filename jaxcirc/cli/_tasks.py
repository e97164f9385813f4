"""`jaxcirc tasks`."""

import dataclasses

from rich.markup import escape

from .. import experiments, models, tasks
from .._types import Bos
from ._show import bars, console, number, table_of
from ._source import Word


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What a model can do: accuracy, logit differences and drops on every task."""

    model: Word[str] = "smollm2-135m"
    """A name that `load_model` knows, or the path of a GGUF file."""
    only: tuple[str, ...] = ()
    """Some tasks only."""
    n: int = 64
    """Prompts to draw from each task."""
    seed: int = 0
    """Of the prompts."""
    bos: Bos = "model"
    """Whether a start token is put before every prompt; "model": as the model was trained."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.model)
        options = {"n": self.n, "seed": self.seed, "bos": self.bos}
        with experiments.clock() as seconds, bars() as tell:
            found = experiments.survey_tasks(model, tokenizer, self.only, **options, progress=tell)
        rows = [_task_row(row) for row in found]
        title = f"tasks of {model.config.name}: accuracy, logit difference clean and corrupt"
        console.print(table_of(title, rows, tuple(rows[0])))
        for row in found:
            if row.note:
                console.print(f"[yellow]{row.task}[/]: {escape(row.note)}")
        for line in (
            "accuracy: best answer above best wrong, clustered by template",
            "both: pairs whose corrupt prompt gets its own answer too",
            "dropped: pairs drawn that the tokenizer cannot use",
            f"{seconds['total']:.1f} s, of which {seconds['compile']:.1f} s compiling",
        ):
            console.print(line, style="dim")


def _task_row(row: experiments.TaskRow) -> dict[str, str]:
    def mean(found: tasks.Interval | None) -> str:
        return "-" if found is None else f"{found.value:.2f}"

    return {
        "task": row.task,
        "n": str(row.n),
        "accuracy": "-" if row.accuracy is None else number(row.accuracy),
        "clean": mean(row.clean),
        "corrupt": mean(row.corrupt),
        "both": "-" if row.known is None else str(row.known),
        "dropped": str(row.dropped),
    }
