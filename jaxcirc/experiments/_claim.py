"""Claims as data: a statement, what this model shows, and the verdict. Imports `tasks`."""

import dataclasses

from ..tasks import Interval
from ._result import Row


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement that holds where a statistic exceeds its baseline by at least a floor.

    - `text`: the statement. `statistic`: what `found` is. `baseline`: its value if the statement
      said nothing; `floor`: the least excess worth the name.
    - `paper`: the document's own figure, on another model.
    """

    text: str
    statistic: str
    found: Interval
    baseline: float = 0.0
    floor: float = 0.0
    paper: str = ""

    @property
    def verdict(self) -> str:
        """ "supported": interval above the baseline and value above the floor; "contradicted":
        interval below the floor; else "undecided"."""
        least = self.baseline + self.floor
        if self.found.low > self.baseline and self.found.value >= least:
            return "supported"
        return (
            "contradicted"
            if self.found.high < least or self.found.high <= self.baseline
            else "undecided"
        )

    def row(self) -> Row:
        """The claim as a row of a result's table."""
        return {
            "section": "claim",
            "claim": self.text,
            "statistic": self.statistic,
            "found": self.found.value,
            "low": self.found.low,
            "high": self.found.high,
            "n": self.found.n,
            "baseline": self.baseline,
            "floor": self.floor,
            "paper (other model)": self.paper,
            "verdict": self.verdict,
        }
