"""`jaxcirc patch ioi --site z`: the exact effect of every cell of a site.

On SmolLM2-135M all 270 heads with 32 prompts take about half a minute on two cores.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import patching
from .._types import Direction, Tell
from ..tasks import METRICS, Interval, Prompts, interval
from ._clock import clock
from ._result import Result, Row, facts_of


def patch_task(
    model,
    prompts: Prompts,
    *,
    site: str = "z",
    by: Sequence[str] | None = None,
    pos: str | None = None,
    metric: str = "logit_difference",
    direction: Direction = "noise",
    window: int = 1,
    value: str = "source",
    gaussian: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    progress: Tell | None = None,
) -> Result:
    """Exact patching of a site as a `Result`: mean effects with intervals, clustered by template.

    Arguments as for `jaxcirc.patching.sweep`; `metric` by name; `gaussian`: corrupt by noise on
    this span, ten draws a prompt; `columns` label the positions in figures. Its array "effects" has
    the axes ("layer", *by), "examples" one more in front.

    >>> patch_task(model, ioi(tokenizer), site="resid_pre", by=("pos",)).arrays["effects"]
    """

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress("exact patching", done, total)

    with clock() as seconds:
        if gaussian is not None:
            prompts = patching.noised(model, prompts, gaussian, seed=seed)
        effects = patching.sweep(
            model,
            prompts,
            site,
            METRICS[metric],
            direction,
            by=by,
            pos=pos,
            window=window,
            value=value,
            progress=tell,
        )
    labels: dict[str, Any] = {"columns": list(columns)} if "pos" in effects.axes and columns else {}
    facts = facts_of(
        model,
        prompts,
        site=effects.site,
        by=list(effects.axes[2:]),
        pos=pos,
        metric=metric,
        direction=direction,
        window=window,
        value=value,
        gaussian=gaussian,
        seed=seed,
        **labels,
    )
    return Result(
        kind="patch",
        task=prompts.name,
        numbers={"base": _mean(effects, "base"), "source": _mean(effects, "source")},
        table=[_row(effects, cell) for cell in np.ndindex(*effects.raw.shape[1:])],
        arrays={"effects": np.asarray(effects.mean()), "examples": np.asarray(effects.raw)},
        axes={"effects": effects.axes[1:], "examples": effects.axes},
        facts=facts,
        seconds=seconds,
        notes=[f"raw = metric(patched) - metric(base), {direction}; importance: positive helps."],
    )


def _mean(effects: patching.Effects, end: str) -> Interval:
    return interval(np.asarray(getattr(effects, end)), np.asarray(effects.templates))


def _row(effects: patching.Effects, cell: tuple[int, ...]) -> Row:
    found = effects.interval(*cell)
    return {
        "cell": ".".join(map(str, cell)),
        **dict(zip(effects.axes[1:], map(int, cell), strict=True)),
        "raw": found.value,
        "low": found.low,
        "high": found.high,
        "importance": effects.sign * found.value,
    }
