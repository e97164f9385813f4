"""`jaxcirc compare ioi`: every method of edge discovery on one task, under one exact oracle.

Mueller et al. 2025 (MIB, arXiv 2504.13151), sections 3 and 4: areas under faithfulness curves; here
with exact effects of a sample of edges beside them. On SmolLM2-135M about a quarter of an hour on
two cores. Expect averaged gradients (EAP-IG) to lead, and random edges at the bottom.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .. import circuits, patching
from .._types import Tell
from ..circuits import EdgeCurve, EdgeScores
from ..taps import Wiring
from ..tasks import METRICS, Prompts, interval, interval_of
from ._clock import clock
from ._memory import peak
from ._result import Result, Row, facts_of, finite
from .edges import name_reader, name_source, shape_of

METHODS_COMPARED = (
    "eap",
    "eap-ig",
    "clean-corrupted",
    "relp",
    "ifr",
    "hisp",
    "sp",
    "acdc",
    "discrete",
    "random",
)
TOP = 50
AGREE = 500  # edges whose overlap between methods is counted


def compare_methods(
    model,
    prompts: Prompts,
    *,
    methods: Mapping[str, circuits.Method] | Sequence[str] = METHODS_COMPARED,
    metric: str = "logit_difference",
    sample: int = 600,
    truth: np.ndarray | None = None,
    grid: Sequence[float] = circuits.GRID,
    seed: int = 0,
    progress: Tell | None = None,
) -> Result:
    """Every method's edges judged alike: CPR, CMD, exact effects of sampled edges, time, memory.

    - `methods`: names, or functions by name (see `circuits.METHODS`). `metric`: by name.
    - `sample`: edges patched exactly: half drawn alike, half in proportion to the methods' scores,
      weighted by the inverse of how likely they were drawn.
    - `truth`: Bool[edge], a reference circuit, if there is one. `grid`: shares of edges kept.

    Returns `Result`: a row a method, arrays of curves and scores, agreement between methods.

    >>> compare_methods(model, ioi(tokenizer, n=24), methods=("eap", "random")).table
    """
    wiring, measure = Wiring.of(model), METRICS[metric]
    chosen = {name: name for name in methods} if not isinstance(methods, Mapping) else methods
    with clock() as seconds:
        full, empty = circuits.edge_ends(model, prompts, wiring, measure)
        options: dict[str, Any] = {"ends_of": (full, empty), "grid": grid}
        scores, spent, curves = {}, {}, {}
        for i, (name, method) in enumerate(chosen.items()):
            if progress is not None:
                progress("methods", i, len(chosen))
            with clock() as took, peak() as memory:
                scores[name] = circuits.score(model, prompts, method, measure, wiring=wiring)
            spent[name] = {**took, **memory}
            importance = scores[name].importance
            curves[name] = tuple(
                circuits.edge_curve(
                    model, prompts, wiring, importance, measure, distance=distance, **options
                )
                for distance in (False, True)
            )
        if progress is not None:
            progress("methods", len(chosen), len(chosen))
        drawn = draw_edges({name: s.importance for name, s in scores.items()}, sample, seed)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress("exact edges", done, total)

        effects = patching.patch_edges(model, prompts, drawn[0], measure, progress=tell)
    exact = np.asarray(effects.importance)
    clusters = np.asarray(prompts.templates)
    rows = [
        _row(name, scores[name], curves[name], spent[name], exact, drawn, clusters, truth)
        for name in scores
    ]
    return Result(
        kind="compare",
        task=prompts.name,
        numbers={"clean": interval(full, clusters), "corrupt": interval(empty, clusters)},
        table=finite([*rows, *_agreement(scores), *_best(wiring, drawn[0], exact)]),
        **_arrays(scores, curves, exact, drawn, grid),
        facts=facts_of(
            model,
            prompts,
            metric=metric,
            methods=list(chosen),
            grid=list(grid),
            sample=sample,
            seed=seed,
            few=circuits.FEW,
            acdc_edges=circuits.ACDC_EDGES,
            **shape_of(wiring),
        ),
        seconds=seconds,
        notes=_notes(wiring),
    )


def draw_edges(
    importance: Mapping[str, Float[np.ndarray, "edge"]], n: int, seed: int
) -> tuple[Int[np.ndarray, "drawn"], Float[np.ndarray, "drawn"]]:
    """Edges to patch exactly, half alike and half by the methods' scores, each once.

    Returns (edges, weights): how many edges each stands for, Horvitz and Thompson's inverse of the
    probability of being drawn at all.
    """
    sizes = np.stack([np.abs(values) for values in importance.values()])
    shares = (sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-30)).mean(axis=0)
    chance = 0.5 / sizes.shape[1] + 0.5 * shares
    chance = chance / chance.sum()
    drawn = np.unique(np.random.default_rng(seed).choice(len(chance), n, p=chance))
    return drawn, 1 / -np.expm1(n * np.log1p(-chance[drawn]))


def weighted_rank(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Rank correlation of a weighted sample: each edge's rank is the weight of all below it."""

    def ranks(values: np.ndarray) -> np.ndarray:
        order = np.argsort(values, kind="stable")
        placed = np.empty(len(values))
        placed[order] = np.cumsum(weights[order]) - weights[order] / 2
        return placed

    table = np.cov(ranks(x), ranks(y), aweights=weights)
    return float(table[0, 1] / np.sqrt(table[0, 0] * table[1, 1]))


def _row(
    name: str,
    scores: EdgeScores,
    curves: tuple[EdgeCurve, EdgeCurve],
    spent: Mapping[str, float],
    exact: Float[np.ndarray, "example drawn"],
    drawn: tuple[np.ndarray, np.ndarray],
    clusters: Int[np.ndarray, "example"],
    truth: np.ndarray | None,
) -> Row:
    edges, weights = drawn
    estimate = scores.sign * scores.raw[:, edges]
    if len(estimate) != len(exact):  # one number an edge, whatever the prompts
        estimate = np.broadcast_to(estimate.mean(axis=0), exact.shape)

    def rank(guess: np.ndarray, truth: np.ndarray) -> float:
        return weighted_rank(np.abs(guess), np.abs(truth), weights)

    def recall(guess: np.ndarray, truth: np.ndarray) -> float:
        best, guessed = (np.argsort(-np.abs(x))[:TOP] for x in (truth, guess))
        return len(set(best) & set(guessed)) / TOP

    both, labels = [estimate, exact], [clusters] * 2

    found = {
        "CPR": curves[0].area,
        "CMD": curves[1].area,
        "rank": interval_of(rank, both, labels),
        "recall": interval_of(recall, both, labels),
    }
    row: Row = {"section": "method", "method": name}
    for label, at in found.items():
        row |= {label: at.value, f"{label} low": at.low, f"{label} high": at.high}
    if truth is not None:
        row |= {"AUROC": circuits.auroc(np.abs(scores.importance), truth)}
    return row | {
        "seconds": spent["run"],
        "compiling": spent["compile"],
        "GB": spent["peak"] / 1e9,
    }


def _agreement(scores: Mapping[str, EdgeScores]) -> list[Row]:
    rows: list[Row] = []
    for one, other in itertools.combinations(scores, 2):
        sizes = [np.abs(scores[name].importance) for name in (one, other)]
        best = [set(np.argsort(-size)[:AGREE].tolist()) for size in sizes]
        shared = len(best[0] & best[1]) / len(best[0] | best[1])
        rows.append({"section": "agreement", "methods": f"{one}, {other}", "jaccard": shared})
    return rows


def _best(wiring: Wiring, edges: np.ndarray, exact: np.ndarray) -> list[Row]:
    mean = exact.mean(axis=0)
    rows: list[Row] = []
    for i in np.argsort(-np.abs(mean))[:20]:
        source, reader = wiring.edge(int(edges[i]))
        name = f"{name_source(source)} → {name_reader(reader)}"
        rows.append({"section": "exact", "edge": name, "importance": float(mean[i])})
    return rows


def _arrays(scores, curves, exact, drawn, grid) -> dict[str, Any]:
    arrays: dict[str, np.ndarray] = {"grid": np.asarray(grid, np.float32)}
    axes: dict[str, Sequence[str]] = {"grid": ("size",)}
    for name, pair in curves.items():
        for kind, curve in zip(("cpr", "cmd"), pair, strict=True):
            arrays[f"{kind}_{name}"] = np.asarray([f.value for f in curve.f], np.float32)
            axes[f"{kind}_{name}"] = ("size",)
        arrays[f"scores_{name}"] = scores[name].importance.astype(np.float32)
        axes[f"scores_{name}"] = ("edge",)
    sampled = {
        "sampled": drawn[0].astype(np.int32),
        "weights": drawn[1].astype(np.float32),
        "exact": exact.mean(axis=0).astype(np.float32),
    }
    return {"arrays": arrays | sampled, "axes": axes | dict.fromkeys(sampled, ("drawn",))}


def _notes(wiring: Wiring) -> list[str]:
    return [
        f"{wiring.n_edges:,} edges. CPR: area under faithfulness, edges ranked by importance (more"
        " is better, it may exceed 1); CMD: area between it and 1, ranked by size (less is"
        " better).",
        f"Rank and recall of the exact top {TOP} among the sampled edges, by size; ranks weighted"
        " by how many edges each sampled one stands for.",
        "The discrete method compares clean with corrupt prompts and reads no metric: it asks for"
        ' corrupt prompts without the behaviour, such as `ioi(..., corruption="abc")`.',
        f"ACDC and learned masks look at the first {circuits.FEW} prompts; ACDC (KL, thresholds"
        f" 0.001, 0.01, 0.1) searches the {circuits.ACDC_EDGES} best edges of EAP-IG.",
    ]
