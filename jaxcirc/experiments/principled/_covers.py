"""Over-splitting in dictionaries of real activations: how many features share one value of a binary
attribute, and whether other seeds and other prompts find the same ones.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 6 and appendix A.10. May import
`dictionaries`, `tasks`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ...dictionaries.interpret import cover, jaccards
from ...tasks import interval
from .._result import Row
from ._approximation import cells
from ._bench import Bench
from ._subjects import Subject, coded


def splitting_rows(
    bench: Bench, subjects: Sequence[Subject], again: Sequence[Subject], attribute: str
) -> list[Row]:
    """How many features share the values of a binary attribute, and whether other seeds and other
    prompts find the same ones.

    - `again`: dictionaries of the same kind that learned from other prompts.
    """
    rows: list[Row] = []
    for kind in dict.fromkeys(s.kind for s in subjects):
        own = [_active(bench, s) for s in subjects if s.kind == kind]
        other = [_active(bench, s) for s in again if s.kind == kind]
        holds = [bench.source.labels[attribute] == v for v in (0, 1)]
        covers = [cover(a, h) for a in own for h in holds]
        pairs = {"seeds": own[1:], "draws": other}
        sets = [i for c in covers[:2] for i in c.features]
        rows.append(
            {
                "section": "splitting",
                "cross-section": bench.section.name,
                "attribute": attribute,
                "dictionary": kind,
                **cells({"features a value": interval([len(c.features) for c in covers])}),
                "covered": float(np.mean([c.share for c in covers])),
                "overlap": float(np.mean([c.overlap for c in covers])),
                **{f"match, {n}": _matched(own[0][:, sets], x) for n, x in pairs.items()},
                **{f"chance, {n}": _chance(own[0][:, sets], x) for n, x in pairs.items()},
            }
        )
    return rows


def _active(bench: Bench, subject: Subject) -> Bool[np.ndarray, "example feature"]:
    return np.asarray(coded(subject.dictionaries[0], bench.values[0])[0]) != 0


def _matched(own, others) -> float | None:
    """How alike the best match in another dictionary is, by the Jaccard index."""
    if not others or not own.shape[1]:
        return None
    return float(np.mean([jaccards(own, other).max(axis=1).mean() for other in others]))


def _chance(own, others) -> float | None:
    """The same with examples mixed up."""
    if not others or not own.shape[1]:
        return None
    order = np.random.default_rng(0).permutation(len(own))
    return _matched(own, [other[order] for other in others])
