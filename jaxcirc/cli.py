"""The command line: one frozen dataclass a command, its fields the options. May import everything.

jaxcirc discover ioi                     find a task's circuit, judge it, draw it
jaxcirc patch ioi --site z               exact effects of every cell of a site
jaxcirc lens "The capital of France is"  what each layer and head says of the next token
jaxcirc tasks smollm2-135m               what a model can do, task by task
jaxcirc parity smollm2-135m              logits against stored reference logits
jaxcirc parity --all                     the same for a tiny model of every family
"""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from . import experiments, models, tasks, viz
from ._types import Bos, Direction

console = Console()
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


@dataclasses.dataclass(frozen=True)
class Discover:
    """Find the heads and MLPs behind a behaviour, verify them exactly, and measure the circuit."""

    task: Word[str] = "ioi"
    """The task, when --prompts is not given."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    metric: Literal["logit_difference", "probability", "log_probability", "kl"] = "logit_difference"
    """What is explained."""
    direction: Direction = "noise"
    """noise: corrupt into clean (necessity); denoise: clean into corrupt (sufficiency)."""
    verify: int = 60
    """Nodes patched exactly."""
    sizes: tuple[int, ...] = (1, 2, 4, 7, 11, 16, 24, 35, 47, 60)
    """Circuit sizes whose faithfulness is measured."""
    draws: int = 5
    """Random circuits of each size."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.source.model)
        prompts, reference = _prompts(self.source, self.task, tokenizer)
        with _bars() as tell:
            result = experiments.discover_task(
                model,
                prompts,
                reference=reference,
                metric=self.metric,
                direction=self.direction,
                verify=self.verify,
                sizes=self.sizes,
                draws=self.draws,
                seed=self.source.seed,
                progress=tell,
            )
        _write(result, self.out)
        _print_discover(result)


@dataclasses.dataclass(frozen=True)
class Patch:
    """Patch every cell of a site exactly, one at a time."""

    task: Word[str] = "ioi"
    """The task, when --prompts is not given."""
    site: str = "z"
    """Any per-layer site; TransformerLens's names are understood."""
    by: tuple[str, ...] | None = None
    """Axes to resolve besides the layer, such as pos, head, d_mlp (default: heads)."""
    pos: str | None = None
    """Patch within this span only."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    metric: Literal["logit_difference", "probability", "log_probability", "kl"] = "logit_difference"
    """What is measured."""
    direction: Direction = "noise"
    """noise: corrupt into clean; denoise: clean into corrupt."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.source.model)
        prompts, _ = _prompts(self.source, self.task, tokenizer)
        with _bars() as tell:
            result = experiments.patch_task(
                model,
                prompts,
                site=self.site,
                by=self.by,
                pos=self.pos,
                metric=self.metric,
                direction=self.direction,
                seed=self.source.seed,
                columns=_columns(prompts, tokenizer),
                progress=tell,
            )
        _print_rows(result, "cell", ("cell", "raw", "low", "high", "importance"), 15)
        _write(result, self.out)


@dataclasses.dataclass(frozen=True)
class Lens:
    """What every layer predicts for a text, and which heads write the prediction."""

    text: Word[str]
    """The text; the token after it is looked at."""
    model: str = "smollm2-135m"
    """A name that `load_model` knows, or the path of a GGUF file."""
    bos: Bos = "model"
    """Whether a start token is put before the text."""
    top: int = 10
    """Heads to list."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.model)
        found = experiments.lens_text(model, tokenizer, self.text, bos=self.bos, top=self.top)
        console.print(found.headline, markup=False)
        for title, rows in (("logit lens", found.layers), ("heads", found.heads)):
            console.print(_rich_table(title, rows, tuple(rows[0])))


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
        with experiments.clock() as seconds, _bars() as tell:
            found = experiments.survey_tasks(model, tokenizer, self.only, **options, progress=tell)
        rows = [_task_row(row) for row in found]
        title = f"tasks of {model.config.name}: accuracy, logit difference clean and corrupt"
        console.print(_rich_table(title, rows, tuple(rows[0])))
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


@dataclasses.dataclass(frozen=True)
class Parity:
    """Logits against stored reference logits of another implementation on the same weights."""

    model: Word[str] = "smollm2-135m"
    """A model with stored reference logits."""
    all: bool = False
    """Compare a tiny random model of every family instead."""

    def __call__(self) -> None:
        if self.all:
            return self._families()
        report = models.parity(self.model)
        rows = [dataclasses.asdict(row) for row in report.rows]
        console.print(
            _rich_table(f"parity of {report.model} ({report.made_by})", rows, tuple(rows[0]))
        )
        for precision in ("highest", "default"):
            console.print(
                f"largest logit difference at {precision} precision: {report.worst(precision):.2e}"
                f" (goal {report.goal:g})"
            )
        if not report.passed:
            sys.exit(1)

    def _families(self) -> None:
        found = models.parity_of_families()
        rows = [
            dataclasses.asdict(row) | {"passed": "yes" if row.passed else "NO"} for row in found
        ]
        console.print(
            _rich_table("max |ours - transformers| / max |transformers|", rows, tuple(rows[0]))
        )
        failed = [row.family for row in found if not row.passed]
        if failed:
            sys.exit(f"jaxcirc: no parity (goal {models.FAMILY_GOAL:g}) for {', '.join(failed)}")
        console.print(f"{len(found)} families, each within {models.FAMILY_GOAL:g}")


Command = (
    Annotated[Discover, tyro.conf.subcommand("discover")]
    | Annotated[Patch, tyro.conf.subcommand("patch")]
    | Annotated[Lens, tyro.conf.subcommand("lens")]
    | Annotated[Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[Parity, tyro.conf.subcommand("parity")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an expected error is one line and exit status 1."""
    command = tyro.cli(Command, args=arguments, prog="jaxcirc", description=__doc__)
    jax.config.update("jax_compilation_cache_dir", str(models.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:
        command()
    except (ValueError, OSError) as error:
        if os.environ.get("JAXCIRC_TRACEBACK"):
            raise
        sys.exit(f"jaxcirc: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        sys.exit("jaxcirc: interrupted")


def _prompts(source: Source, task: str, tokenizer):
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


def _columns(prompts: tasks.Prompts, tokenizer) -> list[str]:
    """A label for every position: its token if all prompts share it, else its span or number."""
    clean, mask = np.asarray(prompts.clean), np.asarray(prompts.mask)
    labels = []
    for column in range(clean.shape[1]):
        spans = [name for name, span in prompts.spans.items() if np.asarray(span)[:, column].any()]
        same = mask[:, column].all() and (clean[:, column] == clean[0, column]).all()
        token = tokenizer.decode([int(clean[0, column])])
        labels.append(token if same else "/".join(spans) or str(column))
    return labels


@contextmanager
def _bars() -> Iterator[experiments.Tell]:
    """Progress bars, one a stage, on standard error."""
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn())
    stages: dict[str, TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=done, total=total)

        yield tell


def _print_discover(result: experiments.Result) -> None:
    clean, corrupt = result.numbers["clean"], result.numbers["corrupt"]
    console.print(
        f"[bold]{result.task}[/] on {result.facts['model']}, {result.facts['prompts']} prompts:"
        f" {result.facts['metric'].replace('_', ' ')} {_number(clean)} clean, {_number(corrupt)}"
        " corrupt"
    )
    _print_rows(result, "ten heads", ("node", "exact", "atp", "importance", "lens"), 10, "z")
    rows = [
        {
            "nodes": size,
            "faithfulness": _number(result.numbers[f"faithfulness_{size}"]),
            "all but these": _number(result.numbers[f"complement_{size}"]),
            "random": f"{result.arrays['random'][i].mean():.3f}",
        }
        for i, size in enumerate(result.facts["sizes"])
    ]
    console.print(_rich_table("faithfulness", rows, tuple(rows[0])))
    for note in result.notes:
        console.print(note, style="dim")


def _print_rows(
    result, title: str, columns: tuple[str, ...], top: int, site: str | None = None
) -> None:
    """The rows with the largest exact effect."""
    rows = [row for row in result.table if site in (None, row.get("site"))]
    rows = sorted(rows, key=lambda row: -abs(row["importance"]))[:top]
    console.print(_rich_table(f"{title}, by size of the exact effect", rows, columns))


def _task_row(row: experiments.TaskRow) -> dict[str, str]:
    def mean(found: tasks.Interval | None) -> str:
        return "-" if found is None else f"{found.value:.2f}"

    return {
        "task": row.task,
        "n": str(row.n),
        "accuracy": "-" if row.accuracy is None else _number(row.accuracy),
        "clean": mean(row.clean),
        "corrupt": mean(row.corrupt),
        "both": "-" if row.known is None else str(row.known),
        "dropped": str(row.dropped),
    }


def _rich_table(title: str, rows, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns if rows else ():
        words = isinstance(rows[0][column], str)
        table.add_column(escape(column), justify="left" if words else "right")
    for row in rows:
        table.add_row(*(escape(_text(row[column])) for column in columns))
    return table


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(number: tasks.Interval) -> str:
    return f"{number.value:.2f} [{number.low:.2f}, {number.high:.2f}]"


def _write(result: experiments.Result, out: Path) -> None:
    folder = out / result.name
    paths = viz.write(result, folder)
    seconds = result.seconds
    console.print(
        f"{seconds['total']:.1f} s, of which {seconds['compile']:.1f} s compiling; written to"
        f" {folder}: {', '.join(path.name for path in paths)}"
    )
