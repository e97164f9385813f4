"""One model's part of the study: its tasks, section after section, each kept when it is done.

May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ..._types import Tell
from ...circuits.features import Basis, FeatureScores
from ...dictionaries.train import Contexts
from .._claim import Claim
from .._result import Row
from .._train import contexts_of
from ..dictionaries import Annotation
from ._baselines import bases_of
from ._behaviours import next_tokens
from ._circuit_rows import place_rows
from ._curves import curves_of
from ._edges import judge_edges
from ._layers import compare_layers
from ._mean import mean_rows
from ._presets import NEXT
from ._prompts import Split, split_of
from ._ready import How, Ready, digest
from ._scores import pack, score_bases, unpack
from ._store import Section, Store
from ._words import annotations_of, explain_kinds


class Part:
    """One model's tasks, section after section."""

    def __init__(self, ready: Ready, folder: Path, how: How, tell: Tell | None):
        self.ready, self.how, self.tell = ready, how, tell
        self.model, self.basis = ready.model, ready.basis
        self.sizes, self.subject = ready.subject.sizes, ready.subject
        self.name = ready.model.config.name
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self.annotations: list[Annotation] = []
        self.store = Store(folder / self.name, self._job())

    def _job(self) -> dict[str, Any]:
        config, subject = self.model.config, dataclasses.asdict(self.subject)
        how = dataclasses.asdict(self.how) | {"text": [str(path) for path in self.how.text]}
        own = {"sha256": config.sha256, "processing": config.processing}
        return own | {"dictionaries": digest(self.basis), "subject": subject, "how": how}

    def run(self) -> None:
        for i, split in enumerate(self.splits):
            try:
                self._task(split, last=i == len(self.splits) - 1)
            except ValueError as error:
                self.notes.append(f"{self.name}: {split.name} is left out: {error}")
        self.rows += [self._named(row) for row in mean_rows(self.rows)]

    @cached_property
    def splits(self) -> list[Split]:
        """The splits of all tasks; those that a model cannot do are left out."""
        found: list[Split] = []
        for task in self.subject.tasks:
            try:
                found += self._splits(task)
            except ValueError as error:
                self.notes.append(f"{self.name}: {task} is left out: {error}")
        return found

    def _splits(self, task: str) -> list[Split]:
        sizes, ready = self.sizes, self.ready
        if task != NEXT:
            seed, known = self.how.seed, self.how.known
            return [split_of(self.model, ready.tokenizer, task, sizes.n, seed, known=known)]
        options = {"window": sizes.window, "behaviours": sizes.behaviours, "seed": self.how.seed}
        return next_tokens(self.model, ready.tokenizer, self.contexts, sizes.n, **options)

    @cached_property
    def contexts(self) -> Contexts:
        """Text for means, behaviours and explanations."""
        return contexts_of(
            self.model,
            self.ready.tokenizer,
            self.how.text,
            tokens=self.sizes.tokens,
            length=self.sizes.context,
            seed=self.how.seed,
            stream="judge",
            progress=self._progress("text"),
        )

    @cached_property
    def bases(self) -> dict[str, Basis]:
        return bases_of(self.model, self.basis, self.contexts, seed=self.how.seed)

    def _task(self, split: Split, last: bool) -> None:
        if split.told:
            self.notes.append(f"{self.name}: {split.told}")
        sizes = self.sizes
        scores = self._scores(split)
        bases = dict(self.bases)
        if sizes.exact_all or last:
            exact = self._layers(split)
            if sizes.exact_all and exact is not None:
                bases["features, exact"], scores["features, exact"] = self.basis, exact
        own = {"start": self.subject.start, "value": self.how.value, "batch": self.how.batch}
        self._part(
            split,
            "curves",
            lambda tell: curves_of(
                self.model,
                split,
                bases,
                scores,
                circuits=sizes.circuits,
                draws=sizes.draws,
                progress=tell,
                **own,
            ),
        )
        self._edges(split, scores["features"])
        if last:
            self._words(split, bases, scores)

    def _scores(self, split: Split) -> dict[str, FeatureScores]:
        how, sizes = self.how, self.sizes

        def make(tell) -> Section:
            found = score_bases(
                self.model,
                split.discovery,
                self.bases,
                method=how.method,
                steps=sizes.steps,
                rule=sizes.rule,
                batch=how.batch,
                progress=tell,
            )
            arrays = {k: v for name, one in found.items() for k, v in pack(one, name).items()}
            features = found["features"]
            rows: list[Row] = [{**row, "task": split.name} for row in place_rows(features)]
            like = {"method": features.method, "metric": features.metric, "sign": features.sign}
            rows.append({"section": "share", "task": split.name, **_share(features)})
            return Section(rows, arrays, facts=like)

        kept = self._part(split, "scores", make)
        return {name: unpack(kept.arrays, name, b, kept.facts) for name, b in self.bases.items()}

    def _layers(self, split: Split) -> FeatureScores | None:
        sizes = self.sizes
        n = len(split.discovery) if sizes.exact_all else min(sizes.exact, len(split.discovery))

        def make(tell) -> Section:
            return compare_layers(
                self.model,
                split.name,
                split.discovery.take(range(n)),
                self.basis,
                steps=sizes.steps,
                rule=sizes.rule,
                early=sizes.early,
                batch=self.how.batch,
                progress=tell,
            )

        kept = self._part(split, "layers", make)
        if not kept.arrays:
            return None
        return unpack(kept.arrays, "exact", self.basis, kept.facts)

    def _edges(self, split: Split, scores: FeatureScores) -> None:
        sizes, how = self.sizes, self.how

        def make(tell) -> Section:
            return judge_edges(
                self.model,
                split,
                self.basis,
                scores,
                n_nodes=sizes.edge_nodes,
                sample=sizes.edge_sample,
                prompts=sizes.edge_prompts,
                pruned=sizes.pruned,
                method="ig" if how.method == "ig" else "atp",
                steps=sizes.steps,
                rule=sizes.rule,
                value=how.value,
                batch=how.batch,
                seed=how.seed,
                progress=tell,
            )

        self._part(split, "edges", make)

    def _words(self, split: Split, bases, scores) -> None:
        n, seed = self.sizes.explained, self.how.seed

        def make(tell) -> Section:
            return explain_kinds(
                self.model,
                self.ready.tokenizer,
                split.name,
                bases,
                scores,
                self.contexts,
                n=n,
                seed=seed,
                progress=tell,
            )

        kept = self._part(split, "words", make)
        self.annotations += annotations_of(kept.rows, self.name)

    def _part(self, split: Split, name: str, make: Callable[[Any], Section]) -> Section:
        """A section, taken up into the whole; what a model cannot do is left out and said."""
        tell = self._progress(f"{split.name} {name}")
        try:
            found = self.store.section(f"{split.name} {name}", lambda: make(tell))
        except ValueError as error:
            if name == "scores":
                raise
            self.notes.append(f"{self.name}: {split.name}, {name} is left out: {error}")
            return Section()
        self.rows += [self._named(row) for row in found.rows]
        claims = [dataclasses.replace(c, text=f"{self.name}, {c.text}") for c in found.claims]
        self.claims += claims
        self.notes += found.notes
        return found

    def _named(self, row: Row) -> Row:
        return {"section": row["section"], "model": self.name, **row}

    def _progress(self, stage: str):
        def progress(done: int, total: int) -> None:
            if self.tell is not None:
                self.tell(f"{self.name} {stage}", done, total)

        return progress


def _share(scores: FeatureScores) -> Row:
    """What errors carry of all effects, and how many nodes have one."""
    return {
        "error share": scores.error_share,
        "total effect": scores.effect,
        "nodes with an effect": len(scores.active),
        "nodes": scores.layout.size,
        "prompts": len(scores.base),
    }
