"""The table of a page: rows as HTML, an interval beside its number, every text escaped."""

import math
from collections.abc import Sequence
from html import escape

from ..experiments import Result
from . import _reading

AT_MOST = 1500
"""Rows on a page; `table.csv` holds all."""
NAMES = ("node", "edge", "cell")
RANGES = {"exact": ("exact_low", "exact_high"), "raw": ("low", "high")}


def rows_of(result: Result) -> list:
    """The rows a page shows: all of them, or the most important ones in the order of the table."""
    if len(result.table) <= AT_MOST:
        return list(result.table)
    sizes = [abs(float(row.get("importance") or 0)) for row in result.table]
    kept = set(sorted(range(len(sizes)), key=lambda i: -sizes[i])[:AT_MOST])
    return [row for i, row in enumerate(result.table) if i in kept]


def table(result: Result) -> str:
    """A filter and a table whose heads sort it; empty if the result has no rows."""
    rows = rows_of(result)
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    absorbed = {end for name, ends in RANGES.items() if name in columns for end in ends}
    columns = [name for name in columns if name not in absorbed]
    heads = "".join(_head(name, rows) for name in columns)
    lines = "\n".join(_line(row, columns) for row in rows)
    left = len(result.table) - len(rows)
    more = f'<p class="note">{left} rows of less importance are in table.csv.</p>' if left else ""
    return (
        '<div class="tools"><input id="filter" type="search" placeholder="filter rows"'
        f' aria-label="filter rows"><span id="count" class="note">{len(rows)} rows</span></div>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody>'
        f"</table></div>{more}"
    )


def _head(name: str, rows: Sequence) -> str:
    numeric = any(_is_number(row.get(name)) for row in rows)
    kind = ' class="number"' if numeric else ""
    return f'<th{kind} scope="col"><button type="button">{escape(name)}</button></th>'


def _line(row, columns: Sequence[str]) -> str:
    return f"<tr>{''.join(_cell(row, name) for name in columns)}</tr>"


def _cell(row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "<td></td>"
    if not _is_number(value):
        kind = f' class="name {_sense(row)}"' if name in NAMES else ""
        return f"<td{kind}>{escape(str(value))}</td>"
    key = f' data-value="{value!r}"' if math.isfinite(value) else ' data-value="0"'
    return f'<td class="number"{key}>{_number(value)}{_range(row, name)}</td>'


def _sense(row) -> str:
    importance = row.get("importance") or 0
    return "helps" if importance > 0 else "opposes"


def _range(row, name: str) -> str:
    ends = [row.get(end) for end in RANGES.get(name, ())]
    if not ends or None in ends:
        return ""
    return f" <small>[{', '.join(map(_number, ends))}]</small>"


def _number(value: int | float) -> str:
    return str(value) if isinstance(value, int) else _reading.number(float(value), 3)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
