"""`JudgePage`: the features that heads rest on, with their top contexts, for somebody to judge.

May import `circuits`.
"""

import dataclasses
from collections.abc import Mapping

from ...circuits.features import FeatureNode
from ._contexts import Activity, Context, peak_words
from ._judge import Judge, Verdict


@dataclasses.dataclass(frozen=True)
class Shown:
    """A feature on the page.

    - `importance`: what its absence costs the margin, the mean over the seeds that chose it, in
      logits; `seeds`: how many did.
    """

    node: FeatureNode
    importance: float
    seeds: int
    verdict: Verdict
    contexts: tuple[Context, ...]

    @property
    def peaks(self) -> str:
        """The words at the peaks, the most frequent first."""
        words = peak_words(self.contexts)
        return " ".join(word if n == 1 else f"{word} ({n})" for word, n in words.items())


@dataclasses.dataclass(frozen=True)
class JudgePage:
    """The features of a task.

    - `labels`, `attributes`: what 0 and 1 mean; the judge is to ablate what is about the attribute.
    """

    task: str
    model: str
    labels: tuple[str, str]
    attributes: tuple[str, str]
    judge: str
    features: tuple[Shown, ...]


def shown(
    importances: Mapping[str, list[float]], activity: Activity, judge: Judge, n: int = 10
) -> tuple[Shown, ...]:
    """Features with their contexts and the judge's verdict, the most important first.

    - `importances`: of every feature, one for each seed that chose it. `n`: contexts.
    """
    found = []
    for name, values in importances.items():
        node = FeatureNode.parse(name)
        contexts = activity.top(node, n)
        mean = sum(values) / len(values)
        found.append(Shown(node, mean, len(values), judge(node, contexts), contexts))
    return tuple(sorted(found, key=lambda each: -each.importance * each.seeds))
