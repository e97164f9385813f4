"""`jaxcirc reproduce discrete-sae`: the study of O'Neill & Bui 2024 (arXiv 2405.12522).

On two idle cores the default takes about a quarter of an hour. Expect codes to find heads that
differ between the classes and no more: below gradients on the zoo, and nowhere where the negatives
show the behaviour too. Every section is kept when it is done; the same command goes on. May import
all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._types import Progress, Tell
from .._claim import Claim
from .._clock import clock
from .._result import Result, Row, finite, model_facts
from ..feature_circuits import Section, Store
from ._claims import cost_claims, known_claims, known_rows, robust_claims, swept_of
from ._cost import cost_section, task_cost
from ._known import known_section, rankings, roc_curves
from ._model import model_section
from ._presets import DiscreteSizes
from ._robust import robust_section, spread_rows


def study_discrete(
    model,
    tokenizer,
    folder: Path,
    *,
    sizes: DiscreteSizes = DiscreteSizes(),  # noqa: B008 (frozen)
    seed: int = 0,
    tell: Tell | None = None,
) -> Result:
    """Run the study, or what is left of it.

    - `folder`: where sections are kept; another study's raises `ValueError`. `sizes`: a preset's.

    Returns `Result`, whose rows name their `section`. Tasks that the tokenizer cannot have are left
    out, and the notes say so.

    >>> study_discrete(model, tokenizer, Path("runs/discrete-sae")).notes
    """
    with clock() as seconds:
        found = _Study(model, tokenizer, folder, sizes, seed, tell)
        found.run()
    facts = model_facts(model) | {"seed": seed, "sizes": dataclasses.asdict(sizes)}
    return Result(
        kind="study_discrete",
        task="discrete-sae",
        numbers={claim.text: claim.found for claim in found.claims},
        table=finite([*(claim.row() for claim in found.claims), *found.rows]),
        arrays=found.arrays,
        axes=dict.fromkeys(found.arrays, ("point",)),
        facts=facts,
        seconds=seconds,
        notes=[*found.notes, *READING],
    )


READING = (
    "AUCs on the zoo: over heads and MLPs (and pairs of them) that are known to be in the circuit"
    " or outside, mean over models and seeds; intervals resample components. A pair counts by the"
    " best edge between its two ends.",
    '"Discrete" compares texts with the behaviour to texts without; "corrupt pairs" compares the'
    " same pairs that all other methods see.",
    "On the language model there is no truth: sets of equal size are judged by what they keep when"
    " all other heads are ablated and MLPs are left alone. Codes rank heads by the mean over all"
    " dictionaries and all texts, gradients by fewer pairs, HISP among them; all see the prompts"
    " that sets are judged on. Random is the mean over orders.",
    "ACDC's whole search is reckoned at one run of the prompts for every edge, the least it takes.",
)


class _Study:
    """The sections in order, each adding rows, claims and notes."""

    def __init__(self, model, tokenizer, folder: Path, sizes: DiscreteSizes, seed: int, tell):
        self.model, self.tokenizer, self.sizes = model, tokenizer, sizes
        self.seed, self.tell = seed, tell
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        config = model.config
        job = {"sha256": config.sha256, "processing": config.processing, "model": config.name}
        self.store = Store(folder, job | {"sizes": dataclasses.asdict(sizes), "seed": seed})

    def run(self) -> None:
        self._known()
        self._robust()
        for task in self.sizes.tasks:
            self._task(task)
        if "ioi" in self.sizes.tasks:
            self._cost()

    def _progress(self, stage: str) -> Progress:
        def progress(done: int, total: int) -> None:
            if self.tell is not None:
                self.tell(stage, done, total)

        return progress

    def _each(self, stage: str, names, make: Callable[[str], Section]) -> Mapping[str, Section]:
        found, progress = {}, self._progress(stage)
        for i, name in enumerate(names):
            progress(i, len(names))
            try:
                own = self.store.section(f"{stage} {name}", lambda name=name: make(name))
                found[name] = own
            except ValueError as error:
                self.notes.append(f"{stage} {name} is left out: {error}")
            progress(i + 1, len(names))
        return found

    def _known(self) -> None:
        sizes, seed = self.sizes, self.seed
        found = self._each("zoo", sizes.cases, lambda name: known_section(name, sizes, seed))
        self.rows += known_rows(found)
        self.rows += [row for section in found.values() for row in section.rows]
        self.claims += known_claims(found)
        ranked = {case for by_case in rankings(found, "node").values() for case in by_case}
        self.notes += [
            f"{name}: no known component is outside of its circuit, so it has no AUC"
            for name in found
            if name not in ranked
        ]
        for part in ("node", "pair"):
            for label, rates in roc_curves(found, part).items():
                self.arrays[f"roc_{part}_{label}"] = rates.astype(np.float32)

    def _robust(self) -> None:
        sizes, seed = self.sizes, self.seed
        names = sizes.swept_cases
        found = self._each("sweeps", names, lambda name: robust_section(name, sizes, seed))
        rows = [row for section in found.values() for row in section.rows]
        self.rows += [*spread_rows(rows), *rows]
        self.claims += robust_claims(swept_of(found))

    def _task(self, task: str) -> None:
        options: Any = (self.sizes, self.seed, self._progress(task))
        try:
            found = self.store.section(
                task, lambda: model_section(self.model, self.tokenizer, task, *options)
            )
        except ValueError as error:
            self.notes.append(f"{task} is left out: {error}")
            return
        self.rows += found.rows
        self.claims += found.claims
        self.notes += found.notes

    def _cost(self) -> None:
        try:
            found = self.store.section(
                "cost", lambda: cost_section(self.model, self.tokenizer, self.sizes, self.seed)
            )
        except ValueError as error:
            self.notes.append(f"cost is left out: {error}")
            return
        costs = [row for row in found.rows if row["section"] == "cost"]
        costs += task_cost(self.rows, costs)
        self.rows += [*costs, *(row for row in found.rows if row["section"] == "size")]
        self.claims += cost_claims(costs)
