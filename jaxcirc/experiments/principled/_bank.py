"""The prompts and runs that the sections of a study share, made once each.

May import `tasks`.
"""

from collections.abc import Sequence

from ..._types import Tell
from ...tasks.labelled import LABELLED, Labelled
from ._bench import CrossSection, Runs
from ._data import Data
from ._judge import Asked, Judged
from ._presets import Sizes

TASK = "ioi"
OTHER = "agreement"
"""A task of the blocks in the middle, for which there are shipped dictionaries."""


class Bank:
    """A model with its prompts, by task.

    >>> Bank(model, tokenizer, Sizes(), seed=0).data("ioi").report
    """

    def __init__(self, model, tokenizer, sizes: Sizes, seed: int, tell: Tell | None = None):
        self.model, self.tokenizer, self.sizes = model, tokenizer, sizes
        self.seed, self.tell = seed, tell
        self._data: dict[str, Data] = {}
        self._scanned: dict[str, tuple[Runs, Runs]] = {}

    def data(self, task: str) -> Data:
        """Prompts of a task, by what they are for."""
        if task not in self._data:
            s = self.sizes
            self._data[task] = Data.of(
                self.model,
                self.draw(task, s.train, 0, "train"),
                self.draw(task, s.select, 1, "test"),
                self.draw(task, s.report, 2, "test"),
                self.draw(task, s.select, 3, "templates"),
            )
        return self._data[task]

    def scanned(self, task: str) -> tuple[Runs, Runs]:
        """Prompts to search on: to make codes from, and to measure on."""
        if task not in self._scanned:
            s = self.sizes
            train = self.draw(task, s.scan, 4, "train")
            held = self.draw(task, s.scanned, 5, "test")
            self._scanned[task] = Runs(self.model, train), Runs(self.model, held)
        return self._scanned[task]

    def other(self, task: str) -> Runs:
        """As many other prompts to learn from."""
        return Runs(self.model, self.draw(task, self.sizes.train, 6, "train"))

    def draw(self, task: str, n: int, use: int, split: str) -> Labelled:
        """n prompts of a task for one use."""
        own = {"names": self.sizes.names} if task == TASK else {}
        return LABELLED[task](self.tokenizer, n, self.seed + use, split, **own)

    def judged(
        self, section: CrossSection, task: str, ks: tuple[int, ...], wanted: Sequence[CrossSection]
    ) -> Judged:
        """A cross-section with nothing judged yet; what all wanted ones ask for is read in one
        pass."""
        self.data(task).read([*wanted, section])
        asked = Asked(ks, self.sizes.das_size, self.sizes.das_steps)
        return Judged(section, self.data(task), asked)

    def progress(self, stage: str):
        """What is told of a stage."""

        def progress(done: int, total: int) -> None:
            if self.tell is not None:
                self.tell(stage, done, total)

        return progress
