"""What cells are set to: the source, or the values of an ablation. May import `taps`, `tasks`."""

from collections.abc import Sequence

import numpy as np

from .._types import Direction
from ..tasks import Prompts
from ._ablation import KINDS, Ablation, constant, means, resampled
from ._optimal import optimal
from ._patch import Cell, Group


def values_of(
    model, prompts: Prompts, cells: Sequence[Group], value: str | Ablation, direction: Direction
) -> tuple[Prompts, Ablation | None]:
    """The prompts to patch with, and what cells are set to if it is not the source."""
    if value == "source":
        return prompts, None
    if value == "resample":
        return resampled(prompts), None
    if not isinstance(value, Ablation) and value not in KINDS:
        raise ValueError(
            f"value={value!r}: use an Ablation, or one of {', '.join(map(repr, KINDS))}"
        )
    if direction != "noise":
        raise ValueError('an ablation changes the clean run: direction="noise"')
    sites = sorted({cell.site for group in cells for cell in group})
    if isinstance(value, Ablation):
        lacking = set(sites) - {site for site, _ in value.values.items()}
        if lacking:
            raise ValueError(f"the ablation has no values for {sorted(lacking)[0]!r}")
        return prompts, value
    if value == "optimal":
        return prompts, optimal(model, prompts, [cell for group in cells for cell in group])
    if value == "zero":
        return prompts, constant(model, prompts, dict.fromkeys(sites, 0.0))
    return prompts, means(model, prompts, sites, pooled=value == "mean_pooled")


class DegeneratePatch(UserWarning):
    """All attention of the last position is patched, where clean and corrupt share the token."""

    def __init__(self):
        super().__init__(
            "clean and corrupt share the last token, so patching all attention there restores the"
            " source whatever the model does: patch fewer layers or heads"
        )


def degenerate(model, prompts: Prompts, group: Group, pos: str | None) -> bool:
    """Whether nothing else can reach the scored position."""
    if not model.causal or prompts.noise is not None:
        return False
    last = prompts.clean.shape[1] - 1
    if (prompts.clean[:, -1] != prompts.corrupt[:, -1]).any():
        return False
    if pos is not None and not np.asarray(prompts.span(pos))[:, -1].all():
        return False
    reached = {
        (cell.layer, head)
        for cell in group
        if cell.site in ("attn_out", "z", "head_out") and cell.column in (None, last)
        for head in _heads_of(cell, model)
    }
    return len(reached) == model.n_layers * model.config.n_heads


def _heads_of(cell: Cell, model) -> Sequence[int]:
    choice = {axis: index for axis, index in cell.choice if axis != "pos"}
    if not choice:
        return range(model.config.n_heads)
    return [choice["head"]] if choice.keys() == {"head"} else []
