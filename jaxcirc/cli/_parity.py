"""`jaxcirc parity`."""

import dataclasses
import sys

from .. import models
from ._show import console, table_of
from ._source import Word


@dataclasses.dataclass(frozen=True)
class Parity:
    """Logits against stored reference logits of another implementation on the same weights."""

    model: Word[str] = "smollm2-135m"
    """A model with stored reference logits, or a family, of which a tiny random model is stored."""
    all: bool = False
    """Compare every family."""

    def __call__(self) -> None:
        if self.all or self.model in models.families():
            return self._families(*(() if self.all else (self.model,)))
        report = models.parity(self.model)
        rows = [dataclasses.asdict(row) for row in report.rows]
        console.print(
            table_of(f"parity of {report.model} ({report.made_by})", rows, tuple(rows[0]))
        )
        for precision in ("highest", "default"):
            console.print(
                f"largest logit difference at {precision} precision: {report.worst(precision):.2e}"
                f" (goal {report.goal:g})"
            )
        if not report.passed:
            sys.exit(1)

    def _families(self, *names: str) -> None:
        found = models.parity_of_families(*names)
        rows = [
            dataclasses.asdict(row) | {"passed": "yes" if row.passed else "NO"} for row in found
        ]
        console.print(
            table_of("max |ours - transformers| / max |transformers|", rows, tuple(rows[0]))
        )
        failed = [row.family for row in found if not row.passed]
        if failed:
            sys.exit(f"jaxcirc: no parity (goal {models.FAMILY_GOAL:g}) for {', '.join(failed)}")
        console.print(f"{len(found)} families, each within {models.FAMILY_GOAL:g}")
