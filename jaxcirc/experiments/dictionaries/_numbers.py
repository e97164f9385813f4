"""Numbers of single tokens gathered into numbers of a dictionary, with intervals over documents.

May import `tasks` for the intervals.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ...tasks import Interval, interval, interval_of, recovered
from .._result import Row

DENSE = 0.1
"""A feature active on a larger share of tokens is dense."""

WORDS = {"zero": "zero ablation", "mean": "mean ablation"}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a pass over the text found.

    - `tokens`: kept; `scored`: predicted. `clean`: the model's own cross-entropy. `fired`: tokens
      on which each feature was active, by dictionary. `numbers`: by dictionary and name.
    """

    tokens: int
    scored: int
    clean: Interval
    fired: Mapping[str, Float[np.ndarray, "feature"]]
    numbers: Mapping[str, Mapping[str, Interval]]
    notes: list[str]

    @classmethod
    def of(cls, parts: Mapping[str, Sequence[np.ndarray]], names: Sequence[str]) -> "Measured":
        """From the columns of every batch."""
        columns = {name: np.concatenate(values) for name, values in parts.items()}
        if not len(columns["spread"]) or not len(columns["clean"]):
            raise ValueError("every token is masked: check sink_norm, or give more text")
        fired = {name: columns[f"fired.{name}"].sum(axis=0) for name in names}
        notes: list[str] = []
        numbers = {name: _numbers(columns, name, fired[name], notes) for name in names}
        clean = interval(columns["clean"], columns["scored_document"])
        return cls(
            len(columns["spread"]),
            len(columns["clean"]),
            clean,
            fired,
            numbers,
            list(dict.fromkeys(notes)),
        )


def _numbers(
    columns: Mapping[str, np.ndarray], name: str, fired: np.ndarray, notes: list[str]
) -> dict[str, Interval]:
    kept, scored = columns["document"], columns["scored_document"]
    entropy, clean = columns[f"entropy.{name}"], columns["clean"]
    error, spread = columns[f"error.{name}"], columns["spread"]
    if not (np.isfinite(error).all() and np.isfinite(entropy).all()):
        raise ValueError(f"{name} rebuilds numbers that are not finite: check its weights")
    density = fired / len(kept)
    found = {
        "l0": interval(columns[f"l0.{name}"], kept),
        "fve": interval_of(lambda e, s: 1 - e / s, [error, spread], [kept, kept]),
        "cosine": interval(columns[f"cosine.{name}"], kept),
        "nats": interval(entropy - clean, scored),
        "kl": interval(columns[f"kl.{name}"], scored),
        "dead": _share(density == 0, len(kept)),
        "dense": _share(density > DENSE, len(kept)),
    }
    for kind in ("zero", "mean"):
        if f"entropy.{kind}" not in columns:
            continue
        try:
            ablated = columns[f"entropy.{kind}"]
            found[f"recovered_{kind}"] = recovered(entropy, ablated, clean, scored)
        except ValueError:
            notes.append(
                f"{WORDS[kind].capitalize()} changes cross-entropy too little to divide by."
            )
    return found


def _share(chosen: np.ndarray, tokens: int) -> Interval:
    """A share of features; it has no interval, and depends on how many tokens were seen."""
    return Interval(float(chosen.mean()), math.nan, math.nan, tokens, 1)


def numbers_of(found: Measured, own: str) -> dict[str, Interval]:
    """Those of the dictionary by name, of its baselines as "pca_64_nats"."""
    numbers = {"cross_entropy": found.clean, **found.numbers[own]}
    for name, each in found.numbers.items():
        if name != own:
            numbers |= {f"{name}_{what}": number for what, number in each.items()}
    return numbers


COLUMNS = {
    "l0": "L0",
    "fve": "FVE",
    "cosine": "cosine",
    "nats": "nats",
    "kl": "KL",
    "recovered_zero": "recovered (zero)",
    "recovered_mean": "recovered (mean)",
    "dead": "dead",
    "dense": "dense",
}
"""Columns of the table by the names of numbers."""


def row_of(found: Measured, name: str, size: int) -> Row:
    """A dictionary beside the others."""
    row: dict[str, str | int | float | None] = {
        "section": "dictionary",
        "dictionary": name.replace("_", "-"),
        "features": size,
    }
    for what, column in COLUMNS.items():
        number = found.numbers[name].get(what)
        row[column] = None if number is None else number.value
        if number is not None and what in ("fve", "nats"):
            row |= {f"{column} low": _known(number.low), f"{column} high": _known(number.high)}
    return row


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
