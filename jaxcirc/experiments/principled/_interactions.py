r"""One head's attention as a sum over pairs of features.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), appendix A.7: with codes for queries at the end and
for keys at the names, $q^\top k / \sqrt d = \sum_{ij} v_i^\top u_j / \sqrt d$, so that what a head
looks for and what it finds there can be read off, attribute by attribute. Queries and keys are
those after the rotation; the mean and what codes leave unexplained are parts too, so that terms add
up to the score. May import `dictionaries`, `patching`.
"""

from collections.abc import Sequence

import numpy as np

from ...dictionaries import Supervised, supervised
from ...dictionaries.supervised import interactions, part_names, split
from ...patching import Component
from ...tasks import interval
from .._result import Row
from ._approximation import cells
from ._bench import Runs

ATTRIBUTES = ("IO", "S", "Pos")
ROLES = ("IO", "S1")


def attention_rows(train: Runs, held: Runs, heads: int = 1) -> list[Row]:
    """The terms of the scores of the heads that prefer IO to S1 the most, from the end.

    - `train`: prompts that codes are made from; `held`: others, on which terms are averaged.
    """
    chosen = _movers(held, heads)
    every = [c for head in chosen for role in ROLES for c in _parts(held.model, *head, role)]
    train.read(every)
    return [row for head in chosen for role in ROLES for row in _terms(train, held, *head, role)]


def _movers(held: Runs, n: int) -> list[tuple[int, int]]:
    """Heads by how much higher their score is at IO than at S1."""
    config = held.model.config
    every = [(layer, head) for layer in range(config.n_layers) for head in range(config.n_heads)]
    asked = [c for head in every for role in ROLES for c in _parts(held.model, *head, role)]
    held.read(asked)
    scores = {role: [_score(held, *head, role) for head in every] for role in ROLES}
    apart = np.asarray(scores["IO"]) - np.asarray(scores["S1"])
    return [every[i] for i in np.argsort(-apart)[:n]]


def _parts(model, layer: int, head: int, role: str) -> list[Component]:
    """The query at the end and the key at a role, of one head."""
    group = model.config.n_heads // model.config.n_kv_heads
    key = Component("rot_k", layer, role, head // group)
    return [Component("rot_q", layer, "end", head), key]


def _score(held: Runs, layer: int, head: int, role: str) -> float:
    """The mean score from the end to a role."""
    q, k = held.read(_parts(held.model, layer, head, role))
    return float((q * k).sum(axis=1).mean())


def _terms(train: Runs, held: Runs, layer: int, head: int, role: str) -> list[Row]:
    asked, scale = _parts(held.model, layer, head, role), held.model.blocks.attn.scale
    own = {name: train.source.labels[name] for name in ATTRIBUTES}
    sizes = {name: train.source.sizes[name] for name in ATTRIBUTES}
    codes = [supervised(x, own, sizes) for x in train.read(asked)]
    values, labels = held.read(asked), held.source.labels
    q, k = (split(c, x, labels) for c, x in zip(codes, values, strict=True))
    terms = np.asarray(interactions(q, k, scale))
    return _rows(terms, codes, f"{layer}.{head}", role, np.asarray(held.source.prompts.templates))


def _rows(
    terms: np.ndarray, codes: Sequence[Supervised], head: str, role: str, clusters: np.ndarray
) -> list[Row]:
    names = [part_names(c) for c in codes]
    rows: list[Row] = []
    for i, query in enumerate(names[0]):
        for j, key in enumerate(names[1]):
            found = cells({"score": interval(terms[:, i, j], clusters)})
            rows.append(
                {
                    "section": "attention",
                    "head": head,
                    "key at": role,
                    "query": query,
                    "key": key,
                    **found,
                }
            )
    return rows
