"""Are features in circuits easier to tell than random ones, and than neurons? Detection scores.

The rating study of Marks et al. 2024 (arXiv 2403.19647), section 4, without raters: n-gram rules
are fitted on half of a text, and judged by where a feature fires in the other half. Neurons, which
fire everywhere, are cut to their strongest share of tokens. May import `circuits`, `dictionaries`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..._types import Progress
from ...circuits.features import Basis, FeatureScores, select
from ...dictionaries import Heads
from ...dictionaries.train import Contexts
from ...tasks import interval, interval_of
from .._claim import Claim
from .._result import Row
from ..dictionaries import Annotation, Codes, Reading, collect_all, explain
from ._baselines import names_of, norms_of
from ._store import Section

LEAST = 6
"""Windows of either half in which what is explained must be active."""

RULES = "n-gram rules"

Chosen = dict[str, list[int]]
"""Features, or neurons, by place."""


def explain_kinds(
    model,
    tokenizer,
    task: str,
    bases: Mapping[str, Basis],
    scores: Mapping[str, FeatureScores],
    contexts: Contexts,
    *,
    n: int = 40,
    seed: int = 0,
    progress: Progress | None = None,
) -> Section:
    """Detection scores of features and neurons, those of the circuit and random ones.

    - `n`: of each kind, at most. `contexts`: text that nothing here was fitted on.

    Returns a section: rows "explained" (one of the circuit's features each) and "detection" (kinds
    with the mean AUROC and its interval), and the claim that features beat neurons.
    """
    rng = np.random.default_rng(seed)
    kinds = {
        "features of the circuit": ("features", strongest(scores["features"], n)),
        "random features": ("features", _like(bases["features"], scores["features"], n, rng)),
        "neurons of the circuit": ("neurons", strongest(scores["neurons"], n)),
        "random neurons": ("neurons", _like(bases["neurons"], scores["neurons"], n, rng)),
    }
    codes = _codes(model, bases, kinds, contexts, progress)
    found: dict[str, list[Row]] = {name: [] for name in kinds}
    for (name, place), own in codes.items():
        found[name] += explained(model, tokenizer, own, place, seed)
    rows: list[Row] = [_summary(task, name, rows, kinds[name][1]) for name, rows in found.items()]
    for row in found["features of the circuit"]:
        rows.append({"section": "explained", "task": task, **_told(row)})
    return Section(rows, {}, _claims(task, found))


def strongest(scores: FeatureScores, n: int) -> Chosen:
    """The n features (errors left out) with the largest effects, whatever their position."""
    place, _, index = scores.layout.split(select(scores, scores.layout.size))
    widths = np.asarray(scores.layout.widths)
    pairs = dict.fromkeys(
        (int(p), int(i)) for p, i in zip(place, index, strict=True) if i < widths[p]
    )
    return _by_place(scores, list(pairs)[:n])


def _by_place(scores: FeatureScores, pairs: Iterable[tuple[int, int]]) -> Chosen:
    found: Chosen = {}
    for place, index in pairs:
        at = scores.layout.places[place]
        found.setdefault(f"{at.site}.{at.layer}", []).append(index)
    return found


def _like(basis: Basis, scores: FeatureScores, n: int, rng) -> Chosen:
    """Twice as many at the same places, drawn at random: many of them will be too rare."""
    widths = dict(zip(names_of(basis), (d.d_dict for d in basis.dictionaries), strict=True))
    return {
        place: np.sort(
            rng.choice(widths[place], min(2 * len(own), widths[place]), replace=False)
        ).tolist()
        for place, own in strongest(scores, n).items()
    }


def _codes(
    model,
    bases: Mapping[str, Basis],
    kinds: Mapping[str, tuple[str, Chosen]],
    contexts: Contexts,
    progress: Progress | None,
) -> dict[tuple[str, str], Codes]:
    """Activations by kind and place, neurons cut to the density of the features there."""
    asked = {
        (name, place): reading(bases[basis], place, own)
        for name, (basis, chosen) in kinds.items()
        for place, own in chosen.items()
    }
    neurons = [key for key in asked if kinds[key[0]][0] == "neurons"]
    some = range(min(64, *(d.d_dict for d in bases["features"].dictionaries)))
    like = {place: reading(bases["features"], place, some) for _, place in neurons}
    every = [*asked.values(), *like.values()]
    read = collect_all(model, every, contexts, progress=progress)
    density = {
        place: float(np.mean(codes.density))
        for place, codes in zip(like, read[len(asked) :], strict=True)
    }
    found = dict(zip(asked, read, strict=False))
    return found | {key: sparsest(found[key], density[key[1]]) for key in neurons}


def explained(model, tokenizer, codes: Codes, place: str, seed: int = 0) -> list[Row]:
    """A row for each feature that is active often enough."""
    try:
        found = explain(model, tokenizer, codes, place, least=LEAST, seed=seed)
    except ValueError:
        return []
    return [{**row, "place": place} for row in found.table]


def reading(basis: Basis, place: str, features: Sequence[int]) -> Reading:
    """What to collect at a place of a basis."""
    dictionary = basis.dictionaries[names_of(basis).index(place)]
    own = dictionary.inner if isinstance(dictionary, Heads) else dictionary
    return Reading(own, place, norms_of(basis)[place], features)


def sparsest(codes: Codes, density: float) -> Codes:
    """The same with the strongest share of tokens of each feature alone.

    >>> sparsest(codes, 0.01).density.max()
    0.01
    """
    most = max(1, round(density * codes.tokens))
    kept = []
    for i in range(len(codes.features)):
        _, _, value = codes.of(i)
        best = np.sort(np.argsort(-value, kind="stable")[:most])
        kept.append(codes.starts[i] + best[value[best] > 0])
    at = np.concatenate(kept) if kept else np.zeros(0, int)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in kept])])
    return dataclasses.replace(
        codes, starts=starts, context=codes.context[at], pos=codes.pos[at], value=codes.value[at]
    )


def _summary(task: str, name: str, rows: list[Row], chosen: Chosen) -> Row:
    row: dict[str, Any] = {"section": "detection", "task": task, "kind": name}
    row |= {"explained": len(rows), "asked": sum(map(len, chosen.values()))}
    for column in ("AUROC", "shuffled"):
        values = _values(rows, column)
        found = interval(values) if len(values) else None
        row |= {column: found.value if found else None}
        row |= {f"{column} low": found.low if found else None}
        row |= {f"{column} high": found.high if found else None}
    return row


def _values(rows: list[Row], column: str) -> np.ndarray:
    return np.asarray([row[column] for row in rows if row[column] is not None], float)


def _told(row: Row) -> dict[str, Any]:
    kept = ("place", "feature", "explanation", "AUROC", "shuffled")
    return {name: row[name] for name in kept}


def _claims(task: str, found: Mapping[str, list[Row]]) -> list[Claim]:
    """None where either side has too few to compare."""
    claims = []
    for other, text, paper in (
        ("neurons of the circuit", "features are easier to tell than neurons", "by raters"),
        ("random features", "features of the circuit are easier to tell than random ones", "too"),
    ):
        pair = [_values(found[name], "AUROC") for name in ("features of the circuit", other)]
        if min(map(len, pair)) < 3:
            continue
        labels = [np.arange(len(pair[0])), len(pair[0]) + np.arange(len(pair[1]))]
        claims.append(
            Claim(
                f"{task}: {text}",
                f"detection AUROC, less that of {other}",
                interval_of(lambda a, b: float(a - b), pair, labels),
                floor=0.02,
                paper=paper,
            )
        )
    return claims


def annotations_of(rows: Iterable[Row], model: str) -> list[Annotation]:
    """Rows "explained" as annotations, to be edited and shown in the viewer."""
    return [
        Annotation(
            feature=int(row["feature"] or 0),
            text=str(row["explanation"]),
            model=model,
            place=str(row["place"]),
            by=RULES,
            score=None if row["AUROC"] is None else float(row["AUROC"]),
        )
        for row in rows
        if row.get("section") == "explained"
    ]
