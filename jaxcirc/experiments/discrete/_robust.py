"""How fragile is it? One setting at a time, on models whose circuit is known.

O'Neill & Bui 2024 (arXiv 2405.12522), figures of robustness: texts that dictionaries are trained
on, texts scored, dictionary size, sparsity weight, kind of negative; and the same question asked of
the methods it is compared with. May import `circuits`, `zoo`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from ... import circuits, zoo
from ...circuits.discrete import DiscreteScores, Settings, component_outputs, score_outputs
from ...zoo import Case
from .._result import Row
from ..feature_circuits import Section
from ._areas import Ranked
from ._known import OF_NODES, of_edges, zoo_scores

END_TO_END = (5, 10)
"""Texts of all, half of each class, that are both trained on and scored."""


def robust_section(name: str, sizes, seed: int, progress: Any = None) -> Section:
    """Sweeps on one model: a row a value (section "swept"), with the node AUC of every seed.

    - `sizes`: `DiscreteSizes`.

    >>> robust_section("induction", DiscreteSizes(), 0).rows[0]["AUC"]
    """
    case, rows = zoo.load(name), []
    everything = [*_ours(case, sizes, seed), *_others(case, sizes, seed)]
    arrays = {}
    for i, (method, what, value, run) in enumerate(everything):
        scores = np.atleast_2d(run())
        truth, known = case.components
        ranked = Ranked.of(scores[:, known], truth[known])
        if ranked is not None:
            row: Row = {"section": "swept", "case": name, "method": method, "setting": what}
            row |= {"value": str(value), "AUC": float(ranked.by_trial.mean())}
            rows.append(row | {"sd": float(ranked.by_trial.std())})
            arrays[f"{method}/{what}/{value}"] = ranked.wins
        if progress is not None:
            progress(i + 1, len(everything))
    return Section(rows, arrays)


def _ours(case: Case, sizes, seed: int) -> Iterator[tuple[str, str, Any, Any]]:
    """(method, setting, value, what scores nodes), the cheap outputs made once."""
    texts = case.contrast(sizes.n, seed)
    n = int(texts.positive.sum())
    outputs = component_outputs(case.model, texts, mlps=True)
    base, swept = sizes.settings, sizes.swept

    def scored(x: np.ndarray, m: int, settings: Settings = base, **options: Any) -> np.ndarray:
        own = _fitting(settings, len(x))
        options = {"seeds": sizes.seeds, "seed": seed, "pairs": False} | options
        return score_outputs(x[:m], x[m:], settings=own, **options).nodes

    def changed(**change: Any):
        return lambda: scored(outputs, n, dataclasses.replace(base, **change))

    @cache
    def whole() -> DiscreteScores:
        options: Any = {"seeds": sizes.seeds, "seed": seed, "pairs": False}
        own = _fitting(base, len(outputs))
        return score_outputs(outputs[:n], outputs[n:], settings=own, **options)

    def few(size: int):
        return lambda: fewer(whole(), size)

    def other(**options: Any):
        return lambda: (
            zoo_scores(
                case, sizes.n, base, sizes.seeds, **{"seed": seed, "pairs": False} | options
            ).nodes
        )

    for value in swept.examples:
        if value <= len(outputs):
            yield "discrete", "examples", value, changed(examples=value)
    for value in swept.scored:
        if value <= min(n, len(outputs) - n):
            yield "discrete", "scored", value, few(value)
    for value in swept.features:
        yield "discrete", "features", value, changed(features=value)
    for value in swept.penalty:
        run = lambda value=value: scored(outputs, n, penalties=[value] * sizes.seeds)  # noqa: E731
        yield "discrete", "penalty", value, run
    for value in swept.negatives:
        yield "discrete", "negatives", value, other(negatives=value)
    for value in ("column", "reference"):
        yield "discrete", "decoder_norm", value, changed(decoder_norm=value)
    for value, word in ((False, "no"), (True, "yes")):
        run = lambda value=value: scored(outputs, n, normalise=value)  # noqa: E731
        yield "discrete", "normalise", word, run
    for value in ("mean", "last"):
        yield "discrete", "pool", value, other(pool=value)
    for total in END_TO_END:
        run = lambda total=total: _end_to_end(outputs, n, total, base, sizes.seeds, seed)  # noqa: E731
        yield "discrete", "end to end", total, run


def _end_to_end(
    outputs: np.ndarray, n: int, total: int, base: Settings, seeds: int, seed: int
) -> Float[np.ndarray, "trial component"]:
    """Trained and scored on the same few texts, other ones in every trial."""
    settings, found = dataclasses.replace(base, examples=total), []
    for trial in range(seeds):
        rng = np.random.default_rng((seed, trial))
        ours = rng.permutation(n)[: total // 2]
        theirs = n + rng.permutation(len(outputs) - n)[: total - total // 2]
        options: Any = {"settings": settings, "seeds": 1, "seed": seed + trial, "pairs": False}
        found.append(score_outputs(outputs[ours], outputs[theirs], **options).nodes[0])
    return np.stack(found)


def _fitting(settings: Settings, n: int) -> Settings:
    return dataclasses.replace(settings, examples=min(settings.examples, n))


def fewer(scores: DiscreteScores, n: int) -> np.ndarray:
    """Node scores from the first n texts of each class alone, the dictionaries as they are.

    >>> fewer(scores, 10).shape                             # [trial component]
    """
    positive = np.flatnonzero(scores.positive)[:n]
    rows = np.concatenate([positive, np.flatnonzero(~scores.positive)[:n]])
    seen = np.ones((len(rows), scores.codes.shape[2]), bool)
    found = [
        circuits.discrete.unique_counts(
            codes[rows], scores.positive[rows], seen, features=scores.settings.features
        )
        for codes in scores.codes
    ]
    return np.asarray(found).sum(axis=1)


def _others(case: Case, sizes, seed: int) -> Iterator[tuple[str, str, Any, Any]]:
    """The same of other methods."""
    swept, prompts = sizes.swept, case.prompts(sizes.prompts, seed)

    def score(label: str, method: str, **options: Any):
        def run() -> np.ndarray:
            found = circuits.score(
                case.model, prompts, method, case.metric, wiring=case.wiring, **options
            )
            return of_edges(case, np.abs(found.importance), label in OF_NODES)[0]

        return run

    for value in swept.thresholds:
        yield "ACDC", "threshold", value, score("ACDC", "acdc", thresholds=(value,))
    for value in swept.penalties:
        yield "SP", "penalty", value, score("SP", "sp", penalty=value)
    for value in swept.ig_steps:
        yield "EAP-IG", "steps", value, score("EAP-IG", "eap-ig", steps=value)


def spread_rows(rows: Sequence[Row]) -> list[Row]:
    """A row for every method and setting: the lowest and the highest mean AUC over cases."""
    found: list[Row] = []
    keys = dict.fromkeys((row["method"], row["setting"]) for row in rows)
    for method, setting in keys:
        own = [row for row in rows if (row["method"], row["setting"]) == (method, setting)]
        means = {
            value: np.mean([float(row["AUC"] or 0) for row in own if row["value"] == value])
            for value in dict.fromkeys(row["value"] for row in own)
        }
        worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        row: Row = {"section": "spread", "method": method, "setting": setting}
        row |= {"lowest AUC": float(means[worst]), "at": worst}
        row |= {"highest AUC": float(means[best]), "best at": best}
        found.append({**row, "range": float(means[best] - means[worst])})
    return found
