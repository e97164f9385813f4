"""What every command prints with: tables, progress bars, and where a run was written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

from .. import experiments, tasks
from .._types import Tell

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""

console = Console(width=None if sys.stdout.isatty() else WIDE)


@contextmanager
def bars() -> Iterator[Tell]:
    """Progress bars, one a stage, on standard error."""
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn())
    stages: dict[str, TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=done, total=total)

        yield tell


def print_rows(
    result, title: str, columns: tuple[str, ...], top: int, site: str | None = None
) -> None:
    """The rows with the largest effect."""
    rows = [row for row in result.table if site in (None, row.get("site"))]
    rows = sorted(rows, key=lambda row: -abs(row["importance"]))[:top]
    effect = "exact effect" if rows and "exact" in rows[0] else "importance"
    console.print(table_of(f"{title}, by size of the {effect}", rows, columns))


def table_of(title: str, rows, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns if rows else ()):
        words = isinstance(rows[0][column], str)
        table.add_column(escape(column), justify="left" if words else "right", no_wrap=not i)
    for row in rows:
        table.add_row(*(escape(_text(row[column])) for column in columns))
    return table


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def number(number: tasks.Interval) -> str:
    return f"{number.value:.2f} [{number.low:.2f}, {number.high:.2f}]"


def write(result: experiments.Result, out: Path) -> None:
    from .. import viz  # matplotlib, which only a finished run needs

    folder = out / result.name
    paths = viz.write(result, folder)
    seconds = result.seconds
    console.print(
        f"{seconds['total']:.1f} s, of which {seconds['compile']:.1f} s compiling; written to"
        f" {folder}: {', '.join(path.name for path in paths)}"
    )
