"""Does a set of heads carry the behaviour? Heads outside of it are ablated, MLPs are left alone.

O'Neill & Bui 2024 (arXiv 2405.12522), section 4, whose code sets heads to zero and always keeps the
first two layers. May import `circuits`, `patching`, `tasks`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ... import patching
from ..._types import Progress
from ...patching import Ablation
from ...taps import Node
from ...tasks import Interval, Metric, Prompts, interval_of, recovered
from .._evaluate import ablated_values, all_nodes


@dataclasses.dataclass(frozen=True)
class HeadCurve:
    """A metric over nested sets of heads.

    - `sizes`: heads kept beyond the free layers. `values`: the metric, Float[size example].
    - `f`: the share of the way from no head to all of them; `area`: under f over the share of heads
      kept (CPR), or None where sizes do not run from 0 to all.
    """

    sizes: tuple[int, ...]
    values: Float[np.ndarray, "size example"]
    f: tuple[Interval, ...]
    area: Interval | None


def head_curve(
    model,
    prompts: Prompts,
    orders: Mapping[str, Sequence[Node]],
    sizes: Sequence[int],
    *,
    metric: Metric,
    ablation: Ablation | None = None,
    free: int = 0,
    random: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, HeadCurve]:
    r"""Faithfulness of the first k heads of every order, all MLPs kept.

    $$f(C) = \frac{m(C) - m(\varnothing)}{m(M) - m(\varnothing)}$$

    with $\varnothing$ no head above the free layers.

    - `orders`: heads by name of the order, the best first; those of free layers are passed over.
    - `ablation`: what other heads are set to (default: means over the corrupt prompts by position
      and template); `patching.constant(model, prompts, {"z": 0.0, "mlp_out": 0.0})` is the
      published zero. `free`: layers below it are always kept (published: 2).
    - `random`: random orders, drawn from `seed`, whose mean is the curve "random".

    Returns a `HeadCurve` by name. Raises `ValueError` if heads do not matter to the metric.

    >>> head_curve(model, prompts, {"discrete": nodes}, (0, 10, 40), metric=logit_difference)
    """
    if ablation is None:
        ablation = patching.means(model, prompts)
    every = all_nodes(model)
    always = [node for node in every if node.site == "mlp_out" or node.layer < free]
    heads = [node for node in every if node.site == "z" and node.layer >= free]
    wanted = [frozenset(always), frozenset(every)]
    rng = np.random.default_rng(seed)
    drawn = [[heads[i] for i in rng.permutation(len(heads))] for _ in range(random)]
    for order in (*orders.values(), *drawn):
        kept = [node for node in order if node.layer >= free]
        wanted += [frozenset([*always, *kept[:size]]) for size in sizes]
    sets = list(dict.fromkeys(wanted))  # no head and all heads are the same in every order
    once = ablated_values(
        model, prompts, [sorted(s) for s in sets], ablation, metric, progress=progress
    )
    values = once[[sets.index(one) for one in wanted]]
    (empty, full), values = values[:2], values[2:].reshape(-1, len(sizes), len(prompts))
    named = dict(zip(orders, values, strict=False))
    if random:
        named["random"] = values[len(orders) :].mean(axis=0)
    clusters = np.asarray(prompts.templates)
    found = {}
    for name, own in named.items():
        f = tuple(recovered(row, empty, full, clusters) for row in own)
        area = _area(own, empty, full, clusters, np.asarray(sizes) / len(heads))
        found[name] = HeadCurve(tuple(sizes), own, f, area)
    return found


def _area(own, empty, full, clusters, shares: np.ndarray) -> Interval | None:
    if shares[0] != 0 or shares[-1] != 1:
        return None

    def area(values, empty, full) -> float:
        return float(np.trapezoid((values - empty) / (full - empty), shares))

    return interval_of(area, [own.T, empty, full], [clusters] * 3)
