"""Tables of several kinds in one result: a row names its `section`."""

from collections.abc import Mapping, Sequence

from ..experiments import Result, Row
from ._show import console, table_of


def print_sections(
    result: Result, titles: Mapping[str, str], columns: Mapping[str, Sequence[str]]
) -> None:
    """Print the sections that have a title, each with its columns (default: all), then the
    notes."""
    for section, title in titles.items():
        rows = [_cells(row) for row in result.table if row.get("section") == section]
        if rows:
            every = tuple(dict.fromkeys(name for row in rows for name in row))
            rows = [{name: row.get(name, "-") for name in every} for row in rows]
            wanted = [name for name in columns.get(section, every) if name in every]
            console.print(table_of(title, rows, tuple(wanted)))
    for note in result.notes:
        console.print(note, highlight=False)


def _cells(row: Row) -> dict[str, str]:
    """A row as words, an interval beside its number, without its section."""
    ends = {name: _ends(row, name) for name in row}
    inner = {end for pair in ends.values() if pair for end in pair} | {"section"}
    return {k: _cell(row[k], *[row[e] for e in ends[k] or ()]) for k in row if k not in inner}


def _ends(row: Row, name: str) -> tuple[str, str] | None:
    """The columns that hold a number's interval."""
    for low, high in ((f"{name} low", f"{name} high"), ("low", "high")):
        if low in row and (low != "low" or name in ("found", "z score", "values restored")):
            return low, high
    return None


def _cell(value: object, *ends: object) -> str:
    words = "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{words} [{', '.join(map(_cell, ends))}]" if ends else words
