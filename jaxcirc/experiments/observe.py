"""`jaxcirc observe --positive " she" --negative " he"`: the heads that write it, by weights.

Dunefsky & Cohan 2023 (arXiv 2312.16291): heads ranked by the length of their features, what the
features read, and how they couple. Seconds on SmolLM2-135M, no prompt needed; with prompts the
direct effects stand beside. May import `observables`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .. import attribution
from ..observables import (
    Feature,
    Observable,
    coupling,
    feature_norms,
    propagate,
    search_paths,
)
from ..observables._observable import Words
from ..tasks import Interval, Prompts, interval
from ._clock import clock
from ._result import Result, Row, model_facts

RADIUS = 1.0
"""Of the stream behind a norm, per coordinate: its root mean square."""


def observe(
    model,
    tokenizer,
    observable: Observable,
    others: Sequence[Observable] = (),
    *,
    prompts: Prompts | None = None,
    top: int = 8,
    near: int = 6,
) -> Result:
    """Rank the heads that write an observable, and look at what the first of them read.

    - `others`: observables whose features at the same heads are compared. `prompts`: pairs whose
      direct effects stand beside the norms. `top`: heads looked at; `near`: tokens named of each.

    Returns `Result` with the sections "head", "feature", "coupling" and "path", and the array
    "norms" [layer head]. Raises `ValueError` for a `top` or `near` of 0.

    >>> observe(model, tokenizer, Observable.of(tokenizer, " she", " he")).table[0]
    """
    if top < 1 or near < 1:
        raise ValueError("observe(model, tokenizer, observable, top=8, near=6): both from 1")
    with clock() as seconds:
        norms = np.asarray(feature_norms(model, observable), np.float64)
        effects = None if prompts is None else direct_effects(model, observable, prompts)
        heads = ranked(norms)[:top]
        found = [propagate(model, observable, f"{layer}.{head}") for layer, head in heads]
        rows = _head_rows(norms, effects, heads)
        rows += _feature_rows(model, tokenizer, found, near)
        rows += _coupling_rows(model, found, others)
        rows += _path_rows(model, observable, top)
    arrays = {"norms": norms.astype(np.float32)}
    numbers: dict[str, Interval] = {}
    if effects is not None and prompts is not None:
        arrays["direct"] = effects.mean(axis=0).astype(np.float32)
        best = heads[0]
        numbers["direct effect of the first head"] = interval(
            effects[:, best[0], best[1]], prompts.templates
        )
    return Result(
        kind="observe",
        task="observe",
        numbers=numbers,
        table=rows,
        arrays=arrays,
        axes={name: ("layer", "head") for name in arrays},
        facts=_facts(model, observable, others, prompts),
        seconds=seconds,
        notes=_notes(model, norms, effects, others),
    )


def observable_of(tokenizer, positive: Words, negative: Words) -> Observable:
    """`Observable.of`, for the command line."""
    return Observable.of(tokenizer, positive, negative)


def direct_effects(
    model, observable: Observable, prompts: Prompts
) -> Float[np.ndarray, "example layer head"]:
    """What every head writes of an observable straight to the logits, clean minus corrupt, towards
    the side on which the clean prompt lies."""
    ends = [attribution.direct(model, p, metric=observable) for p in (prompts, prompts.swap())]
    toward = np.sign(np.asarray(ends[0].total - ends[1].total, np.float64))
    heads = np.asarray(ends[0].heads - ends[1].heads, np.float64)
    return toward[:, None, None] * heads


def ranked(values: Float[np.ndarray, "layer head"]) -> list[tuple[int, int]]:
    """Heads from the largest value to the smallest."""
    order = np.argsort(-values.ravel(), kind="stable")
    places = np.stack(np.unravel_index(order, values.shape), axis=1)
    return [(int(layer), int(head)) for layer, head in places]


def _head_rows(norms, effects, heads) -> list[Row]:
    rows: list[Row] = []
    places = None if effects is None else ranked(np.abs(effects.mean(axis=0)))
    for rank, (layer, head) in enumerate(heads, 1):
        row: dict[str, str | int | float | None] = {
            "section": "head",
            "head": f"{layer}.{head}",
            "rank": rank,
            "norm": float(norms[layer, head]),
            "over the median": float(norms[layer, head] / np.median(norms)),
        }
        if effects is not None and places is not None:
            row["direct effect"] = float(effects[:, layer, head].mean())
            row["rank by it"] = places.index((layer, head)) + 1
        rows.append(row)
    return rows


def _feature_rows(model, tokenizer, found: Sequence[Feature], near: int) -> list[Row]:
    """The tokens whose embeddings lie nearest to each feature, on either side."""
    embed = np.asarray(model.embed, np.float32)
    embed = embed / np.maximum(np.linalg.norm(embed, axis=1, keepdims=True), 1e-9)
    rows: list[Row] = []
    for feature in found:
        cosines = embed @ np.asarray(feature.unit, np.float32)
        order = np.argsort(cosines)
        rows.append(
            {
                "section": "feature",
                "head": str(feature.path[0]),
                "reads": _tokens(tokenizer, order[::-1][:near]),
                "cosine": float(cosines[order[-1]]),
                "against": _tokens(tokenizer, order[:near]),
                "cosine of it": float(cosines[order[0]]),
            }
        )
    return rows


def _tokens(tokenizer, ids) -> str:
    return " ".join(repr(tokenizer.token(int(i))) for i in ids)


def _coupling_rows(model, found: Sequence[Feature], others: Sequence[Observable]) -> list[Row]:
    """How one reading tells of another: of other observables at the same head, or of the first
    heads among themselves."""
    pairs = [
        (feature, propagate(model, other, list(feature.path)))
        for other in others
        for feature in found
    ]
    if not others:
        first = found[:4]
        pairs = [(a, b) for a in first for b in first if a is not b]
    radius = RADIUS * model.axis_size("d_model") ** 0.5
    rows: list[Row] = []
    for one, other in pairs:
        told = coupling(one, other, s=radius, k=1.0)
        rows.append(
            {
                "section": "coupling",
                "of": str(other),
                "given": str(one),
                "cosine": float(told.cosine),
                "coefficient": float(told.coefficient),
                "sd": float(told.sd),
            }
        )
    return rows


def _path_rows(model, observable: Observable, top: int) -> list[Row]:
    """Two heads, one reading the other: the longest features."""
    found = [b for b in search_paths(model, observable, width=top, depth=2) if len(b.path) == 2]
    return [{"section": "path", "path": str(b), "norm": b.score} for b in found]


def _facts(model, observable: Observable, others, prompts) -> dict:
    asked = {
        "observable": observable.name,
        "tokens": list(observable.tokens),
        "weights": list(observable.weights),
        "others": [other.name for other in others],
    }
    if prompts is not None:
        asked |= {"prompts": len(prompts), "prompt_hash": prompts.hash()}
    return model_facts(model) | asked


def _notes(model, norms, effects, others) -> list[str]:
    notes = ["norms rank heads without data: a head whose pattern never looks may still lead"]
    groups = model.axis_size("head") // model.axis_size("kv_head")
    if groups > 1:
        notes.append(
            f"{groups} heads share each value head, so their features are not independent evidence"
        )
    if not others:
        notes.append("couplings of heads of two layers are as if both read the same stream")
    if effects is not None:
        both = set(ranked(norms)[:8]) & set(ranked(np.abs(effects.mean(axis=0)))[:8])
        notes.append(f"top 8 by norm and by direct effect share {len(both)}")
    return notes
