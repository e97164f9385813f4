"""`jaxcirc overlap`."""

import dataclasses
from pathlib import Path
from typing import Literal

from rich.markup import escape

from .. import experiments
from ..experiments.overlap import overlap_file
from ._show import console, table_of
from ._source import Word


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How well the scores in a file recover a reference circuit."""

    file: Word[Path]
    """A graph JSON of EAP-IG, MIB or `write_graph`."""
    truth: str = "ioi/acdc"
    """The reference circuit, by name and version."""
    helpful: Literal["negative", "positive"] = "positive"
    """The sign of a helpful edge's score in the file; older files of EAP-IG have "negative"."""
    rank: Literal["size", "importance"] = "size"
    """Rank edges by the size of their score, or with those that hinder last."""

    def __call__(self) -> None:
        report = overlap_file(self.file, self.truth, helpful=self.helpful, rank=self.rank)
        rows = [_text(row) for row in report.rows]
        title = f"{self.file.name} against {report.truth.name} ({report.truth.model})"
        console.print(table_of(escape(title), rows, tuple(rows[0])))
        console.print(f"{report.truth.name}: {report.truth.source}", style="dim", markup=False)


def _text(row: experiments.Row) -> dict[str, str]:
    return {
        "parts": str(row["parts"]),
        "n": f"{row['n']:,}",
        "in the circuit": f"{row['in_circuit']:,}",
        "AUROC": f"{row['auroc']:.4f}",
    }
