"""What nodes are scored by: a number for every prompt, read off a run.

`Behaviour` is a metric of the last logits; a probe on an activation is another. May import `taps`
and `tasks`.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from ..._types import Tokens
from ...taps import Sites, Start, run
from ...tasks import Metric, Prompts, kl, name_metrics, sign, with_reference


class Objective(eqx.Module):
    """A number for every prompt from a run of the model; arrays are leaves, all else is static."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in results."""

    @property
    @abc.abstractmethod
    def sign(self) -> float:
        """Of importance: -1 if a helpful node's absence lowers the number."""

    @abc.abstractmethod
    def __call__(
        self,
        model,
        tokens: Tokens,
        prompts: Prompts,
        edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
        start: Start | None = None,
    ) -> tuple[Float[Array, "batch"], Sites]:
        """The number, and what `edits` recorded.

        A run that resumes sees nothing below: what is read must lie behind every place at which
        nodes are scored.
        """

    def ready(self, model, prompts: Prompts) -> Prompts:
        """The prompts with what the number is compared to."""
        return prompts

    @property
    def flat_at_clean(self) -> bool:
        """Whether its slope at the clean run is 0 whatever the model does."""
        return False


class Behaviour(Objective):
    """A metric of the logits behind every prompt.

    >>> Behaviour(logit_difference)(model, prompts.clean, prompts)[0]              # [batch]
    """

    metric: Metric = eqx.field(static=True)

    @property
    def name(self) -> str:
        return name_metrics(self.metric)[0][0]

    @property
    def sign(self) -> float:
        return sign("noise", self.metric)

    def __call__(
        self,
        model,
        tokens: Tokens,
        prompts: Prompts,
        edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
        start: Start | None = None,
    ) -> tuple[Float[Array, "batch"], Sites]:
        logits, records = run(model, tokens, edits, mask=prompts.mask, logits_at=-1, start=start)
        assert logits is not None
        return self.metric(logits, prompts), records

    def ready(self, model, prompts: Prompts) -> Prompts:
        if self.metric is not kl:
            return prompts
        logits, _ = run(model, prompts.clean, mask=prompts.mask, logits_at=-1)
        assert logits is not None
        return with_reference(prompts, logits)

    @property
    def flat_at_clean(self) -> bool:
        return self.metric is kl


def objective_of(metric: Any) -> Objective:
    """An objective as it is; a metric, or the name of one, as the behaviour it measures."""
    return metric if isinstance(metric, Objective) else Behaviour(name_metrics(metric)[0][1])
