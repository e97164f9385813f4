"""The three tests of one cross-section: supervised codes, dictionaries, and what stands beside
them.

May import `dictionaries`, `tasks`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ..._types import Progress
from ...dictionaries import Supervised
from ...dictionaries.supervised import Labels, explained
from .._result import Row
from ._approximation import Approximation, approximate
from ._bench import Bench, CrossSection
from ._causal import causal_rows
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
from ._data import Data
from ._isolation import isolation_rows
from ._meaning import Meaning, cosines, meaning, reading_row
from ._parametrised import alike, fitted, independent, kinds_of, ways
from ._references import aligned, moved, neurons, principal
from ._subjects import Subject, coded, decoded_by

LEADING = 2
"""Moves at which dictionaries are compared: a supervised edit takes one code away and adds one."""


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
        """By attribute and kind, means over seeds."""

    @cached_property
    def codes(self) -> list[Supervised]:
        """Least-squares codes of every component, over attributes that can be changed."""
        return fitted(self.train, independent(self.train.source))

    @property
    def attributes(self) -> list[str]:
        """Attributes whose counterfactuals the unedited model does not already agree with."""
        return [a for a in self.section.attributes if self.report.target(a).resolved]

    def supervise(self) -> None:
        """Test 1 and 2 for codes, with what they explain held out and by chance."""
        own, other = (independent(x.source)[0] for x in (self.report, self.templates))
        kinds = kinds_of(self.train, self.codes)
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
        """The other ways to name what a prompt is about."""
        sides = [bench.source for bench in (self.train, self.report, self.templates)]
        for name, (train, own, other) in ways(sides).items():
            codes = fitted(self.train, train)
            self._approximated(f"supervised, {name}", codes, own[0], other[0])
            if name == "coupled":
                told = {"coupled simulates independent": alike(codes, self.codes)}
                self.rows[-1] = {**self.rows[-1], **told}

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
            for attribute in self.attributes[:1]:
                found = meanings[id(own[0])]
                self.rows += causal_rows(self.report, own[0], found, attribute, self.train.values)
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
        each = [float(cosines(subject, self.codes, attribute).mean()) for subject in own]
        for subject, mmcs in zip(own, each, strict=True):
            row = reading_row(self.report, subject, meanings[id(subject)], attribute)
            self.rows.append({**row, "MMCS": mmcs})
        self.mmcs.setdefault(attribute, {})[own[0].kind] = float(np.mean(each))

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
        return [*self.rows, *planes, *isolation_rows(self.report, self.cells, LEADING)]


def _mean_of(f, xs, ys) -> float:
    return float(np.mean([f(x, y) for x, y in zip(xs, ys, strict=True)]))
