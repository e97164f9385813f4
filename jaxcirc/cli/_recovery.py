"""`jaxcirc recovery`."""

import dataclasses
from pathlib import Path
from typing import Literal

from .. import experiments
from ._sections import print_sections
from ._show import bars, write

COLUMNS = ("dictionary", "cosine", "F1", "found", "L0")
"""What is printed; `table.csv` has more."""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Every architecture of dictionary on synthetic activations whose dictionary is known."""

    preset: Literal["full", "quick"] = "full"
    """The document's sizes, or a look of seconds."""
    architectures: tuple[str, ...] = experiments.ARCHITECTURES
    """Some architectures only."""
    seeds: int = 3
    """Dictionaries of each, trained together."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        with bars() as tell:
            result = experiments.study_recovery(
                scale=experiments.SCALES[self.preset],
                architectures=self.architectures,
                seeds=self.seeds,
                progress=tell,
            )
        titles = {world: ": ".join(said) for world, said in experiments.WORLDS.items()}
        print_sections(result, titles, dict.fromkeys(titles, COLUMNS))
        write(result, self.out)
