"""The three tests of one cross-section: supervised codes, dictionaries, and what stands beside
them.

May import `dictionaries`, `tasks`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ..._types import Progress
from ...dictionaries import Supervised, supervised
from ...dictionaries.supervised import (
    Labels,
    Method,
    crossed,
    explained,
    shuffled,
    simulates,
)
from ...patching import Component
from ...tasks import interval
from ...tasks.labelled import Labelled
from .._result import Row
from ._approximation import Approximation, approximate, cells
from ._bench import Bench, CrossSection, Runs
from ._control import (
    Cell,
    Outcome,
    by_behaviour,
    by_labels,
    judged,
    nearest,
    replaced_outcome,
    supervised_outcome,
)
from ._meaning import Meaning, causal_rows, cosines, meaning, reading_row
from ._references import aligned, moved, neurons, principal
from ._subjects import Subject, coded, decoded_by

LEADING = 2
"""Moves at which dictionaries are compared: a supervised edit takes one code away and adds one."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Prompts by what they are for, with the model's runs on them; `templates` has other templates
    than those codes are from."""

    train: Runs
    select: Runs
    report: Runs
    templates: Runs

    @classmethod
    def of(
        cls, model, train: Labelled, select: Labelled, report: Labelled, templates: Labelled
    ) -> "Data":
        """From the prompts."""
        return cls(*(Runs(model, some) for some in (train, select, report, templates)))

    def read(self, sections: Sequence[CrossSection]) -> None:
        """Read what all of some cross-sections will ask for, in one pass over each."""
        every = [c for section in sections for c in section.components]
        attributes = dict.fromkeys(a for section in sections for a in section.attributes)
        sides = [self.train, self.select, self.report, self.templates]
        sides += [s.changed(a) for s in (self.select, self.report) for a in attributes]
        for runs in sides:
            runs.read(every)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What can be changed one at a time."""
        return self.report.source.maker.editable


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a cross-section is judged: see `Sizes`."""

    ks: tuple[int, ...]
    das_size: int
    das_steps: int
    behaviour: tuple[str, ...] = ("topk", "gated")


class Judged:
    """A cross-section, its prompts, and everything that was found there."""

    def __init__(self, section: CrossSection, data: Data, asked: Asked):
        self.section, self.data, self.asked = section, data, asked
        sides = (data.train, data.select, data.report, data.templates)
        self.train, self.select, self.report, self.templates = (
            Bench(runs, section) for runs in sides
        )
        self.rows: list[Row] = []
        self.cells: list[Cell] = []
        self.mmcs: dict[str, dict[str, float]] = {}

    @cached_property
    def codes(self) -> list[Supervised]:
        """Least-squares codes of every component, over attributes that can be changed."""
        return self._codes("least_squares", self.train.source.labels)

    def _codes(self, method: Method, labels) -> list[Supervised]:
        names = self.data.attributes
        own = {name: labels[name] for name in names}
        sizes = {name: self.train.source.sizes[name] for name in names}
        return [supervised(x, own, sizes, method) for x in self.train.values]

    @property
    def attributes(self) -> list[str]:
        """Attributes whose counterfactuals the unedited model does not already agree with."""
        return [a for a in self.section.attributes if self.report.target(a).resolved]

    def supervise(self) -> None:
        """Test 1 and 2 for codes, with what they explain held out and by chance."""
        train, attributes = self.train.source, self.data.attributes
        mixed = shuffled({a: train.labels[a] for a in attributes}, np.random.default_rng(0))
        kinds = {
            "supervised": self.codes,
            "supervised, means": self._codes("mean", train.labels),
            "supervised, shuffled labels": self._codes("least_squares", mixed),
        }
        own = {name: self.report.source.labels[name] for name in attributes}
        other = {name: self.templates.source.labels[name] for name in attributes}
        for name, codes in kinds.items():
            self._approximated(name, codes, own, other)
        self._parametrised()
        for attribute in self.section.attributes:
            self._refused(attribute)
        for attribute in self.attributes:
            target = self.report.target(attribute)
            for name in list(kinds)[:2]:
                outcome = supervised_outcome(self.report, kinds[name], target)
                self._keep(attribute, name, "", "supervised", 1, [outcome])

    def _refused(self, attribute: str) -> None:
        target = self.report.target(attribute)
        if not target.resolved:
            why = f"refused: the unedited model agrees on {target.none:.2f}"
            self.rows.append(
                {
                    "section": "control",
                    "cross-section": self.section.name,
                    "attribute": attribute,
                    "dictionary": why,
                    "no intervention": target.none,
                }
            )

    def _parametrised(self) -> None:
        """The other ways to name what a prompt is about: coupled with the position, and names by
        place, which is known to approximate badly."""
        sides = (self.train, self.report, self.templates)
        for name, (train, own, other) in _ways([bench.source for bench in sides]).items():
            codes = [supervised(x, *train) for x in self.train.values]
            self._approximated(f"supervised, {name}", codes, own[0], other[0])
            if name == "coupled":
                alike = [simulates(c, one, "IO", "Pos") for c, one in self._pairs(codes)]
                told = {"coupled simulates independent": float(np.mean(alike))}
                self.rows[-1] = {**self.rows[-1], **told}

    def _pairs(self, codes: Sequence[Supervised]):
        return zip(codes, self.codes, strict=True)

    def _approximated(
        self, kind: str, codes: Sequence[Supervised], own: Labels, other: Labels
    ) -> None:
        rebuilt = [c.rebuilt(own) for c in codes]
        elsewhere = [c.rebuilt(other) for c in codes]
        fve = {
            "FVE": _mean_of(explained, self.report.values, rebuilt),
            "FVE, other templates": _mean_of(explained, self.templates.values, elsewhere),
        }
        self._first(kind, "", rebuilt, fve)

    def _first(self, kind: str, level: str, rebuilt, extra: Mapping[str, float]) -> Approximation:
        test = approximate(self.report, rebuilt, self.train.values)
        named = {"cross-section": self.section.name, "dictionary": kind, "level": level}
        self.rows.append({"section": "approximation", **named, **extra, **test.row()})
        return test

    def _keep(self, attribute, kind, level, edit, k, outcomes: Sequence[Outcome]) -> None:
        self.cells.append(Cell(attribute, kind, level, edit, k, tuple(outcomes)))

    def refer(self) -> None:
        """Neurons, principal directions and a learned subspace."""
        for subject in (neurons(self.train.values), principal(self.train.values)):
            for attribute in self.attributes:
                self._edits([subject], attribute, {})
        for attribute in self.attributes:
            bases = aligned(self.select, attribute, self.asked.das_size, self.asked.das_steps)
            target = self.report.target(attribute)
            gaps = [y - x for x, y in zip(self.report.values, target.values, strict=True)]
            outcome = replaced_outcome(self.report, target, moved(self.report.values, gaps, bases))
            self._keep(
                attribute, "DAS", f"{self.asked.das_size} directions", "subspace", 0, [outcome]
            )

    def judge(self, subjects: Sequence[Subject], progress: Progress | None = None) -> None:
        """All tests of some dictionaries; those of one kind are its seeds."""
        kinds = list(dict.fromkeys(s.kind for s in subjects))
        for i, kind in enumerate(kinds):
            own = [s for s in subjects if s.kind == kind]
            self._approximate_by(own)
            meanings = {id(s): self._meanings(s) for s in own}
            for attribute in self.attributes:
                self._edits(own, attribute, meanings)
                self._means(own, attribute, meanings)
            if self.attributes:
                self.rows += causal_rows(self.report, own[0], meanings[id(own[0])])
            if progress is not None:
                progress(i + 1, len(kinds))

    def _approximate_by(self, own: Sequence[Subject]) -> None:
        """Test 1 of the first seed in full, with the spread of sufficiency over seeds."""
        values = self.report.values
        clean = self.report.difference(self.report.clean).mean()
        each = []
        for i, subject in enumerate(own):
            codes = [coded(d, x)[0] for d, x in zip(subject.dictionaries, values, strict=True)]
            rebuilt = [decoded_by(d, f) for d, f in zip(subject.dictionaries, codes, strict=True)]
            if i:
                kept = self.report.difference(self.report.logits(rebuilt)).mean()
                each.append(float(kept / clean))
            else:
                l0 = np.mean([float((f != 0).sum(axis=1).mean()) for f in codes])
                extra = {"FVE": _mean_of(explained, values, rebuilt), "L0": float(l0)}
                test = self._first(subject.kind, subject.level, rebuilt, extra)
                each.append(test.sufficiency.value)
        spread = float(np.std(each, ddof=1)) if len(each) > 1 else None
        self.rows[-1] = {**self.rows[-1], "sufficiency over seeds": spread}

    def _meanings(self, subject: Subject) -> list[Meaning]:
        n = range(len(subject.dictionaries))
        return [meaning(subject, i, self.train, self.report) for i in n]

    def _edits(self, own: Sequence[Subject], attribute: str, meanings) -> None:
        """Test 2: by distance at every k, by labels, and by behaviour for some."""
        target, first = self.report.target(attribute), own[0]
        for k in self.asked.ks:
            editor = nearest(self.report, k)
            outcomes = [judged(self.report, s, target, editor) for s in own]
            self._keep(attribute, first.kind, first.level, "nearest", k, outcomes)
        if not meanings:
            return
        for k in (LEADING // 2, LEADING):
            outcomes = [self._labelled(s, attribute, k, meanings[id(s)]) for s in own]
            self._keep(attribute, first.kind, first.level, "by labels", 2 * k, outcomes)
        if first.kind in self.asked.behaviour:
            outcomes = [judged(self.report, first, target, by_behaviour(self.report, LEADING))]
            self._keep(attribute, first.kind, first.level, "by behaviour", LEADING, outcomes)

    def _labelled(self, subject: Subject, attribute: str, k: int, found) -> Outcome:
        """k features out and k in: a budget of 2 k."""
        ranks = [{attribute: m.ranks(attribute)} for m in found]
        return judged(
            self.report, subject, self.report.target(attribute), by_labels(self.report, k, ranks)
        )

    def _means(self, own: Sequence[Subject], attribute: str, meanings) -> None:
        for subject in own:
            row = reading_row(self.report, subject, meanings[id(subject)], attribute)
            mmcs = float(cosines(subject, self.codes, attribute).mean())
            self.rows.append({**row, "MMCS": mmcs})
            self.mmcs.setdefault(attribute, {}).setdefault(subject.kind, mmcs)

    def cell(self, attribute: str, kind: str, edit: str, k: int) -> Cell | None:
        """The outcomes of one way of editing, if it was tried."""
        for cell in self.cells:
            if (cell.attribute, cell.kind, cell.edit, cell.k) == (attribute, kind, edit, k):
                return cell
        return None

    def finish(self) -> list[Row]:
        """All rows, those of edits with their place in the plane."""
        planes = []
        for cell in self.cells:
            reference = self.cell(cell.attribute, "supervised", "supervised", 1)
            if reference is not None:
                planes.append(cell.row(self.report, reference))
        return [*self.rows, *planes]


Named = tuple[Labels, dict[str, int]]
"""Labels, and how many values each attribute has."""


def _ways(sides: Sequence[Labelled]) -> dict[str, list[Named]]:
    """Parametrisations by name, for each of some prompts; none where there is no position."""
    if "Pos" not in sides[0].labels:
        return {}
    groups, names = [("IO", "Pos"), ("S", "Pos")], ("1st", "2nd", "3rd")
    return {
        "coupled": [crossed(x.labels, x.sizes, groups) for x in sides],
        "names": [({n: x.labels[n] for n in names}, {n: x.sizes[n] for n in names}) for x in sides],
    }


def _mean_of(f, xs, ys) -> float:
    return float(np.mean([f(x, y) for x, y in zip(xs, ys, strict=True)]))


def isolation(judged: Judged, kind: str, k: int) -> list[Row]:
    r"""RAVEL's score of an edit (Huang et al. 2024, arXiv 2402.17700): cause, how often an edit has
    its effect; isolation, how often one that ought to have none has none; and $\tfrac12
    (\mathrm{cause} + \mathrm{isolation})$.

    Attributes of the second kind are those where the patched model says what it said before.
    """
    report = judged.report
    subject_cells = [c for c in judged.cells if (c.kind, c.edit, c.k) == (kind, "nearest", k)]
    if not subject_cells:
        return []
    cause = np.mean([c.hits[~report.target(c.attribute).same].mean() for c in subject_cells])
    still = [c.hits[report.target(c.attribute).same] for c in subject_cells]
    kept = np.concatenate(still)
    iso = float(kept.mean()) if kept.size else float("nan")
    return [
        {
            "section": "disentangle",
            "cross-section": judged.section.name,
            "dictionary": kind,
            "k": k,
            "cause": float(cause),
            "isolation": iso,
            "disentangle": float((cause + iso) / 2),
        }
    ]


def clean_row(data: Data) -> Row:
    """What the model does with the prompts."""
    last = data.report.model.n_layers - 1
    bench = Bench(data.report, CrossSection("clean", (Component("resid_post", last),), ()))
    answers = bench.source.groups[bench.ways.argmax(axis=1)]
    difference = bench.difference(bench.clean)
    found = {
        "logit difference": interval(difference, bench.clusters),
        "above 0": interval(difference > 0, bench.clusters),
        "best candidate is right": interval(bench.choice(bench.clean) == answers, bench.clusters),
    }
    named = {"section": "clean", "task": bench.source.maker.name, "prompts": len(answers)}
    return {**named, **cells(found)}
