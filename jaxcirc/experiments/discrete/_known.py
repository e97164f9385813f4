"""Methods on models whose circuit is known: AUC over components and over pairs of them.

O'Neill & Bui 2024 (arXiv 2405.12522), figure 3, on the zoo in place of circuits found by hand. May
import `circuits`, `zoo`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ... import circuits, zoo
from ...circuits.discrete import DiscreteScores, Settings, discrete
from ...zoo import Case
from .._clock import clock
from .._result import Row
from ..feature_circuits import Section
from ._areas import Ranked

OTHERS: dict[str, dict[str, Any]] = {
    "EAP": {"method": "eap"},
    "EAP-IG": {"method": "eap-ig"},
    "HISP": {"method": "hisp"},
    "SP": {"method": "sp"},
    "ACDC": {"method": "acdc"},
    "random": {"method": "random"},
}
"""Other methods by the name they are printed with."""
OF_NODES = ("HISP", "SP", "ACDC")
"""A component counts with its best edge where scores are of nodes, or are thresholds; with the sum
of their sizes elsewhere."""
TEXTS = {"discrete": "absent", "discrete, corrupt pairs": "corrupt"}
"""The method with negatives that lack the behaviour, and with the pairs that other methods see."""


def known_section(name: str, sizes, seed: int) -> Section:
    """Every method on a model of the zoo.

    - `sizes`: `DiscreteSizes`.

    Returns a `Section`: a row a method, and the scores of components ("node/METHOD", Float[trial
    component]) and pairs ("pair/METHOD", Float[trial component component]).
    """
    case, rows = zoo.load(name), []
    arrays: dict[str, np.ndarray] = {}
    found: list[tuple[str, np.ndarray, np.ndarray | None, float]] = []
    for label, negatives in TEXTS.items():
        with clock() as spent:
            scores = zoo_scores(case, sizes.n, sizes.settings, sizes.seeds, negatives, seed=seed)
        assert scores.pairs is not None
        found.append((label, scores.nodes, scores.pairs, spent["run"]))
        found.append((f"{label}, by pairs", scores.by_pairs, None, spent["run"]))
    prompts = case.prompts(sizes.prompts, seed)
    for label, options in OTHERS.items():
        for trial in range(sizes.seeds if label == "random" else 1):
            more: dict[str, Any] = {"seed": trial} if label == "random" else {}
            with clock() as spent:
                edges = circuits.score(
                    case.model, prompts, metric=case.metric, wiring=case.wiring, **options, **more
                )
            nodes, pairs = of_edges(case, np.abs(edges.importance), label in OF_NODES)
            found.append((label, nodes[None], pairs[None], spent["run"]))
    seconds: dict[str, float] = {}
    for label, nodes, pairs, took in found:
        seconds.setdefault(label, took)
        for part, value in (("node", nodes), ("pair", pairs)):
            if value is not None:
                key = f"{part}/{label}"
                arrays[key] = np.concatenate([arrays[key], value]) if key in arrays else value
    for label, took in seconds.items():
        both = arrays[f"node/{label}"], arrays.get(f"pair/{label}")
        rows.append(_row(case, label, *both, took))
    truth = dict(zip(("node/true", "node/known"), case.components, strict=True))
    pair_truth = dict(zip(("pair/true", "pair/known"), true_pairs(case), strict=True))
    return Section(rows, arrays | {k: v.astype(np.uint8) for k, v in (truth | pair_truth).items()})


def zoo_scores(
    case: Case, n: int, settings: Settings, seeds: int, negatives: Any = "absent", **options: Any
) -> DiscreteScores:
    """The method on a model of the zoo, MLPs among the components.

    Trains on fewer texts where there are not enough.
    """
    texts = case.contrast(n, options.get("seed", 0), negatives)
    fitted = min(settings.examples, len(texts))
    own = dataclasses.replace(settings, examples=fitted)
    return discrete(case.model, texts, settings=own, seeds=seeds, mlps=True, **options)


def of_edges(
    case: Case, size: Float[np.ndarray, "edge"], best: bool
) -> tuple[Float[np.ndarray, "component"], Float[np.ndarray, "component component"]]:
    """Components by what leaves them, and pairs by the best edge between them."""
    wiring, n = case.wiring, len(case.components[0])
    first = wiring.first
    table = _pairs(case, size, np.maximum)
    if not best:
        return np.bincount(wiring.source, size, wiring.n_sources)[first:], table[:, :n]
    node = np.zeros(wiring.n_sources)
    np.maximum.at(node, wiring.source, size)
    return node[first:], table[:, :n]


def true_pairs(
    case: Case,
) -> tuple[Bool[np.ndarray, "component component"], Bool[np.ndarray, "component component"]]:
    """Which pairs of components have a true edge at any of the reader's slots; which are known, the
    first being read by the second at all."""
    n = len(case.components[0])
    shown = case.true & case.scored & ~case.constant
    some = _pairs(case, shown.astype(float), np.maximum)[:, :n] > 0
    hidden = ~case.scored | case.constant
    unknown = _pairs(case, hidden.astype(float), np.maximum)[:, :n] > 0
    every = _pairs(case, np.ones(case.wiring.n_edges), np.maximum)[:, :n] > 0
    return some, every & (some | ~unknown)


def _pairs(case: Case, values: np.ndarray, join) -> Float[np.ndarray, "component reader"]:
    """Values of edges between components, joined over slots; the last column is the logits."""
    wiring, n = case.wiring, len(case.components[0])
    inner = wiring.source >= wiring.first
    table = np.zeros((n, n + 1))
    readers = circuits.reader_components(wiring)
    join.at(table, (wiring.source[inner] - wiring.first, readers[inner]), values[inner])
    return table


def _row(
    case: Case, label: str, nodes: np.ndarray, pairs: np.ndarray | None, seconds: float
) -> Row:
    row: dict[str, Any] = {"section": "case", "case": case.name, "method": label}
    for part, scores, (truth, known) in (
        ("nodes", nodes, case.components),
        ("pairs", pairs, true_pairs(case)),
    ):
        ranked = None if scores is None else Ranked.of(scores[:, known], truth[known])
        row[f"AUC, {part}"] = None if ranked is None else float(ranked.by_trial.mean())
    truth, known = case.components
    return row | matched(nodes[:, known], truth[known]) | {"seconds": seconds}


def matched(
    scores: Float[np.ndarray, "trial part"], truth: Bool[np.ndarray, "part"]
) -> dict[str, float]:
    """The best as many as there are true ones, against the truth: means over trials.

    >>> matched(scores, truth)["precision"]
    """
    k = int(truth.sum())
    chosen = [np.isin(np.arange(len(truth)), np.argsort(-row, kind="stable")[:k]) for row in scores]
    found = [circuits.precision_recall(one, truth) for one in chosen]
    names = ("precision", "recall", "sensitivity", "specificity")
    return {name: float(np.mean([getattr(match, name) for match in found])) for name in names}


def rankings(sections: Mapping[str, Section], part: str) -> dict[str, dict[str, Ranked]]:
    """By method, then case: how it ranks components ("node") or pairs ("pair").

    Cases where all parts are inside, or none, are left out.
    """
    found: dict[str, dict[str, Ranked]] = {}
    for label, name, scores, truth in _scored(sections, part):
        ranked = Ranked.of(scores, truth)
        if ranked is not None:
            found.setdefault(label, {})[name] = ranked
    return found


FPR = np.linspace(0, 1, 101)


def roc_curves(sections: Mapping[str, Section], part: str) -> dict[str, Float[np.ndarray, "point"]]:
    """By method: the true positive rate at `FPR`, mean over seeds and models.

    >>> roc_curves(sections, "node")["discrete"][50]
    """
    found: dict[str, list[np.ndarray]] = {}
    for label, _, scores, truth in _scored(sections, part):
        if truth.any() and not truth.all():
            curves = [circuits.roc(row, truth) for row in scores]
            rates = [np.interp(FPR, curve.fpr, curve.tpr) for curve in curves]
            found.setdefault(label, []).append(np.mean(rates, axis=0))
    return {label: np.mean(curves, axis=0) for label, curves in found.items()}


def _scored(sections: Mapping[str, Section], part: str):
    """(method, case, scores [trial part], truth [part]) over known parts."""
    for name, section in sections.items():
        truth, known = (section.arrays[f"{part}/{k}"].astype(bool) for k in ("true", "known"))
        for key, scores in section.arrays.items():
            kind, _, label = key.partition("/")
            if kind == part and label not in ("true", "known"):
                yield label, name, scores[:, known], truth[known]
