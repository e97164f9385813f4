"""`jaxcirc discover`."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from .. import experiments, models
from .._types import Direction
from ._discover_discrete import DiscreteOptions, discover_discrete
from ._show import bars, console, number, print_rows, table_of, write
from ._source import Source, Word, prompts_of

PATCHED = ("metric", "direction", "verify", "sizes", "draws")
"""Options of methods that patch."""


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
    level: Literal["node", "edge"] = "node"
    """node: heads and MLPs, verified exactly; edge: what each reads of which, by --method."""
    method: str = "eap-ig"
    """How edges are scored (level edge): see `jaxcirc compare --help`; or "discrete": heads whose
    codes only texts with the behaviour have, no text patched into another."""
    verify: int = 60
    """Nodes patched exactly (level node)."""
    sizes: tuple[int, ...] = ()
    """Circuit sizes whose faithfulness is measured (default: 1 to 60 nodes, or 10 to 10,000
    edges)."""
    draws: int = 5
    """Random circuits of each size."""
    out: Path = Path("runs")
    """Where the run's folder goes."""
    discrete: tyro.conf.OmitArgPrefixes[DiscreteOptions] = DiscreteOptions()

    def __call__(self) -> None:
        if self.method == "discrete" and self.level == "node":
            self._refuse_others()
            discover_discrete(self.source, self.task, self.discrete, self.out)
            return
        if self.discrete != DiscreteOptions():
            raise ValueError("--positives and the like need --method discrete (level node)")
        if self.level == "node" and self.method != Discover.method:
            raise ValueError(
                f"--method {self.method} scores edges: --level edge --method {self.method}"
            )
        model, tokenizer = models.load_model(self.source.model)
        prompts, reference = prompts_of(self.source, self.task, tokenizer)
        with bars() as tell:
            find = self._edges if self.level == "edge" else self._nodes
            result = find(model, prompts, reference, tell)
        write(result, self.out)
        _print(result)

    def _refuse_others(self) -> None:
        """Raise `ValueError` for options that ranking by codes has no use for."""
        given = [name for name in PATCHED if getattr(self, name) != getattr(Discover, name)]
        if given:
            raise ValueError(f"--method discrete patches nothing: leave out --{', --'.join(given)}")

    def _nodes(self, model, prompts, reference, tell) -> experiments.Result:
        return experiments.discover_task(
            model,
            prompts,
            reference=reference,
            metric=self.metric,
            direction=self.direction,
            verify=self.verify,
            sizes=self.sizes or experiments.NODE_SIZES,
            draws=self.draws,
            seed=self.source.seed,
            progress=tell,
        )

    def _edges(self, model, prompts, reference, tell) -> experiments.Result:
        if self.direction != "noise":
            raise ValueError("edges are dropped from clean runs: --level edge --direction noise")
        return experiments.discover_edges(
            model,
            prompts,
            method=self.method,
            metric=self.metric,
            sizes=self.sizes or experiments.EDGE_SIZES,
            draws=self.draws,
            seed=self.source.seed,
            progress=tell,
        )


def _print(result: experiments.Result) -> None:
    clean, corrupt = result.numbers["clean"], result.numbers["corrupt"]
    console.print(
        f"[bold]{result.task}[/] on {result.facts['model']}, {result.facts['prompts']} prompts:"
        f" {result.facts['metric'].replace('_', ' ')} {number(clean)} clean, {number(corrupt)}"
        " corrupt"
    )
    if result.kind == "discover_edges":
        print_rows(result, "ten edges", ("edge", "importance"), 10)
    else:
        print_rows(result, "ten heads", ("node", "exact", "atp", "importance", "lens"), 10, "z")
    rows = _faithfulness(result)
    console.print(table_of("faithfulness", rows, tuple(rows[0])))
    for note in result.notes:
        console.print(note, style="dim")


def _faithfulness(result: experiments.Result) -> list[dict[str, str]]:
    parts = "edges" if result.kind == "discover_edges" else "nodes"
    rows = []
    for size, random in zip(result.arrays["sizes"], result.arrays["random"], strict=True):
        row = {parts: str(size), "faithfulness": number(result.numbers[f"faithfulness_{size}"])}
        if f"complement_{size}" in result.numbers:
            row["all but these"] = number(result.numbers[f"complement_{size}"])
        rows.append(row | {"random": f"{random.mean():.3f}"})
    return rows
