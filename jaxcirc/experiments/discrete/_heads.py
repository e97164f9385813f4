"""`jaxcirc discover ioi --method discrete`: heads whose codes only positive texts have.

O'Neill & Bui 2024 (arXiv 2405.12522). On SmolLM2-135M with the default 32 texts of each class and
three dictionaries: under a minute on two cores, most of it training. No text is patched into
another, and no metric is read: what is found differs between the classes, whether it matters or
not.
"""

from typing import Any

import numpy as np

from ... import circuits
from ...circuits.discrete import DiscreteScores, Pool, Settings, layer_ordered
from ...tasks import Contrast
from .._clock import clock
from .._result import Result, Row, finite, model_facts

PAIRS = 20
"""Directed pairs of heads in the table."""


def discover_discrete(
    model,
    texts: Contrast,
    *,
    settings: Settings | None = None,
    seeds: int = 3,
    seed: int = 0,
    pool: Pool = "mean",
    normalise: bool = False,
) -> Result:
    """Rank heads, and directed pairs of heads, by the codes that only positive texts have.

    - `texts`: of two classes. `settings`: of the dictionaries (default: 200 features, 10 texts or
      as many as there are). Other arguments as for `circuits.discrete.discrete`.

    Returns `Result`: a row a head (section "head"), rows of the best pairs ("pair"), and arrays.

    >>> discover_discrete(model, contrast("ioi", tokenizer)).table[0]["head"]
    """
    settings = settings or Settings(examples=min(10, len(texts)))
    options: dict[str, Any] = {"seeds": seeds, "seed": seed, "pool": pool, "normalise": normalise}
    with clock() as seconds:
        scores = circuits.discrete.discrete(model, texts, settings=settings, **options)
    shape = model.n_layers, model.config.n_heads
    asked = {"texts": len(texts), "positives": int(texts.positive.sum())}
    asked |= {"bos": texts.bos, "texts_hash": texts.hash()} | vars(settings) | options
    deviation = scores.nodes.std(axis=0)
    return Result(
        kind="discover_discrete",
        task=texts.name,
        numbers={},
        table=finite([*head_rows(scores, shape[1]), *pair_rows(scores, shape[1])]),
        arrays={
            "nodes": scores.importance.reshape(shape).astype(np.float32),
            "nodes_sd": deviation.reshape(shape).astype(np.float32),
            "by_pairs": scores.by_pairs.mean(axis=0).reshape(shape).astype(np.float32),
        },
        axes=dict.fromkeys(("nodes", "nodes_sd", "by_pairs"), ("layer", "head")),
        facts=model_facts(model) | asked,
        seconds=seconds,
        notes=_notes(scores),
    )


def head_rows(scores: DiscreteScores, n_heads: int) -> list[Row]:
    """A row a head, the best first."""
    mean, deviation = scores.importance, scores.nodes.std(axis=0)
    paired = scores.by_pairs.mean(axis=0)
    carried = scores.carries[:, scores.positive].any(axis=2).mean(axis=(0, 1))
    rows: list[Row] = []
    for rank, node in enumerate(scores.ranked(n_heads)):
        i = node.layer * n_heads + (node.index or 0)
        rows.append(
            {
                "section": "head",
                "rank": rank + 1,
                "head": str(node),
                "layer": node.layer,
                "index": node.index,
                "unique codes": float(mean[i]),
                "sd": float(deviation[i]),
                "carried by": float(carried[i]),
                "by pairs": float(paired[i]),
            }
        )
    return rows


def pair_rows(scores: DiscreteScores, n_heads: int) -> list[Row]:
    """The best directed pairs, each of an earlier and a later layer."""
    assert scores.pairs is not None
    mean = scores.pairs.mean(axis=0)
    directed = layer_ordered(mean, np.arange(len(mean)) // n_heads)
    order = np.argsort(-np.nan_to_num(directed, nan=-1.0).ravel(), kind="stable")[:PAIRS]
    rows: list[Row] = []
    for one, other in zip(*np.unravel_index(order, directed.shape), strict=True):
        if np.isfinite(directed[one, other]):
            names = (f"{i // n_heads}.{i % n_heads}" for i in (one, other))
            found = {"pair": " → ".join(names), "unique pairs": float(mean[one, other])}
            rows.append({"section": "pair", **found})
    return rows


def _notes(scores: DiscreteScores) -> list[str]:
    rank = np.corrcoef(scores.nodes) if len(scores.nodes) > 1 else np.ones((1, 1))
    alike = rank[np.triu_indices(len(rank), 1)]
    said = [
        "Unique codes: how many codes of a head occur on positive texts and on no negative one,"
        " mean over dictionaries; carried by: the share of positive texts with such a code.",
        "By pairs: the published ranking by how often a head is in the best pairs; directed pairs"
        " are ours. None of this says that a head matters: `jaxcirc discover` patches.",
    ]
    if len(alike):
        said.append(f"Two dictionaries agree on heads with r = {np.nanmean(alike):.2f}.")
    return said
