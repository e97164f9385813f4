"""How well scores recover a reference circuit: ROC curves, their areas, precision and recall.

Conmy et al. 2023 (arXiv 2304.14997), section 4, whose area is a step function from below; O'Neill &
Bui 2024 (arXiv 2405.12522), whose "F1" is another mean than the usual one. Overlap is not
faithfulness: Hanna et al. 2024 (arXiv 2403.17806) meet a circuit with nine in ten of the nodes of
the reference and none of the behaviour. May import `taps`.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from ..taps import KINDS, Wiring
from ._graph import Graph
from ._truth import Truth

Rule = Literal["trapezoid", "pessimistic"]
Rank = Literal["size", "importance"]


@dataclasses.dataclass(frozen=True)
class Roc:
    """Points of a ROC curve, from (0, 0) to (1, 1).

    - `fpr`: the share of all others that is chosen; `tpr`: the share of the reference that is.
    - `threshold`: the score from which on a part is chosen; NaN where that is not known.
    """

    fpr: Float[np.ndarray, "point"]
    tpr: Float[np.ndarray, "point"]
    threshold: Float[np.ndarray, "point"]


def roc(scores: ArrayLike, truth: ArrayLike) -> Roc:
    """The ROC curve of scores at all thresholds; parts with equal scores are chosen together.

    - `scores`: Float[...], larger for what is taken to be in the circuit: sizes, where the sign
      does not matter. `truth`: Bool[...] of the same shape, what is in it.

    Returns `Roc`. Raises `ValueError` for NaN, or if all or none are in the circuit.

    >>> auc(roc(np.abs(graph.importance), truth("ioi/acdc").edges.kept))
    """
    values, mask = _checked(scores, truth)
    order = np.argsort(-values, kind="stable")
    values, mask = values[order], mask[order]
    last = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    tpr, fpr = (np.cumsum(kind)[last] / kind.sum() for kind in (mask, ~mask))
    start = np.zeros(1)
    return Roc(
        np.concatenate([start, fpr]),
        np.concatenate([start, tpr]),
        np.concatenate([[np.inf], values[last]]),
    )


def roc_points(fpr: ArrayLike, tpr: ArrayLike) -> Roc:
    """The ROC curve through given points, as of a method run once at each of several thresholds.

    Such points need not be nested, so the curve can fall. As in ACDC's figures, a point is dropped
    if another has both fewer false and more true parts (what is left is the Pareto front), and no
    convex hull is taken: mixing two circuits at random is no circuit. (0, 0) and (1, 1) are added.

    - `fpr`, `tpr`: Float[point], in any order.

    Returns `Roc`. Raises `ValueError` for points outside the unit square.

    >>> auc(roc_points([0.01, 0.1], [0.4, 0.7]), "pessimistic")
    """
    points = np.stack([np.ravel(fpr), np.ravel(tpr)]).astype(np.float64)
    if not ((points >= 0) & (points <= 1)).all():
        raise ValueError("rates lie between 0 and 1: divide false parts by all others, true by all")
    points = np.concatenate([points, [[0.0, 1.0], [0.0, 1.0]]], axis=1)
    x, y = np.unique(points, axis=1)  # from left to right, upwards where equal
    front = y >= np.maximum.accumulate(y)
    return Roc(x[front], y[front], np.full(front.sum(), np.nan))


def auc(curve: Roc, rule: Rule = "trapezoid") -> float:
    r"""The area under a ROC curve.

    $$\sum_i (x_{i+1} - x_i) \frac{y_i + y_{i+1}}{2} \qquad \sum_i (x_{i+1} - x_i) \, y_i$$

    - `rule`: "trapezoid" joins the points, as if circuits between them could be had; "pessimistic"
      is the step function from below, ACDC's, which punishes a curve of few points and gives scores
      without ties the same area.

    Raises `ValueError` for another word.

    >>> auc(roc_points([0.0], [0.5]), "pessimistic")
    0.5
    """
    steps, left, right = np.diff(curve.fpr), curve.tpr[:-1], curve.tpr[1:]
    heights = {"trapezoid": (left + right) / 2, "pessimistic": left}
    if rule not in heights:
        raise ValueError(f"rule={rule!r}: use one of {', '.join(map(repr, heights))}")
    return float(steps @ heights[rule])


def auroc(scores: ArrayLike, truth: ArrayLike) -> float:
    r"""The chance that a part of the circuit scores above one outside it, ties counting half.

    $$\frac{1}{n_+ n_-} \sum_{i \in +} \sum_{j \in -} [s_i > s_j] + \tfrac12 [s_i = s_j]$$

    That is the trapezoid area under `roc`, by Mann & Whitney 1947. Arguments and errors as there.

    >>> auroc([3.0, 2.0, 1.0], [True, False, False])
    1.0
    """
    values, mask = _checked(scores, truth)
    others = np.sort(values[~mask])
    below = [np.searchsorted(others, values[mask], side) for side in ("left", "right")]
    return float(np.mean(below) / len(others))


def _checked(scores: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both in one row."""
    values, mask = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if values.shape != mask.shape:
        raise ValueError(
            f"scores of shape {values.shape} against a circuit of shape {mask.shape}: score the"
            " edges of truth(...).wiring, or its heads, [layer head]"
        )
    values, mask = values.ravel(), mask.ravel()
    if np.isnan(values).any():
        raise ValueError(
            f"{np.isnan(values).sum()} scores are NaN: leave those parts out of both, scores[known]"
        )
    if mask.all() or not mask.any():
        raise ValueError(
            f"{mask.sum()} of {mask.size} parts are in the circuit: a ranking needs some in it and"
            " some outside"
        )
    return values, mask


@dataclasses.dataclass(frozen=True)
class Match:
    """A chosen set against a reference; NaN where there is nothing to count.

    - `precision`: the share of the chosen that is in the reference. `recall` and `sensitivity`, one
      number: the share of the reference that is chosen. `specificity`: of all others, not chosen.
    - `f1`: the harmonic mean of precision and recall. `balanced`: that of sensitivity and
      specificity, which O'Neill & Bui 2024 call F1, and which is most often the larger.
    """

    precision: float
    recall: float
    f1: float
    sensitivity: float
    specificity: float
    balanced: float


def precision_recall(chosen: ArrayLike, truth: ArrayLike) -> Match:
    """A chosen set against a reference.

    - `chosen`, `truth`: Bool[...], of one shape.

    Returns `Match`. Raises `ValueError` for two shapes.

    >>> precision_recall(graph.kept, truth("ioi/acdc").edges.kept).f1
    """
    chosen, truth = np.asarray(chosen, bool), np.asarray(truth, bool)
    if chosen.shape != truth.shape:
        raise ValueError(f"chosen has shape {chosen.shape} and truth {truth.shape}: use one wiring")
    picked, wanted, others = (int(mask.sum()) for mask in (chosen, truth, ~truth))
    both = int((chosen & truth).sum())
    precision, recall = _share(both, picked), _share(both, wanted)
    specificity = _share(int((~chosen & ~truth).sum()), others)
    return Match(
        precision,
        recall,
        _share(2 * both, picked + wanted),
        recall,
        specificity,
        _share(2 * recall * specificity, recall + specificity, 0.0),
    )


def _share(part: float | int, whole: float | int, empty: float = math.nan) -> float:
    return empty if whole == 0 else part / whole


def recall_at(scores: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The share of the circuit among the k best scores.

    Where a tie lies across the k-th place, it is what a random order of the equal ones would give
    on average. Arguments and errors as in `roc`; also `ValueError` for k beyond the scores.

    >>> recall_at(np.abs(graph.importance), truth("ioi/acdc").edges.kept, 963)
    """
    values, mask = _checked(scores, truth)
    if not 1 <= k <= values.size:
        raise ValueError(f"k={k}: there are {values.size} scores to take the best of")
    last = np.sort(values)[-k]
    above, equal = values > last, values == last
    share = (k - above.sum()) / equal.sum()
    return float((mask[above].sum() + share * mask[equal].sum()) / mask.sum())


def node_scores(scores: ArrayLike, wiring: Wiring) -> Float[np.ndarray, "layer head"]:
    r"""Scores of heads from scores of edges: what leaves them, whatever its sign.

    $$s_h = \sum_{h \to r} |s_{h \to r}|$$

    - `scores`: Float[edge], such as `EdgeScores.importance`.

    Raises `ValueError` for another number of edges.

    >>> auroc(node_scores(graph.importance, graph.wiring), truth("ioi/acdc").head_mask)
    """
    sizes = np.abs(np.asarray(scores, np.float64))
    if sizes.shape != (wiring.n_edges,):
        raise ValueError(
            f"scores of shape {sizes.shape} for {wiring.n_edges} edges: average over examples"
            " first, EdgeScores.importance"
        )
    out = np.bincount(wiring.source, sizes, wiring.n_sources)[wiring.first :]
    return out.reshape(wiring.n_layers, wiring.width)[:, : wiring.n_heads]


def without_mlps(wiring: Wiring) -> Bool[np.ndarray, "edge"]:
    """The edges with an MLP at neither end.

    >>> without_mlps(Wiring(12, 12, 12)).sum()                           # for GPT-2 small
    29089
    """
    writes = np.asarray([node.site == "mlp_out" for node in wiring.sources])
    return ~writes[wiring.source] & (wiring.kind != KINDS.index("mlp"))


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How well scores rank one kind of part: `n` of them, `in_circuit` of those in the circuit."""

    parts: str
    n: int
    in_circuit: int
    auroc: float


def overlap(graph: Graph, truth: Truth, rank: Rank = "size") -> tuple[Overlap, ...]:
    """The AUROC of a graph's importance against a reference circuit: over all edges, over those
    that touch no MLP, and over heads (by `node_scores`).

    - `graph`: with an importance for every edge. `rank`: edges by the "size" of their importance,
      or by "importance" itself, where edges that hinder come last (heads are ranked the same way
      by either).

    Only heads where the reference knows no edges. Raises `ValueError` for a graph without
    importance, or of another model.

    >>> overlap(read_graph("ioi-eap-ig.json", helpful="negative"), truth("ioi/acdc"))[0].auroc
    0.8677...
    """
    importance = _importance(graph, truth)
    if rank not in ("size", "importance"):
        raise ValueError(f'rank={rank!r}: use "size" or "importance"')
    rows, scores = [], np.abs(importance) if rank == "size" else importance
    if truth.edges is not None:
        some = without_mlps(truth.wiring)
        rows.append(_row("all edges", scores, truth.edges.kept))
        rows.append(_row("edges without MLPs", scores[some], truth.edges.kept[some]))
    heads = node_scores(importance, graph.wiring)
    return (*rows, _row("heads", heads, truth.head_mask))


def _importance(graph: Graph, truth: Truth) -> Float[np.ndarray, "edge"]:
    if graph.wiring != truth.wiring:
        raise ValueError(
            f"scores of {graph.wiring} against {truth.name}, whose model {truth.model} is"
            f" {truth.wiring}: score that model"
        )
    if graph.importance is None:
        raise ValueError(
            "the graph has no importance to rank by: precision_recall(graph.kept,"
            " truth(...).edges.kept) compares sets"
        )
    return graph.importance


def _row(parts: str, scores: np.ndarray, mask: np.ndarray) -> Overlap:
    return Overlap(parts, mask.size, int(mask.sum()), auroc(scores, mask))
