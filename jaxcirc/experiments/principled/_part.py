"""One model's part of the study, section after section, each kept when it is done.

May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..._types import Tell
from ...patching import Component
from .._claim import Claim
from .._result import Row, model_facts
from ..feature_circuits import Section, Store
from . import _phenomena, _shipped, _toys
from ._bank import OTHER, TASK, Bank
from ._bench import CrossSection
from ._claims import claims_of
from ._data import clean_row
from ._interactions import attention_rows
from ._presets import Sizes
from ._search import best_of, candidates_of, search, sections_of
from ._subjects import chosen, trained


class Part:
    """The study of one model."""

    def __init__(self, model, tokenizer, sizes: Sizes, folder: Path, seed: int, tell: Tell | None):
        self.bank = Bank(model, tokenizer, sizes, seed, tell)
        self.model, self.sizes, self.seed = model, sizes, seed
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        facts = model_facts(model) | {"sizes": dataclasses.asdict(sizes), "seed": seed}
        self.store = Store(folder / model.config.name, facts)

    def run(self) -> None:
        self._toys()
        self._part("clean", lambda: Section([clean_row(self.bank.data(TASK))]))
        sections, binary = self._sites()
        for section in sections:
            self._part(f"judge {section.name}", partial(self._judge, section, sections))
        for component in self.sizes.known:
            self._part(f"codes {component}", partial(self._codes, component))
        self._part("splitting", lambda: _phenomena.splitting(self.bank, binary))
        alone = (s.components[0] for s in sections if len(s.components) == 1)
        whole = next(alone, binary)
        self._part("occlusion", lambda: _phenomena.occlusion(self.bank, whole))
        self._part("attention", self._attention)
        self._shipped()

    def _toys(self) -> None:
        sizes, seed = self.sizes, self.seed
        self._part("splitting toy", lambda: _toys.splitting(seed))
        self._part("occlusion toy", lambda: _toys.occlusion(sizes, seed))
        self._part("small transformer", lambda: _toys.small(sizes, seed))
        self._part("audit", lambda: _toys.audited(sizes))

    def _sites(self) -> tuple[list[CrossSection], Component]:
        """Where to judge, given or searched for; and where to look for a split position."""
        sizes = self.sizes
        if sizes.sites:
            self.notes.append("cross-sections as the paper has them")
            binary = next((s for s in sizes.sites if "Pos" in s.attributes), sizes.sites[0])
            return list(sizes.sites), binary.components[0]
        kept = self._part("sites", self._searched)
        found = [CrossSection.parse(x) for x in kept.facts["sections"]]
        for left in found[sizes.sections :]:
            words = ", ".join(left.attributes)
            self.notes.append(f"{left.name} ({words}) is open too, and left out for time")
        return found[: sizes.sections], Component.parse(kept.facts["binary"])

    def _searched(self) -> Section:
        sizes = self.sizes
        train, held = self.bank.scanned(TASK)
        components = candidates_of(self.model, sizes.roles, sizes.stride, sizes.heads)
        attributes = held.source.maker.editable
        told = self.bank.progress("sites")
        found = search(train, held, components, attributes, progress=told)
        sections, notes = sections_of(found, held)
        facts = {"sections": [s.said() for s in sections], "binary": str(best_of(found, "Pos"))}
        return Section([f.row() for f in found], notes=notes, facts=facts)

    def _judge(self, section: CrossSection, wanted: Sequence[CrossSection]) -> Section:
        found = self.bank.judged(section, TASK, self.sizes.ks, wanted)
        found.supervise()
        if found.attributes:
            found.refer()
        told = self.bank.progress(f"{section.name}, training")
        subjects = trained(found.train.values, self.sizes.recipe, progress=told)
        own, distances = chosen(subjects, found.select)
        found.judge(own, self.bank.progress(section.name))
        rows = found.finish() + _distances(section, distances)
        return Section(rows, claims=claims_of(found))

    def _codes(self, component: Component) -> Section:
        """Codes alone, at a place where others have measured them."""
        attributes = self.bank.data(TASK).attributes
        section = CrossSection.alone(component, attributes)
        found = self.bank.judged(section, TASK, self.sizes.ks, [section])
        found.supervise()
        return Section(found.finish())

    def _attention(self) -> Section:
        """The score of the head that most attends to IO, as a sum over pairs of features."""
        data = self.bank.data(TASK)
        return Section(attention_rows(data.train, data.select))

    def _shipped(self) -> None:
        """The suites for this model, on both tasks."""
        name, bank = self.model.config.name, self.bank
        suites = _shipped.suites_of(name)
        if not suites:
            self.notes.append(f"no shipped dictionaries for {name}: that part is left out")
        for suite in suites:
            for task in (TASK, OTHER):
                make = partial(_shipped.places, bank, suite, task)
                kept = self._part(f"{suite} {task} sites", make)
                found = [CrossSection.parse(x) for x in kept.facts.get("sections", [])]
                wanted = found[: self.sizes.shipped]
                for section in wanted:
                    make = partial(_shipped.judge_shipped, bank, suite, task, section, wanted)
                    self._part(f"{suite} {task} {section.name}", make)

    def _part(self, name: str, make: Callable[[], Section]) -> Section:
        """A section, taken up into the whole; what a model cannot do is left out and said."""
        try:
            found = self.store.section(name, make)
        except ValueError as error:
            if name == "sites":
                raise
            self.notes.append(f"{name} is left out: {error}")
            return Section()
        self.rows += [{"section": row["section"], "part": name, **row} for row in found.rows]
        self.claims += found.claims
        self.notes += found.notes
        return found


def _distances(section: CrossSection, distances) -> list[Row]:
    return [
        {
            "section": "selection",
            "cross-section": section.name,
            "dictionary": kind,
            "level": level,
            "distance left": distance,
        }
        for kind, own in distances.items()
        for level, distance in own.items()
    ]
