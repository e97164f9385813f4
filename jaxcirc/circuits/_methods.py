"""Every method of edge discovery under one name and one signature. May import all of circuits.

A method is a function `(model, prompts, *, metric, wiring) -> scores`, Float[edge] or
Float[example edge], positive where an edge helps; `METHODS` names ours, and a user's own goes
wherever a name does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .. import patching
from ..attribution import edges, edges_qk, flow
from ..taps import Wiring
from ..tasks import Contrast, Metric, Prompts, kl, logit_difference, sign
from ._acdc import acdc_scores
from ._graph import EdgeScores
from ._hisp import head_importance
from ._masks import learn_masks
from ._select import select
from .discrete import Settings, discrete, edge_scores, end_scores

Method = Callable[..., Float[np.ndarray, "..."]]

ACDC_EDGES = 600
"""Edges that ACDC searches: the best by EAP-IG, which it is too slow to do without."""

TRIALS = 3
"""Dictionaries whose scores "discrete" averages."""

FEW = 8
"""Prompts that searches and learned masks look at, all at once."""


def _helpful(raw: np.ndarray, metric: Metric) -> np.ndarray:
    return sign("noise", metric) * raw


def _eap(along: str, **fixed: Any) -> Method:
    def method(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
        settings: Any = {"along": along, **fixed, **options}
        return _helpful(edges(model, prompts, metric, wiring=wiring, **settings), metric)

    return method


def _eap_qk(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
    return _helpful(edges_qk(model, prompts, metric, wiring=wiring, **options), metric)


def _exact(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
    every = np.arange(wiring.n_edges)
    found = patching.patch_edges(model, prompts, every, metric, wiring=wiring, **options)
    return _helpful(np.asarray(found.raw), metric)


def _ifr(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
    return flow(model, prompts, wiring=wiring, **options)


def _hisp(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
    return head_importance(model, prompts, metric, wiring=wiring, **options)


def _random(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, seed: int = 0):
    return np.random.default_rng(seed).normal(size=wiring.n_edges)


def _masks(level: str, n_kept: int | None = None) -> Method:
    def method(model, prompts: Prompts, *, metric: Metric, wiring: Wiring, **options: Any):
        few = prompts.take(range(min(FEW, len(prompts))))
        budget = None if n_kept is None else min(n_kept, wiring.n_edges)
        settings: Any = {"level": level, "budget": budget, **options}
        logit = learn_masks(model, few, kl, wiring=wiring, **settings).logit
        return logit - logit.min()  # sizes: what is dropped first counts least

    return method


def _acdc(
    model,
    prompts: Prompts,
    *,
    metric: Metric,
    wiring: Wiring,
    thresholds: Sequence[float] = (0.001, 0.01, 0.1),
    among: int = ACDC_EDGES,
    **options: Any,
):
    few, within, first = prompts.take(range(min(FEW, len(prompts)))), None, np.zeros(wiring.n_edges)
    if among < wiring.n_edges:
        first = _eap("inputs")(model, few, metric=metric, wiring=wiring).mean(axis=0)
        within = select(wiring, first, among, signed=False, prune=False).kept
    found, _ = acdc_scores(model, few, thresholds, wiring=wiring, within=within, **options)
    size = np.abs(first)  # orders what ACDC ties; all 0, and so no order, where it sees every edge
    ranked = np.searchsorted(np.sort(size), size) / wiring.n_edges
    return found + ranked * min(thresholds) / 2


def _discrete(pairs: bool) -> Method:
    def method(
        model,
        prompts: Prompts,
        *,
        metric: Metric,
        wiring: Wiring,
        texts: Contrast | None = None,
        trials: int = TRIALS,
        settings: Settings | None = None,
        **options: Any,
    ):
        texts = Contrast.of(prompts) if texts is None else texts
        settings = settings or Settings(examples=min(10, len(texts)))
        own: Any = {"settings": settings, "seeds": trials, "pairs": pairs, **options}
        found = discrete(model, texts, mlps=wiring.mlp, **own)
        return (edge_scores if pairs else end_scores)(found, wiring)

    return method


METHODS: dict[str, Method] = {
    "eap": _eap("point"),
    "eap-qk": _eap_qk,
    "eap-ig": _eap("inputs"),
    "eap-ig-activations": _eap("activations"),
    "clean-corrupted": _eap("ends"),
    "relp": _eap("point", backward="relp"),
    "ifr": _ifr,
    "hisp": _hisp,
    "sp": _masks("node"),
    "edge-sp": _masks("edge"),
    "edge-pruning": _masks("edge", 1000),
    "acdc": _acdc,
    "discrete": _discrete(pairs=True),
    "discrete-nodes": _discrete(pairs=False),
    "exact": _exact,
    "random": _random,
}
"""Methods by name. Searches and masks use the first few prompts; "acdc" searches a graph that
EAP-IG has pruned before, and ties are broken by it. "discrete" reads no metric and patches nothing:
it needs corrupt prompts without the behaviour, or such `texts` as `tasks.contrast` makes."""

UNSIGNED = (
    *("ifr", "hisp", "sp", "edge-sp", "edge-pruning", "acdc"),
    *("discrete", "discrete-nodes"),
)
"""Methods that say how much an edge matters, not whether it helps."""


def score(
    model,
    prompts: Prompts,
    method: str | Method = "eap-ig",
    metric: Metric = logit_difference,
    *,
    wiring: Wiring | None = None,
    **options: Any,
) -> EdgeScores:
    """Score every edge by a method.

    - `method`: a name in `METHODS`, or a function of the same signature.
    - `wiring`: the edges (default: the model's). `options`: the method's own.

    Returns `EdgeScores`, its sign 1: raw scores are positive where an edge helps. Raises
    `ValueError` for an unknown name, or scores of another shape.

    >>> score(model, prompts, "eap-ig", steps=5).importance
    """
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    name = method if isinstance(method, str) else getattr(method, "__name__", "method")
    run = METHODS[method] if isinstance(method, str) else method
    wiring = Wiring.of(model) if wiring is None else wiring
    found = np.asarray(run(model, prompts, metric=metric, wiring=wiring, **options), np.float32)
    raw = np.broadcast_to(found, (1, *found.shape)) if found.ndim == 1 else found
    if raw.ndim != 2 or raw.shape[1] != wiring.n_edges:
        raise ValueError(
            f"{name} returned shape {found.shape}: give ({wiring.n_edges},), one number an edge, or"
            f" ({len(prompts)}, {wiring.n_edges})"
        )
    templates = np.asarray(prompts.templates)[: len(raw)]
    return EdgeScores(wiring, raw, templates, name, sign=1.0, unsigned=name in UNSIGNED)
