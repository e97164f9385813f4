"""`jaxcirc features circuit`."""

import dataclasses
from pathlib import Path
from typing import Literal

from .. import experiments
from .._types import Tell
from ..experiments import feature_circuits
from ..experiments.dictionaries import read_annotations, write_annotations
from ..experiments.feature_circuits import NEXT, CircuitReport, Split, Wanted
from ._features_source import SUITE, check_text, open_suite
from ._sections import print_sections
from ._show import bars, console, write
from ._source import Word

TITLES = {
    "place": "places: what their nodes leave unexplained, and what errors carry",
    "node": "nodes",
    "edge": "edges",
    "curve": "faithfulness of the best nodes, on other prompts",
    "edges kept": "faithfulness with the best edges alone",
}
COLUMNS = {
    "node": ("node", "token", "importance", "label"),
    "edge": ("edge", "importance"),
    "place": ("place", "cut", "points", "joint effect", "gap", "gap, share", "error share"),
}
SHOWN = {"node": 25, "edge": 15}
"""Rows printed; `table.csv` holds all."""


@dataclasses.dataclass(frozen=True)
class Circuit:
    """The circuit of a task in the features of spliced dictionaries: nodes, edges, how faithful
    they are, a picture, and a page to walk through."""

    task: Word[str]
    """A task of `jaxcirc tasks`, such as agreement_across; or next: the commonest token of text
    that the model predicts well."""
    suite: Path = SUITE
    """A shipped suite's name, a folder of dictionaries, or the paper's own folder, for --model
    pythia-70m-deduped or gemma-2-2b."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the dictionaries' cards say)."""
    n: int = 24
    """Prompts to find it on, and as many to judge it by."""
    nodes: int = 60
    """Nodes kept."""
    edges: int = 200
    """Edges kept."""
    method: Literal["ig", "atp", "relp", "exact"] = "ig"
    """How nodes are scored."""
    tolerance: float = 0.01
    """The completeness gap, as a share, for which ig takes points enough."""
    patch: Literal["counterfactual", "zero", "mean", "resample"] = "counterfactual"
    """What nodes are set to when they are scored."""
    ablation: Literal["mean", "resample", "zero"] = "mean"
    """What nodes outside of a circuit are set to when it is judged."""
    errors: Literal["default", "kept", "attn+mlp removed", "removed"] = "default"
    """What becomes of errors then."""
    start: int = 0
    """Places below this layer are free then."""
    text: tuple[Path, ...] = ()
    """Text for the features' contexts (default: sampled from the model itself)."""
    tokens: int = 16_384
    """Tokens of it; 0: no contexts."""
    notes: Path | None = None
    """Annotations to show: JSON lines with feature, place and text."""
    explain: bool = False
    """Label the other features by n-gram rules."""
    seed: int = 0
    """Of the prompts and the text."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        notes = [] if self.notes is None else read_annotations(self.notes)
        wanted = self._checked()
        model, tokenizer, basis = open_suite(self.suite, self.model).load()
        with bars() as tell:
            contexts = self._contexts(model, tokenizer, tell) if self.tokens else None
            report = feature_circuits.feature_circuit(
                model,
                tokenizer,
                self._split(model, tokenizer, contexts),
                basis,
                wanted,
                contexts=contexts,
                annotations=notes,
                explained=self.explain,
                tell=tell,
            )
        show(report)
        save(report, self.out)

    def _checked(self) -> Wanted:
        """How the circuit is wanted; whatever can be refused is, before anything is loaded."""
        if self.task != NEXT:
            feature_circuits.check_task(self.task)
        elif not self.tokens:
            raise ValueError("next: tokens of text are predicted; give --tokens 16384")
        if self.n < 4:
            raise ValueError(f"--n {self.n}: a circuit is found on 4 prompts or more, --n 24")
        check_text(self.text)
        return Wanted(
            nodes=self.nodes,
            edges=self.edges,
            method=self.method,
            tolerance=self.tolerance,
            patch=self.patch,
            value=self.ablation,
            errors=self.errors,
            start=self.start,
        )

    def _contexts(self, model, tokenizer, tell: Tell):
        return experiments.contexts_of(
            model,
            tokenizer,
            self.text,
            tokens=self.tokens,
            length=64,
            seed=self.seed,
            stream="judge",
            progress=lambda done, total: tell("sampling text", done, total),
        )

    def _split(self, model, tokenizer, contexts) -> Split:
        if self.task != NEXT:
            return feature_circuits.split_of(model, tokenizer, self.task, self.n, self.seed)
        found = {"behaviours": 1, "seed": self.seed}
        return feature_circuits.next_tokens(model, tokenizer, contexts, self.n, **found)[0]


def show(report: CircuitReport) -> None:
    """Print nodes, edges, gaps and faithfulness."""
    result = report.result
    left = dict.fromkeys(SHOWN, 0)
    rows = []
    for row in result.table:
        section = str(row.get("section"))
        if section in SHOWN:
            left[section] += 1
            if left[section] > SHOWN[section]:
                continue
        rows.append(row)
    print_sections(dataclasses.replace(result, table=rows), TITLES, COLUMNS)


def save(report: CircuitReport, out: Path) -> None:
    """Write the result, the circuit's file, its page, and its annotations."""
    from .. import viz  # matplotlib, which only a finished run needs

    write(report.result, out)
    folder = out / report.result.name
    paths = [
        report.circuit.save(folder / "circuit.json"),
        viz.write_feature_circuit(report.result, folder / "circuit.html", report.pages),
        write_annotations(report.annotations, folder / "annotations.jsonl"),
    ]
    console.print(f"and {', '.join(path.name for path in paths)}")
