"""Two groups that an observable tells apart: parties of politicians, languages of code.

Dunefsky & Cohan 2023 (arXiv 2312.16291), section 4.3: a feature of no label beside directions
fitted to labels. Here all are read at the same layer and the same tokens, and the head is chosen in
four ways, since that choice is supervision too. The sign of a head's effect is shown: the feature
of a head that works against the output predicts its opposite.
"""

from collections.abc import Sequence

import numpy as np

from ...observables import Observable, auc, features
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from . import _words
from ._labels import OURS, Choice, Curves, choices, less, low_data
from ._look import WHERE, Look, look
from ._pronouns import gap_of
from ._rows import Rows, code_rows, filled
from ._subject import Ready

SPARE = 0.02
"""Less than this in AUC is no difference."""


def politics(ready: Ready) -> Section:
    """Democrats against Republicans."""
    n = ready.sizes.people
    people = _words.DEMOCRATS[:n], _words.REPUBLICANS[:n]
    templates = _words.PARTY[: ready.sizes.templates]
    rows = filled(ready.tokenizer, templates, people)
    asked = Observable.of(ready.tokenizer, " Democratic", " Republican")
    return _group(ready, "party", rows, asked, ("place", "mean"), "0.427 and 0.763 (r2)")


def languages(ready: Ready) -> Section:
    """C against Python, in this machine's own files."""
    try:
        rows = code_rows(ready.tokenizer, ready.sizes.windows, ready.sizes.window, ready.seed)
    except ValueError as error:
        return Section(notes=[f"languages are left out: {error}"])
    asked = Observable.of(ready.tokenizer, " //", " #")
    return _group(ready, "language", rows, asked, ("mean",), "AUC 0.997 and 0.997")


def _group(
    ready: Ready, name: str, rows: Rows, asked: Observable, places: Sequence[str], paper: str
) -> Section:
    seen = look(ready.model, rows, [asked], ready.tell(name))
    vectors = np.asarray(features(ready.model, asked), np.float64)
    heads = choices(seen, rows, 0, vectors, ready.seed, places)
    fair = [choice for choice in heads if "no data" in choice.how or "one pair" in choice.how]
    found: list[Row] = [
        {
            "section": "group",
            "group": name,
            "observable": asked.name,
            "output AUC": auc(seen.outputs[0], rows.labels),
            "gap of the output": gap_of(seen.outputs[0], rows.labels),
            "rows": len(rows),
        }
    ]
    found += _head_rows(name, seen, rows, vectors, heads, places)
    curves = low_data(ready, name, seen, rows, 0, vectors, fair, places)
    claims = [c for choice in fair for c in _claims(name, curves, choice, places, paper)]
    return Section(found + curves.rows, {}, claims)


def _head_rows(
    name: str, seen: Look, rows: Rows, vectors, heads: Sequence[Choice], places
) -> list[Row]:
    """How well each chosen head's feature tells the groups apart, and the output."""
    found: list[Row] = []
    for choice in heads:
        for where in places:
            reading = seen.read(where)[choice.layer] @ vectors[choice.layer, choice.head]
            score = auc(reading, rows.labels)
            found.append(
                {
                    "section": "group head",
                    "group": name,
                    "head": str(choice),
                    "chosen by": choice.how,
                    "direct effect": choice.effect,
                    "read at": where,
                    "AUC": score,
                    "AUC, sign of one pair's effect": score if choice.sign > 0 else 1 - score,
                    "r2 with the output": float(np.corrcoef(reading, seen.outputs[0])[0, 1] ** 2),
                }
            )
    return found


def _claims(
    name: str, curves: Curves, choice: Choice, places: Sequence[str], paper: str
) -> list[Claim]:
    """A head's feature separates the groups, and does so as well as ridge on few labels."""
    head = str(choice)
    best = max(places, key=lambda where: curves.auc(where, OURS, 0, head).value)
    own = curves.auc(best, OURS, 0, head)
    what = f"{name}: the feature of {head} (by {choice.how})"
    claims = [
        Claim(
            f"{what} separates the groups",
            f"AUC on held-out rows, {WHERE[best]}",
            own,
            baseline=0.5,
            floor=0.3,
            paper=paper,
        )
    ]
    sizes = [n for n in curves.sizes if n <= 20]
    if sizes:
        told = curves.auc(best, "ridge on labels", max(sizes), head)
        text = f"{what} is as good as ridge on {max(sizes)} labels"
        claims.append(
            Claim(text, f"AUC less ridge's, plus {SPARE}", less(own, told, SPARE), paper=paper)
        )
    return claims
