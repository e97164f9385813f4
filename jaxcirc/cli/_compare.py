"""`jaxcirc compare`."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from .. import experiments, models
from ._sections import print_sections
from ._show import bars, console, number, write
from ._source import Source, Word, prompts_of

COLUMNS = {
    "method": ("method", "CPR", "CMD", "rank", "recall", "seconds", "GB"),
    "agreement": ("methods", "jaccard"),
    "exact": ("edge", "importance"),
}
TITLES = {
    "method": "methods, with exact effects of sampled edges beside them",
    "agreement": "overlap of the methods' best edges",
    "exact": "the largest exact effects among the sampled edges",
}


@dataclasses.dataclass(frozen=True)
class Compare:
    """Every method of edge discovery on a task: faithfulness, exact effects, time, memory."""

    task: Word[str] = "ioi"
    """The task, when --prompts is not given."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source(n=24)
    methods: tuple[str, ...] = experiments.METHODS_COMPARED
    """Any of eap, eap-ig, eap-ig-activations, clean-corrupted, relp, ifr, hisp, sp, edge-sp,
    edge-pruning, acdc, discrete, discrete-nodes, random, exact."""
    metric: Literal["logit_difference", "probability", "log_probability"] = "logit_difference"
    """What is explained."""
    sample: int = 600
    """Edges patched exactly."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.source.model)
        prompts, _ = prompts_of(self.source, self.task, tokenizer)
        with bars() as tell:
            result = experiments.compare_methods(
                model,
                prompts,
                methods=self.methods,
                metric=self.metric,
                sample=self.sample,
                seed=self.source.seed,
                progress=tell,
            )
        write(result, self.out)
        clean, corrupt = result.numbers["clean"], result.numbers["corrupt"]
        console.print(
            f"[bold]{result.task}[/] on {result.facts['model']}, {result.facts['prompts']} prompts:"
            f" {number(clean)} clean, {number(corrupt)} with every edge dropped"
        )
        print_sections(result, TITLES, COLUMNS)
