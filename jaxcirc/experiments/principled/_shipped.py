"""Full-distribution dictionaries: a model's shipped suites, where an attribute is used.

May import `dictionaries`, `patching`.
"""

import dataclasses
from collections.abc import Sequence

from ...dictionaries import shipped, shipped_places, shipped_suites
from ...patching import Component
from .._result import Row
from ..feature_circuits import Section
from ._bank import Bank
from ._bench import CrossSection
from ._claims import shipped_claims
from ._references import undirected
from ._search import search
from ._subjects import Subject


def suites_of(model: str) -> list[str]:
    """The suites whose card names the model."""
    cards = {suite: shipped(suite, shipped_places(suite)[0])[1] for suite in shipped_suites()}
    return [suite for suite, card in cards.items() if card.get("model") == model]


def places(bank: Bank, suite: str, task: str) -> Section:
    """Every place of a suite asked of every attribute; the open ones are kept, best first."""
    train, held = bank.scanned(task)
    spans, attributes = held.source.prompts.spans, held.source.maker.editable
    names = [name for name in shipped_places(suite) if ">" not in name and "+" not in name]
    roles = [role for role in bank.sizes.roles if role in spans]
    parts = [(role, *name.rsplit(".", 1)) for role in roles for name in names]
    components = [Component(site, int(layer), role) for role, site, layer in parts]
    found = search(train, held, components, attributes)
    asked: dict[Component, list[str]] = {}
    for f in found:
        if not f.refused:
            asked.setdefault(f.component, []).append(f.attribute)
    sections = [CrossSection.alone(c, names) for c, names in asked.items()]
    rows: list[Row] = [{**f.row(), "section": "shipped site", "task": task} for f in found]
    notes = [] if asked else [f"{suite}, {task}: no place where an answer changes"]
    return Section(rows, notes=notes, facts={"sections": [s.said() for s in sections]})


def judge_shipped(
    bank: Bank, suite: str, task: str, section: CrossSection, wanted: Sequence[CrossSection]
) -> Section:
    """One dictionary of a suite, beside codes and references.

    - `wanted`: all cross-sections that will be asked for, this one among them.
    """
    found = bank.judged(section, task, bank.sizes.wide, wanted)
    component = section.components[0]
    dictionary, _ = shipped(suite, f"{component.site}.{component.layer}")
    kind = f"{suite}/{component.site}.{component.layer}"
    found.supervise()
    if found.attributes:
        found.refer()
    own = Subject(kind, "", 0, (dictionary,))
    found.judge([own, undirected(own, found.train.values)], bank.progress(kind))
    claims = shipped_claims(found, kind, max(bank.sizes.wide))
    named = [dataclasses.replace(c, text=f"{task}, {c.text}") for c in claims]
    rows: list[Row] = [{**row, "task": task} for row in found.finish()]
    return Section(rows, claims=named)
