"""`jaxcirc leaderboard` and `jaxcirc atlas`."""

import dataclasses
from pathlib import Path

import tyro

from .. import experiments, models
from ._sections import print_sections
from ._show import bars, console, write
from ._source import Source, Word, prompts_of

TITLES = {
    "median": "methods over all cases, medians",
    "case": "every case",
}


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """Every method of edge discovery on small models whose circuits are known exactly."""

    methods: tuple[str, ...] = experiments.METHODS_RANKED
    """Some methods only."""
    cases: tuple[str, ...] = ()
    """Some models of the zoo only."""
    n: int = 32
    """Prompts of each case."""
    seed: int = 0
    """Of the prompts."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        with bars() as tell:
            result = experiments.leaderboard(
                methods=self.methods,
                cases=self.cases or None,
                n=self.n,
                seed=self.seed,
                progress=tell,
            )
        write(result, self.out)
        print_sections(result, TITLES, {})


@dataclasses.dataclass(frozen=True)
class Atlas:
    """The exact effect of every edge on a task: a long job, saved on the way; run it again to go
    on."""

    task: Word[str] = "ioi"
    """The task, when --prompts is not given."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source(n=12)
    share: float = 1.0
    """Stop when so much of the edges is done."""
    out: Path = Path("runs")
    """Where the job's folder goes."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.source.model)
        prompts, _ = prompts_of(self.source, self.task, tokenizer)
        folder = self.out / f"atlas-{prompts.name}-{prompts.hash()[:8]}"
        with bars() as tell:

            def progress(done: int, total: int) -> None:
                tell("chunks", done, total)

            result = experiments.atlas(model, prompts, folder, share=self.share, progress=progress)
        write(result, self.out)
        console.print(result.notes[0])
