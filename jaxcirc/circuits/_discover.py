"""From prompts to a node circuit: attribution ranks, exact patching verifies, ablation judges.

Every node is scored by attribution patching in one backward pass; the best are patched exactly and
join the circuit by their verified importance; its faithfulness is traced against its size beside
random sets. What preselection may have missed, `verify` bounds. May import `patching`,
`attribution` and `_evaluate`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .. import attribution, patching
from .._types import Direction, Tell
from ..taps import Node
from ..tasks import Interval, Metric, Prompts, interval, logit_difference
from ._evaluate import Curve, all_nodes, bounds, evaluate


@dataclasses.dataclass(frozen=True)
class NodeCircuit:
    """A ranked list of verified nodes and how well the first k of them explain the behaviour.

    - `nodes`: verified nodes, by falling verified importance; `exact` and `estimate` hold their raw
      effects (exact patching, AtP) with intervals clustered by template.
    - `scores`: mean AtP of every node by site, "z" [layer head] and "mlp_out" [layer].
    - `curve`: faithfulness, completeness and the random baseline over sizes.
    - `clean`, `corrupt`: the metric on whole runs.
    - `averaged`: the fewest and the most prompts that an ablation mean goes over.
    """

    nodes: tuple[Node, ...]
    exact: tuple[Interval, ...]
    estimate: tuple[Interval, ...]
    scores: dict[str, Float[np.ndarray, "layer ..."]]
    curve: Curve
    clean: Interval
    corrupt: Interval
    averaged: tuple[int, int]
    direction: Direction
    sign: float

    @property
    def importance(self) -> list[float]:
        """Verified importance of the nodes: positive helps."""
        return [self.sign * effect.value for effect in self.exact]

    def correlation(self) -> float:
        """Pearson correlation of AtP with the exact effect over the verified nodes."""
        exact, estimate = ([effect.value for effect in of] for of in (self.exact, self.estimate))
        return float(np.corrcoef(exact, estimate)[0, 1])


def discover(
    model,
    prompts: Prompts,
    *,
    reference: Prompts | None = None,
    metric: Metric = logit_difference,
    direction: Direction = "noise",
    verify: int = 60,
    sizes: Sequence[int] = (1, 2, 4, 7, 11, 16, 24, 35, 47, 60),
    draws: int = 5,
    seed: int = 0,
    progress: Tell | None = None,
) -> NodeCircuit:
    """Find the heads and MLPs behind a behaviour, and measure how much of it they explain.

    - `reference`: prompts whose corrupt runs give the ablation means (default: `prompts`).
    - `verify`: how many nodes, by the size of their AtP score, are patched exactly.
    - `sizes`: circuit sizes to evaluate; those above `verify` are left out.
    - `draws`: random sets per size.

    Returns `NodeCircuit`. Raises `ValueError` if every size exceeds `verify`, or if ablating
    everything changes the metric too little to divide by.

    >>> discover(model, ioi(tokenizer, n=32)).nodes[:5]
    """
    everything = all_nodes(model)
    verify = min(verify, len(everything))
    sizes = tuple(size for size in sizes if size <= verify)
    if not sizes:
        raise ValueError(
            f"no size is at most verify={verify}: discover(..., sizes=(5, 20), verify=60)"
        )
    tell = _teller(progress)
    sites = tuple(dict.fromkeys(node.site for node in everything))
    ablation = patching.means(model, prompts, reference=reference)
    ends = bounds(model, prompts, ablation, metric)
    scores = attribution.nodes(model, prompts, metric, sites, direction)
    mean = {site: np.asarray(raw.mean(axis=0)) for site, raw in scores.raw.items()}
    picked = sorted(everything, key=lambda node: -abs(_of(mean, node)))[:verify]
    effects = patching.patch(
        model, prompts, picked, metric, direction, progress=tell("exact patching")
    )
    order = np.argsort(-np.asarray(effects.sign * effects.mean()), kind="stable")
    nodes = [picked[i] for i in order]
    curve = evaluate(
        model,
        prompts,
        nodes,
        sizes,
        ablation=ablation,
        metric=metric,
        draws=draws,
        seed=seed,
        ends=ends,
        progress=tell("faithfulness"),
    )
    clusters = np.asarray(prompts.templates)
    raw = {site: np.asarray(raw) for site, raw in scores.raw.items()}
    base, source = (interval(np.asarray(x), clusters) for x in (effects.base, effects.source))
    return NodeCircuit(
        nodes=tuple(nodes),
        exact=tuple(effects.interval(int(i)) for i in order),
        estimate=tuple(interval(_of_examples(raw, node), clusters) for node in nodes),
        scores=mean,
        curve=curve,
        averaged=_range(ablation),
        clean=base if direction == "noise" else source,
        corrupt=source if direction == "noise" else base,
        direction=direction,
        sign=effects.sign,
    )


def _range(ablation: patching.Ablation) -> tuple[int, int]:
    used = np.asarray(ablation.sizes)[np.asarray(ablation.group)]
    return int(used.min()), int(used.max())


def _of(table: dict[str, np.ndarray], node: Node) -> float:
    layer = table[node.site][node.layer]
    return float(layer if node.index is None else layer[node.index])


def _of_examples(table: dict[str, np.ndarray], node: Node) -> np.ndarray:
    layer = table[node.site][:, node.layer]
    return layer if node.index is None else layer[:, node.index]


def _teller(progress):
    def tell(stage: str):
        return None if progress is None else lambda done, total: progress(stage, done, total)

    return tell
