"""One model's part of the study, section after section, each kept when it is done.

May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..._types import Tell
from ...dictionaries import shipped, shipped_places, shipped_suites
from ...patching import Component
from ...taps import head_axis
from ...tasks.labelled import LABELLED, Labelled
from .._claim import Claim
from .._result import Row, model_facts
from ..feature_circuits import Section, Store
from . import _toys
from ._bench import CrossSection, Runs
from ._claims import TASK_KINDS, claims_of, shipped_claims, split_claim
from ._interactions import attention_rows
from ._judge import LEADING, Asked, Data, Judged, clean_row, isolation
from ._meaning import splitting_rows
from ._occlusion import interpolated_rows
from ._presets import Sizes
from ._search import candidates_of, search, sections_of
from ._subjects import Recipe, Subject, chosen, trained

TASK = "ioi"
OTHER = "agreement"
"""A task of the blocks in the middle, for which there are shipped dictionaries."""


class Part:
    """The study of one model."""

    def __init__(self, model, tokenizer, sizes: Sizes, folder: Path, seed: int, tell: Tell | None):
        self.model, self.tokenizer, self.sizes = model, tokenizer, sizes
        self.seed, self.tell = seed, tell
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self._kept: dict[str, Data] = {}
        self._wanted: list[CrossSection] = []
        facts = model_facts(model) | {"sizes": dataclasses.asdict(sizes), "seed": seed}
        self.store = Store(folder / model.config.name, facts)

    def run(self) -> None:
        self._toys()
        sections = self._sites()
        self._wanted = sections
        for section in sections:
            self._part(f"judge {section.name}", partial(self._judge, section))
        binary = [s for s in sections if len(s.components) == 1]
        if binary:
            self._part("splitting", lambda: self._splitting(binary[0]))
            self._part("occlusion", lambda: self._occlusion(binary[0]))
        self._part("attention", self._attention)
        self._shipped()

    def _toys(self) -> None:
        sizes, seed = self.sizes, self.seed
        self._part("splitting toy", lambda: _toys.splitting(seed))
        self._part("occlusion toy", lambda: _toys.occlusion(sizes, seed))
        self._part("small transformer", lambda: _toys.small(sizes, seed))
        self._part("audit", lambda: _toys.audited(sizes))

    def data(self, task: str) -> Data:
        """Prompts of a task, by what they are for."""
        if task not in self._kept:
            s, seed = self.sizes, self.seed
            self._kept[task] = Data.of(
                self.model,
                self._draw(task, s.train, seed, "train"),
                self._draw(task, s.select, seed + 1, "test"),
                self._draw(task, s.report, seed + 2, "test"),
                self._draw(task, s.select, seed + 3, "templates"),
            )
        return self._kept[task]

    def _draw(self, task: str, n: int, seed: int, split: str) -> Labelled:
        own = {"names": self.sizes.names} if task == TASK else {}
        return LABELLED[task](self.tokenizer, n, seed, split, **own)

    def _sites(self) -> list[CrossSection]:
        """Where to judge: given, or searched for."""
        sizes = self.sizes
        if sizes.sites:
            self.notes.append("cross-sections as the paper has them")
            return list(sizes.sites)
        kept = self._part("sites", self._searched)
        found = [_parsed(x) for x in kept.facts["sections"]]
        return found[: sizes.sections]

    def _searched(self) -> Section:
        sizes = self.sizes
        train, held = self._scanned(TASK)
        components = candidates_of(self.model, sizes.roles, sizes.stride, sizes.heads)
        attributes = held.source.maker.editable
        found = search(train, held, components, attributes, progress=self._progress("sites"))
        sections, notes = sections_of(found, held)
        rows = [clean_row(self.data(TASK)), *_shown(found)]
        return Section(rows, notes=notes, facts={"sections": [_said(s) for s in sections]})

    def _scanned(self, task: str) -> tuple[Runs, Runs]:
        """Prompts to search on: to make codes from, and to measure on."""
        sizes, seed = self.sizes, self.seed
        train = self._draw(task, sizes.scan, seed + 4, "train")
        return Runs(self.model, train), Runs(
            self.model, self._draw(task, sizes.scanned, seed + 5, "test")
        )

    def _judge(self, section: CrossSection) -> Section:
        found = self._judged(section, TASK, self.sizes.ks)
        found.supervise()
        if found.attributes:
            found.refer()
        subjects = self._trained(found, self.sizes.recipe)
        own, distances = chosen(subjects, found.select)
        found.judge(own, self._progress(f"{section.name}"))
        rows = found.finish() + _distances(section, distances)
        for kind in TASK_KINDS:
            rows += isolation(found, kind, LEADING)
        return Section(rows, claims=claims_of(found))

    def _judged(self, section: CrossSection, task: str, ks: tuple[int, ...]) -> Judged:
        if section in self._wanted:  # all of them in one pass
            self.data(task).read(self._wanted)
        asked = Asked(ks, self.sizes.das_size, self.sizes.das_steps)
        return Judged(section, self.data(task), asked)

    def _trained(self, found: Judged, recipe: Recipe, draw: int = 0) -> list[Subject]:
        tell = self._progress(f"{found.section.name}, training")
        return trained(found.train.values, recipe, draw=draw, progress=tell)

    def _splitting(self, section: CrossSection) -> Section:
        """Over-splitting of the position in task dictionaries, by seeds and draws of data."""
        found = self._judged(section, TASK, (LEADING,))
        recipe = dataclasses.replace(
            self.sizes.recipe, architectures=("l1", "topk"), levels=1, seeds=2
        )
        one, other = (self._trained(found, recipe, draw) for draw in (0, 1))
        rows = splitting_rows(found.report, one, other, "Pos")
        return Section(rows, claims=[split_claim(row, section.name) for row in rows])

    def _occlusion(self, section: CrossSection) -> Section:
        """The stronger of IO and S taken away from a real activation, share by share."""
        found = self._judged(section, TASK, (LEADING,))
        codes = found.codes[0]
        lengths = {n: float(np.linalg.norm(codes.codes[n], axis=1).mean()) for n in ("IO", "S")}
        strong, weak = sorted(lengths, key=lambda name: -lengths[name])
        scale = dataclasses.replace(self.sizes.toy, features=self.sizes.recipe.features)
        scale = dataclasses.replace(scale, tokens=min(scale.tokens, self.sizes.recipe.tokens))
        labels = found.train.source.labels
        rows = interpolated_rows(found.train.values[0], labels, codes, strong, weak, scale)
        named: list[Row] = [{**row, "cross-section": section.name} for row in rows]
        return Section(named, claims=[_toys.freed(rows, weak, section.name)])

    def _attention(self) -> Section:
        """The score of the head that most attends to IO, as a sum over pairs of features."""
        data = self.data(TASK)
        if head_axis("z") is None:
            return Section()
        return Section(attention_rows(data.train, data.select))

    def _shipped(self) -> None:
        """The suites for this model, at the places where an attribute is used."""
        suites = [s for s in shipped_suites() if _is_for(s, self.model.config.name)]
        if not suites:
            name = self.model.config.name
            self.notes.append(f"no shipped dictionaries for {name}: that part is left out")
        for suite in suites:
            for task in (TASK, OTHER):
                kept = self._part(f"{suite} {task} sites", partial(self._places, suite, task))
                found = [_parsed(x) for x in kept.facts.get("sections", [])]
                self._wanted = found[: self.sizes.shipped]
                for section in self._wanted:
                    make = partial(self._judge_shipped, suite, task, section)
                    self._part(f"{suite} {task} {section.name}", make)

    def _places(self, suite: str, task: str) -> Section:
        sizes = self.sizes
        train, held = self._scanned(task)
        spans, attributes = held.source.prompts.spans, held.source.maker.editable
        names = [name for name in shipped_places(suite) if ">" not in name and "+" not in name]
        roles = [role for role in sizes.roles if role in spans]
        parts = [(role, *name.rsplit(".", 1)) for role in roles for name in names]
        components = [Component(site, int(layer), role) for role, site, layer in parts]
        found = search(train, held, components, attributes)
        open_ = [f for f in found if not f.refused]
        sections = [CrossSection(str(f.component), (f.component,), (f.attribute,)) for f in open_]
        rows: list[Row] = [
            {**row, "section": "shipped site", "task": task} for row in _shown(found)
        ]
        notes = [] if open_ else [f"{suite}, {task}: no place where an answer changes"]
        return Section(rows, notes=notes, facts={"sections": [_said(s) for s in sections]})

    def _judge_shipped(self, suite: str, task: str, section: CrossSection) -> Section:
        sizes = self.sizes
        found = self._judged(section, task, sizes.wide)
        component = section.components[0]
        dictionary, _ = shipped(suite, f"{component.site}.{component.layer}")
        kind = f"{suite}/{component.site}.{component.layer}"
        found.supervise()
        found.judge([Subject(kind, "", 0, (dictionary,))])
        claims = shipped_claims(found, kind, max(sizes.wide))
        named = [dataclasses.replace(c, text=f"{task}, {c.text}") for c in claims]
        rows: list[Row] = [{**row, "task": task} for row in found.finish()]
        return Section(rows, claims=named)

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

    def _progress(self, stage: str):
        def progress(done: int, total: int) -> None:
            if self.tell is not None:
                self.tell(stage, done, total)

        return progress


def _said(section: CrossSection) -> dict[str, Any]:
    parts = [str(component) for component in section.components]
    return {"name": section.name, "parts": parts, "attributes": list(section.attributes)}


def _parsed(said: dict[str, Any]) -> CrossSection:
    parts = tuple(Component.parse(name) for name in said["parts"])
    return CrossSection(said["name"], parts, tuple(said["attributes"]))


def _shown(found) -> list[Row]:
    return [f.row() for f in found]


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


def _is_for(suite: str, model: str) -> bool:
    """Whether a suite's card names the model."""
    _, card = shipped(suite, shipped_places(suite)[0])
    return card.get("model") == model
