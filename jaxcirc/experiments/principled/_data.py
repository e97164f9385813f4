"""The prompts of a task by what they are for, with the model's runs on them.

May import `patching`, `tasks`.
"""

import dataclasses
from collections.abc import Sequence

from ...patching import Component
from ...tasks import interval
from ...tasks.labelled import Labelled
from .._result import Row
from ._approximation import cells
from ._bench import Bench, CrossSection, Runs


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
