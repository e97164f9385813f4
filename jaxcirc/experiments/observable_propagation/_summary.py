"""The study's few headline figures beside the paper's, which are of GPT-Neo-1.3B.

The paper's are saved outputs of its notebooks (jacobdunefsky/ObservablePropagation on GitHub,
9d0b208). Imports `_result`.
"""

from collections.abc import Sequence
from typing import Any

from .._result import Row


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row a measure, from the rows of all sections; what was left out stays out."""
    found = [*_shared(rows), *_heads(rows), *_outputs(rows), *_labels(rows), *_groups(rows)]
    return [
        {"section": "beside", "measure": name, "paper (GPT-Neo-1.3B)": paper, "here": here}
        for name, paper, here in found
        if here
    ]


def _of(rows: Sequence[Row], **asked: Any) -> list[Any]:
    return [row for row in rows if all(row.get(name) == value for name, value in asked.items())]


def _shared(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    own = _of(rows, section="shared", observables="she - he | her - him")
    plain = _of(own, where="W_U^T n")
    heads = [row for row in own if "slope" in row]
    named = f"{plain[0]['cosine']:.2f}" if plain else ""
    if not heads:
        return [("cosine of subject and object, at the logits", "0.57", named)]
    top, far = heads[0], min(heads, key=lambda row: row["cosine"])
    slope = f"{top['coupling']:.3f} / {top['slope']:.3f}, {top['r2']:.3f}"
    least = f"{far['r2']:.3f} at {far['cosine']:.3f} ({far['where']})"
    bias = _of(rows, section="shared", observables="she - he | biased occupations")
    biased = [f"{row['cosine']:.3f} ({row['where']})" for row in bias if "slope" in row]
    return [
        ("cosine of subject and object, at the logits", "0.57", named),
        ("the same at the top head", "0.988 (17.14)", f"{top['cosine']:.3f} ({top['where']})"),
        ("coupling / slope, r2", "0.671 / 0.678, 0.998", slope),
        ("r2 of the slope where the cosine is least", "0.927 at 0.935 (13.11)", least),
        (
            "cosine of pronoun and bias at the top head",
            "0.966 (on the path to 6.6)",
            next(iter(biased), ""),
        ),
    ]


def _heads(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    own = _of(rows, section="head", observable="she - he")
    best = next((row for row in own if row["rank by effect"] == 1), None)
    both = _of(rows, section="overlap", observable="she - he")
    here = f"{best['rank by norm']} ({best['head']})" if best else ""
    shared = f"{both[0]['top 8 by norm and by effect']} of 8" if both else ""
    return [
        ("rank by norm of the head of largest direct effect", "2 (17.14)", here),
        ("top by norm that are top by direct effect", "3 of 4", shared),
    ]


def _outputs(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    found = []
    for name, paper in (("she - he", "0.947"), ("biased occupations", "0.882")):
        own = _of(rows, section="one feature", output=name)
        best = max(own, key=lambda row: row["r2"], default=None)
        here = ""
        if best:
            inner = best["r2 within templates"]
            where = f"{best['feature'].split()[0]}, {best['read at']}"
            here = f"{best['r2']:.3f}, {inner:.3f} within templates ({where})"
        found.append((f"r2 of the pronoun feature with {name}", paper, here))
    return found


def _labels(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """No labels against the most of them up to 60, at the first head and the better place."""
    own = _of(rows, section="low data", set="names")
    own = [row for row in own if row["head"] == own[0]["head"]]
    ours = max(_of(own, kind="observable propagation"), key=lambda row: row["r2"], default=None)
    if ours is None:
        return []
    beside = [r for r in _of(own, **{"read at": ours["read at"]}) if r["labels"] <= 60]
    told = [_of(beside, kind=kind)[-1] for kind in ("ridge", "mean difference")]
    here = "; ".join(f"{row['r2']:.3f}" for row in (ours, *told))
    name = f"r2 with no labels; ridge, mean difference on {told[0]['labels']}"
    return [(name, "0.945; 0.945, 0.899", f"{here} ({ours['head']}, {ours['read at']})")]


def _groups(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    found = []
    papers = {"party": "r2 0.427 and 0.763", "language": "AUC 0.997; logistic on 50: 0.997"}
    for name, paper in papers.items():
        own = _of(rows, section="low data", set=name)
        ours = [row for row in own if row["kind"] == "observable propagation"]
        for head in dict.fromkeys(row["head"] for row in ours):
            best = max((r for r in ours if r["head"] == head), key=lambda row: row["AUC"])
            told = _of(own, head=head, kind="ridge on labels")
            told = [r for r in told if r["read at"] == best["read at"] and r["labels"] <= 20][-1:]
            here = f"AUC {best['AUC']:.2f} ({head})"
            here += "".join(f"; ridge on {r['labels']}: {r['AUC']:.2f}" for r in told)
            found.append((f"{name}, no labels, head by {best['chosen by']}", paper, here))
    return found
