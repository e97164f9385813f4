"""`jaxcirc discover`."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from .. import experiments, models
from .._types import Direction
from ._show import bars, console, number, print_rows, table_of, write
from ._source import Source, Word, prompts_of


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
        prompts, reference = prompts_of(self.source, self.task, tokenizer)
        with bars() as tell:
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
        write(result, self.out)
        _print(result)


def _print(result: experiments.Result) -> None:
    clean, corrupt = result.numbers["clean"], result.numbers["corrupt"]
    console.print(
        f"[bold]{result.task}[/] on {result.facts['model']}, {result.facts['prompts']} prompts:"
        f" {result.facts['metric'].replace('_', ' ')} {number(clean)} clean, {number(corrupt)}"
        " corrupt"
    )
    print_rows(result, "ten heads", ("node", "exact", "atp", "importance", "lens"), 10, "z")
    rows = [
        {
            "nodes": size,
            "faithfulness": number(result.numbers[f"faithfulness_{size}"]),
            "all but these": number(result.numbers[f"complement_{size}"]),
            "random": f"{result.arrays['random'][i].mean():.3f}",
        }
        for i, size in enumerate(result.facts["sizes"])
    ]
    console.print(table_of("faithfulness", rows, tuple(rows[0])))
    for note in result.notes:
        console.print(note, style="dim")
