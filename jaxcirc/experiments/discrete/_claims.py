"""What the sections say together: verdicts over models of the zoo, sensitivity, cost.

O'Neill & Bui 2024 (arXiv 2405.12522). Figures of the paper are of GPT-2 small and a four-layer
model against circuits found by hand. Imports `_areas` and the names in `_cost`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...tasks import Interval
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ._areas import Ranked, area, area_cells, from_draws, spread
from ._cost import FEW_ACDC, WHOLE_ACDC
from ._known import rankings

PAPER = {
    "ACDC": "nodes .853 / .635 (IOI), .832 / .831 (greater-than), .915 / .887 (docstring)",
    "HISP": "nodes .853 / .699, .832 / .637, .915 / .885",
    "SP": "nodes .853 / .681, .832 / .573, .915 / .672",
}
"""Figure 3 of the paper: discrete against the method, IOI, greater-than and docstring; baselines
are means over two metrics and two ablations, zero among them, which depresses ACDC and SP."""
PARTS = {"node": "components", "pair": "pairs of components"}


def known_rows(sections: Mapping[str, Section]) -> list[Row]:
    """A row for every method: the mean AUC over models of the zoo, over components and pairs."""
    rows: list[Row] = []
    for part, words in PARTS.items():
        for label, by_case in rankings(sections, part).items():
            cells = area_cells(list(by_case.values()))
            rows.append({"section": "known", "parts ranked": words, "method": label, **cells})
    return sorted(rows, key=lambda row: (str(row["parts ranked"]), -float(row["AUC"] or 0)))


def known_claims(sections: Mapping[str, Section]) -> list[Claim]:
    """Against every other method, over components; and what negatives are worth."""
    found = rankings(sections, "node")
    if not found:
        return []
    ours = list(found["discrete"].values())
    claims = [
        Claim(
            f"zoo: codes rank components better than {other}",
            "difference of the mean AUC over models",
            area(ours, list(found[other].values())),
            paper=PAPER.get(other, ""),
        )
        for other in ("EAP-IG", "EAP", "ACDC", "HISP", "SP", "random")
        if other in found
    ]
    worse = list(found["discrete, corrupt pairs"].values())
    return [
        *claims,
        Claim(
            "zoo: negatives that lack the behaviour serve better than corrupt prompts that show it",
            "AUC with negatives that lack it, less that with corrupt prompts",
            area(ours, worse),
            floor=0.05,
        ),
    ]


Swept = Mapping[tuple[str, str], Mapping[str, list[Ranked]]]
"""Rankings by (method, setting), then value, one for every model."""


def swept_of(sections: Mapping[str, Section]) -> Swept:
    """The rankings of the sweeps."""
    found: dict[tuple[str, str], dict[str, list[Ranked]]] = {}
    for section in sections.values():
        for key, wins in section.arrays.items():
            method, setting, value = key.split("/")
            by_value = found.setdefault((method, setting), {})
            by_value.setdefault(value, []).append(Ranked(wins))
    return {key: _shared(values, len(sections)) for key, values in found.items()}


def _shared(values: Mapping[str, list[Ranked]], n: int) -> dict[str, list[Ranked]]:
    """The values that all models have."""
    return {value: ranked for value, ranked in values.items() if len(ranked) == n}


def robust_claims(swept: Swept) -> list[Claim]:
    """Few texts are enough, more data hurts, and how the settings of others compare."""
    claims = []
    ends = swept.get(("discrete", "end to end"), {})
    for value, ranked in ends.items():
        claims.append(
            Claim(
                f"zoo, end to end: {value} texts, trained on and scored, tell the circuit",
                "AUC over components",
                area(ranked),
                baseline=0.5,
                floor=0.2,
                paper=".776 / .559 / .772 with 5 scored a class, IOI / greater-than / docstring",
            )
        )
    examples = swept.get(("discrete", "examples"), {})
    if len(examples) > 1:
        few, many = list(examples)[0], list(examples)[-1]
        claims.append(
            Claim(
                f"zoo: dictionaries trained on {few} texts do better than on {many}",
                "difference of AUC",
                area(examples[few], examples[many]),
                floor=0.05,
                paper=".861 against .679 (250 texts, greater-than), .879 / .779 (IOI)",
            )
        )
    return [*claims, *_sensitivity(swept)]


def _sensitivity(swept: Swept) -> list[Claim]:
    """The range of AUC over our settings, against that over the baselines' own."""
    ours = [key for key in (("discrete", "features"), ("discrete", "penalty")) if swept.get(key)]
    others = (("ACDC", "threshold"), ("SP", "penalty"), ("EAP-IG", "steps"))
    claims = []
    for key in others:
        if not swept.get(key) or not ours:
            continue
        theirs = spread(list(swept[key].values()))
        own = np.max([spread(list(swept[one].values())) for one in ours], axis=0)
        claims.append(
            Claim(
                f"zoo: codes depend less on their settings than {key[0]} on its {key[1]}",
                "range of AUC of the other, less that over features or penalty",
                from_draws(theirs - own, next(iter(swept[key].values()))),
            )
        )
    return claims


def cost_claims(rows: Sequence[Row]) -> list[Claim]:
    """Hours to seconds, in this run: one dictionary on the others' own prompts, and all those of a
    task on all its texts."""
    seconds: dict[Any, float] = {row["what"]: float(row["seconds"] or 0) for row in rows}
    ours = [what for what in seconds if what.endswith(("one dictionary", "dictionaries"))]
    told = (
        (WHOLE_ACDC, "a whole search of ACDC", 100.0, "hours to seconds", ours),
        (FEW_ACDC, "ACDC among few edges that gradients chose", 1.0, "", ours[:1]),
        ("EAP-IG", "EAP-IG", 1.0, "", ours[:1]),
    )
    found = [
        (name, words, least, paper, seconds[other] / seconds[name])
        for other, words, least, paper, names in told
        for name in names
        if other in seconds
    ]
    return [
        Claim(
            f"{name}, from texts to heads, in less time than {words}",
            "seconds of the other over ours",
            Interval(ratio, ratio, ratio, 1, 1),
            baseline=1.0,
            floor=least - 1.0,
            paper=paper,
        )
        for name, words, least, paper, ratio in found
    ]
