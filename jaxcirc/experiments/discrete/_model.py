"""One task on a language model: heads by every method, sets of equal size judged by ablation.

O'Neill & Bui 2024 (arXiv 2405.12522), sections 4 and 5. Truth from patching would be attribution's
own measurement, so heads found are judged by what they keep; where a reference circuit of the
model's is known, by that too. May import `circuits`, `patching`, `tasks`.
"""

import numpy as np
from jaxtyping import Float

from ... import circuits, tasks
from ..._types import Progress
from ...circuits.discrete import DiscreteScores, component_outputs, score_outputs
from ...taps import Wiring
from ...tasks import Contrast, Prompts
from .._clock import clock
from .._result import Row
from ..feature_circuits import Section
from ._assumed import absent_claim, carried_claims
from ._robust import fewer
from ._sets import faithful_rows, found_rows, overlaps

FEW = 5
"""Texts of each class that are scored where all are not."""
ATTRIBUTION = {"EAP": "eap", "EAP-IG": "eap-ig", "HISP": "hisp"}


def model_section(
    model, tokenizer, task: str, sizes, seed: int, progress: Progress | None = None
) -> Section:
    """A task on a model.

    - `sizes`: `DiscreteSizes`.

    Returns a `Section` of rows "faithful", "found", "codes" and "overlap", claims, and arrays of
    head scores by method.
    """
    negatives = tasks.NEGATIVES.get(task, {})
    prompts = tasks.TASKS[task](tokenizer, n=sizes.texts, seed=seed, **negatives)
    texts = Contrast.of(prompts)  # as drawn: any first few hold all templates
    with clock() as caching:
        outputs = component_outputs(model, texts)
    n = int(texts.positive.sum())
    with clock() as spent:
        scores = score_outputs(
            outputs[:n], outputs[n:], settings=sizes.model_settings, seeds=sizes.seeds, seed=seed
        )
    heads = by_method(model, prompts.take(range(min(sizes.pairs, len(prompts)))), scores, seed)
    judged = prompts.take(range(min(sizes.judged, len(prompts))))
    rows: list[Row] = [_codes_row(task, scores, caching["run"], spent["run"])]
    faithful, claims, notes = faithful_rows(model, task, judged, heads, sizes, prompts, progress)
    rows += faithful + overlaps(task, heads)
    rows += found_rows(model, task, judged, heads, sizes)
    claims += [
        absent_claim(model, task, prompts),
        *carried_claims(model, task, texts, scores, prompts, sizes),
    ]
    arrays = {f"heads/{name}": value.astype(np.float32) for name, value in heads.items()}
    return Section(rows, arrays, claims, notes)


def by_method(
    model, prompts: Prompts, scores: DiscreteScores, seed: int
) -> dict[str, Float[np.ndarray, "trial head"]]:
    """Scores of all heads, layer by layer, by every method: one row, or one a trial."""
    wiring, found = Wiring.of(model), {}
    found["discrete"] = scores.nodes
    found["discrete, by pairs"] = scores.by_pairs
    found[f"discrete, {FEW} scored"] = fewer(scores, FEW)
    for label, method in ATTRIBUTION.items():
        edges = np.abs(circuits.score(model, prompts, method, wiring=wiring).importance)
        found[label] = _heads_of(edges, wiring, best=label == "HISP")[None]
    n = wiring.n_layers * wiring.n_heads
    found["random"] = np.random.default_rng(seed).normal(size=(len(scores.nodes), n))
    found["sequential"] = -np.arange(n, dtype=float)[None]
    return found


def _heads_of(size: Float[np.ndarray, "edge"], wiring: Wiring, best: bool):
    """Heads by what leaves them, or by their best edge."""
    if not best:
        return circuits.node_scores(size, wiring).ravel()
    node = np.zeros(wiring.n_sources)
    np.maximum.at(node, wiring.source, size)
    return node[wiring.first :].reshape(-1, wiring.width)[:, : wiring.n_heads].ravel()


def _codes_row(task: str, scores: DiscreteScores, caching: float, scoring: float) -> Row:
    """How many codes are in use, how alike the trials are, and what it took."""
    ranks = np.corrcoef(scores.nodes) if len(scores.nodes) > 1 else np.ones((1, 1))
    used = [len(np.unique(codes)) for codes in scores.codes]
    return {
        "section": "codes",
        "task": task,
        "texts": len(scores.positive),
        "codes in use": float(np.mean(used)),
        "heads with a unique code": float((scores.nodes > 0).mean()),
        "texts that carry one": float(scores.carries[:, scores.positive].any(axis=2).mean()),
        "r between seeds": float(ranks[np.triu_indices(len(ranks), 1)].mean())
        if len(ranks) > 1
        else None,
        "seconds, outputs": caching,
        "dictionaries": len(scores.nodes),
        "seconds": scoring,
    }
