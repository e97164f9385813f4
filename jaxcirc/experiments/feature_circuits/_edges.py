"""Are edge scores true? Against exact path patching, and by what pruned circuits keep.

The paper's edges (Marks et al. 2024, arXiv 2403.19647, eq. 4) were never judged. May import
`circuits`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..._types import Progress
from ...circuits import spearman
from ...circuits.features import (
    Basis,
    FeatureEdges,
    FeatureScores,
    circuit_values,
    edge_values,
    edges,
    patch_edges,
    select,
    select_edges,
)
from ...tasks import interval_of, recovered
from .._claim import Claim
from .._result import Row
from ._layers import pearson
from ._prompts import Split, clusters
from ._store import Section


def judge_edges(
    model,
    split: Split,
    basis: Basis,
    scores: FeatureScores,
    *,
    n_nodes: int = 60,
    sample: int = 300,
    prompts: int = 8,
    pruned: Sequence[int] = (30, 100, 300),
    method: Any = "ig",
    steps: int | None = None,
    rule: Any = "gauss",
    value: str = "mean",
    metric: Any = "logit_difference",
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Section:
    """Edges between the best nodes: a sample patched exactly, and faithfulness with few kept.

    - `sample`: edges drawn at random (all if there are fewer), beside as many of the strongest.
      `prompts`: how many of the discovery split both are measured on. `pruned`: edges kept on the
      evaluation split, best by score and drawn at random.

    Returns a section: rows "edge quality" and "edges kept", and the claim that scores rank edges.
    """
    few = split.discovery.take(range(min(prompts, len(split.discovery))))
    path: dict[str, Any] = {"method": method, "steps": steps, "rule": rule, "batch": batch}
    nodes = scores.nodes(select(scores, n_nodes))
    ranked = edges(model, split.discovery, basis, nodes, metric, **path)
    rng = np.random.default_rng(seed)
    drawn, strong = sampled(ranked, sample, rng)
    own = _first(ranked, len(few))
    chosen = np.union1d(drawn, strong)
    exact = patch_edges(model, few, basis, own, chosen, metric, progress=progress)
    rows: list[Row] = []
    for words, some in (("drawn at random", drawn), ("the strongest", strong)):
        rows.append(quality(split.name, words, own, exact, chosen, some, clusters(few)))
    kept, kinds = _kept(ranked, pruned, rng)
    options: dict[str, Any] = {"value": value, "batch": batch}
    options |= {"reference": split.discovery if value == "mean" else None}
    values = edge_values(model, split.evaluation, basis, ranked, kept, metric, **options)
    columns = np.asarray([scores.layout.column(node) for node in nodes], int)
    sets = [np.zeros(0, int), columns, np.arange(scores.layout.size)]
    circuits = circuit_values(
        model, split.evaluation, basis, scores.layout, sets, metric, **options
    )
    rows += _pruned_rows(split, values, circuits, kinds, len(ranked))
    claim = Claim(
        f"{split.name}: edge scores rank edges as exact path patching does",
        "rank correlation over edges drawn at random",
        _rank(own, exact, chosen, drawn, clusters(few)),
        floor=0.5,
        paper="never measured",
    )
    return Section(rows, {"exact": exact, "edges": chosen}, [claim])


def _first(found: FeatureEdges, n: int) -> FeatureEdges:
    """The same of the first n prompts alone."""
    return dataclasses.replace(found, raw=found.raw[:n], templates=found.templates[:n])


def sampled(
    found: FeatureEdges, n: int, rng
) -> tuple[Int[np.ndarray, "edge"], Int[np.ndarray, "edge"]]:
    """Numbers of edges drawn at random, and of the strongest."""
    drawn = np.sort(rng.choice(len(found), min(n, len(found)), replace=False))
    strong = np.sort(np.argsort(-np.abs(found.mean), kind="stable")[:n])
    return drawn, strong


def _columns(found: FeatureEdges, exact, chosen, some) -> list[Float[np.ndarray, "example edge"]]:
    return [found.raw[:, some].toarray(), exact[:, np.searchsorted(chosen, some)]]


def _rank(found: FeatureEdges, exact, chosen, some, templates):
    return interval_of(spearman, _columns(found, exact, chosen, some), [templates] * 2)


def quality(
    task: str, words: str, found: FeatureEdges, exact, chosen, some, templates
) -> dict[str, Any]:
    """Scores of some edges against their exact effects."""
    rank = _rank(found, exact, chosen, some, templates)
    estimate, truth = (x.mean(axis=0) for x in _columns(found, exact, chosen, some))
    size = np.abs(truth).sum()
    return {
        "section": "edge quality",
        "task": task,
        "edges": words,
        "patched": len(some),
        "prompts": len(exact),
        "rank": rank.value,
        "rank low": rank.low,
        "rank high": rank.high,
        "r": pearson(estimate, truth),
        "same sign": float((np.sign(estimate) == np.sign(truth)).mean()),
        "error, share": float(np.abs(estimate - truth).sum() / size) if size else float("nan"),
    }


def _kept(
    found: FeatureEdges, pruned: Sequence[int], rng
) -> tuple[Bool[np.ndarray, "circuit edge"], list[tuple[str, int]]]:
    """Sets of edges: the best, random ones, and all."""
    sizes = [n for n in pruned if n < len(found)]
    rows = [("best by score", n, select_edges(found, n)) for n in sizes]
    for n in sizes:
        mask = np.zeros(len(found), bool)
        mask[rng.choice(len(found), n, replace=False)] = True
        rows.append(("random", n, mask))
    rows.append(("all", len(found), np.ones(len(found), bool)))
    return np.stack([mask for _, _, mask in rows]), [(kind, n) for kind, n, _ in rows]


def _pruned_rows(
    split: Split, values, circuits, kinds: Sequence[tuple[str, int]], n_edges: int
) -> list[Row]:
    """Faithfulness of every set of edges; with all, that of the nodes."""
    empty, nodes, full = circuits
    templates = clusters(split.evaluation)
    pairs = [*zip(kinds, values, strict=True), (("the nodes, any edge", n_edges), nodes)]
    rows: list[Row] = []
    for (kind, n), row in pairs:
        found = recovered(row, empty, full, templates)
        rows.append(
            {
                "section": "edges kept",
                "task": split.name,
                "edges": kind,
                "kept": n,
                "of": n_edges,
                "faithfulness": found.value,
                "faithfulness low": found.low,
                "faithfulness high": found.high,
            }
        )
    return rows


def edge_rows(found: FeatureEdges, kept: Bool[np.ndarray, "edge"]) -> list[Row]:
    """Kept edges as rows, the strongest first."""
    numbers = np.flatnonzero(kept)
    numbers = numbers[np.argsort(-np.abs(found.mean[numbers]), kind="stable")]
    rows: list[Row] = []
    for number in numbers.tolist():
        source, reader = map(str, found.edge(number))
        spread = found.interval(number)
        rows.append(
            {
                "section": "edge",
                "edge": f"{source} > {reader}",
                "source": source,
                "reader": reader,
                "importance": float(found.sign * found.mean[number]),
                **_ends(found.sign, spread),
            }
        )
    return rows


def _ends(sign: float, spread) -> dict[str, float]:
    """An interval's bounds in terms of importance."""
    low, high = sorted((sign * spread.low, sign * spread.high))
    return {"low": low, "high": high}
