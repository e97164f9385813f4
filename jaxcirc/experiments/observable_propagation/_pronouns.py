"""Pronouns: two observables far apart at the logits that one head reads alike.

Dunefsky & Cohan 2023 (arXiv 2312.16291), section 4.1: lengths against direct effects, cosines at
the heads, coupling against the slope on prompts, and the feature against the model's own output.
"""

from collections.abc import Sequence

import numpy as np

from ...observables import auc, cosine, coupling, propagate, regress
from ...tasks import Interval, interval_of
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ..observe import ranked
from ._look import WHERE, effects_of, explained, readings, within
from ._subject import Ready

TOP = 8


def exactly(value: float) -> Interval:
    """A number that no sampling touches: it comes of weights alone."""
    return Interval(float(value), float(value), float(value), 1, 1)


def pronouns(ready: Ready) -> Section:
    """Both pronouns: heads, shared features, coupling, outputs."""
    rows: list[Row] = []
    claims: list[Claim] = []
    arrays = {}
    for name in ("subject", "object"):
        found, claim = head_rows(ready, name)
        rows += found
        claims.append(claim)
        arrays[f"norms_{name}"] = ready.norms(name).astype(np.float32)
        effects = effects_of(ready.look(name), ready.rows[name], ready.order.index(name))
        arrays[f"direct_{name}"] = effects.mean(axis=0).astype(np.float32)
    shared, more = shared_rows(ready, "subject", "object")
    rows += shared
    rows += output_rows(ready, ("subject", "object"))
    layer, head = ready.top("subject")
    vector = ready.features["subject"][layer, head]
    text = "the longest feature predicts the model's output"
    claims += [*more, output_claim(ready, "subject", vector, layer, text, "0.947")]
    return Section(rows, arrays, claims, facts={"top": f"{layer}.{head}"})


def head_rows(ready: Ready, name: str) -> tuple[list[Row], Claim]:
    """Heads by the length of their features, with their direct effects."""
    seen, own = ready.look(name), ready.rows[name]
    effects = effects_of(seen, own, ready.order.index(name))
    mean, norms = effects.mean(axis=0), ready.norms(name)
    by_norm, by_effect = ranked(norms), ranked(np.abs(mean))
    r2 = {
        where: explained(
            readings(seen, ready.features[name], where), seen.outputs[ready.order.index(name)]
        )
        for where in WHERE
    }
    rows: list[Row] = []
    for layer, head in list(dict.fromkeys(by_norm[:TOP] + by_effect[:3])):
        rows.append(
            {
                "section": "head",
                "observable": ready.observables[name].name,
                "head": f"{layer}.{head}",
                "norm": float(norms[layer, head]),
                "rank by norm": by_norm.index((layer, head)) + 1,
                "direct effect": float(mean[layer, head]),
                "rank by effect": by_effect.index((layer, head)) + 1,
                **{f"r2, {WHERE[where]}": float(r2[where][layer, head]) for where in WHERE},
            }
        )
    both = len(set(by_norm[:TOP]) & set(by_effect[:TOP]))
    rows.append(
        {
            "section": "overlap",
            "observable": ready.observables[name].name,
            "top 8 by norm and by effect": both,
            "expected of random heads": TOP * TOP / norms.size,
            "output AUC": auc(seen.outputs[ready.order.index(name)], own.labels),
            "gap of the output": gap_of(seen.outputs[ready.order.index(name)], own.labels),
        }
    )
    return rows, _first_claim(ready, name, effects, by_norm[0])


def gap_of(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(outputs[labels].mean() - outputs[~labels].mean())


def _first_claim(ready: Ready, name: str, effects: np.ndarray, first: tuple[int, int]) -> Claim:
    """The longest feature's head against the best of all others."""

    def ratio(mean: np.ndarray) -> float:
        sizes = np.abs(mean)
        rest = sizes.copy()
        rest[first] = 0
        return sizes[first] / rest.max()

    return Claim(
        f"{ready.observables[name].name}: the head of the longest feature has the largest direct"
        " effect",
        "its direct effect over the largest of the others",
        interval_of(ratio, [effects], [np.arange(len(effects))]),
        baseline=1.0,
        paper="rank 2 without and 1 with LayerNorm (17.14)",
    )


def shared_rows(ready: Ready, one: str, other: str) -> tuple[list[Row], list[Claim]]:
    """Cosines of two observables at the logits and at heads, coupling against slopes, and readings
    about what coupling predicts: their spread by the theorem, and as seen."""
    model, asked = ready.model, ready.observables
    ends = [propagate(model, asked[name]) for name in (one, other)]
    plain = float(cosine(*(asked[name].direction(model) for name in (one, other))))
    at_end = float(cosine(*ends))
    pair = f"{asked[one].name} | {asked[other].name}"
    rows: list[Row] = [
        {"section": "shared", "observables": pair, "where": "W_U^T n", "cosine": plain},
        {
            "section": "shared",
            "observables": pair,
            "where": "with the final gain",
            "cosine": at_end,
        },
    ]
    seen, own = ready.look(one), ready.rows[one]
    heads = ranked(ready.norms(one))[:6]
    claims: list[Claim] = []
    for rank, (layer, head) in enumerate(heads):
        a, b = (ready.features[name][layer, head] for name in (one, other))
        told = coupling(a, b, s=1.0, k=0.0)
        x, y = (seen.read("mean")[layer] @ v for v in (a, b))
        fit = regress(x, y, own.clusters)
        rows.append(
            {
                "section": "shared",
                "observables": pair,
                "where": f"{layer}.{head}",
                "cosine": float(told.cosine),
                "coupling": float(told.coefficient),
                "slope": fit.slope.value,
                "slope low": fit.slope.low,
                "slope high": fit.slope.high,
                "r2": fit.r2.value,
                "sd told": _spread(a, b, seen.read("mean")[layer]),
                "sd seen": float(np.sqrt(np.mean((y - float(told.coefficient) * x) ** 2))),
            }
        )
        if rank == 0:
            claims = _shared_claims(pair, f"{layer}.{head}", told, at_end, fit)
    return rows, claims


def _spread(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """The theorem's standard deviation, averaged over the inputs."""
    s, k = np.linalg.norm(x, axis=1), x @ a
    return float(np.mean(np.asarray(coupling(a, b, s=s, k=k).sd)))


def _shared_claims(pair: str, head: str, told, at_end: float, fit) -> list[Claim]:
    found, c = fit.slope, float(told.coefficient)
    near = Interval(
        1 - abs(found.value / c - 1),
        1 - max(abs(found.low / c - 1), abs(found.high / c - 1)),
        1.0
        if found.low <= c <= found.high
        else 1 - min(abs(found.low / c - 1), abs(found.high / c - 1)),
        found.n,
        found.clusters,
    )
    return [
        Claim(
            f"{pair}: nearly one feature at {head}, far apart at the logits",
            "cosine there; baseline: cosine at the logits",
            exactly(float(told.cosine)),
            baseline=at_end,
            floor=0.1,
            paper="0.988 against 0.57",
        ),
        Claim(
            f"{pair}: coupling predicts the slope at {head} within 10 %",
            "1 - |slope / coupling - 1|",
            near,
            baseline=0.9,
            paper="0.671 and 0.678, r2 0.998",
        ),
    ]


def output_rows(ready: Ready, names: Sequence[str]) -> list[Row]:
    """The longest feature's reading against the observable, and against the best of all heads."""
    rows: list[Row] = []
    for name in names:
        seen = ready.look(name)
        y = seen.outputs[ready.order.index(name)]
        layer, head = ready.top(name)
        for where in WHERE:
            r2 = explained(readings(seen, ready.features[name], where), y)
            best = np.unravel_index(r2.argmax(), r2.shape)
            rows.append(
                {
                    "section": "output",
                    "observable": ready.observables[name].name,
                    "read at": WHERE[where],
                    "head": f"{layer}.{head}",
                    **fitted(ready, name, where, ready.features[name][layer, head], layer),
                    "random direction": _random_r2(seen.read(where)[layer], y, ready.seed),
                    "best head": f"{best[0]}.{best[1]}",
                    "its r2": float(r2[best]),
                }
            )
    return rows


def fitted(ready: Ready, name: str, where: str, vector: np.ndarray, layer: int) -> dict[str, float]:
    """r2 of a reading with an observable, over all prompts and within their templates."""
    own, seen = ready.rows[name], ready.look(name)
    x, y = seen.read(where)[layer] @ vector, seen.outputs[ready.order.index(name)]
    plain = regress(x, y, own.clusters).r2
    fit = regress(within(x, own.templates), within(y, own.templates), own.clusters)
    found = {"r2": plain, "r2 within templates": fit.r2}
    return {"sign": float(np.sign(fit.slope.value))} | {
        f"{words}{end}": getattr(value, part)
        for words, value in found.items()
        for end, part in (("", "value"), (" low", "low"), (" high", "high"))
    }


def _random_r2(x: np.ndarray, y: np.ndarray, seed: int, draws: int = 50) -> float:
    directions = np.random.default_rng(seed).normal(size=(draws, x.shape[1]))
    return float(explained(directions @ x.T, y).mean())


def output_claim(ready: Ready, name: str, vector: np.ndarray, layer: int, text: str, paper: str):
    """A feature of no label predicts the model's output, each template by itself."""
    seen, own = ready.look(name), ready.rows[name]
    y = within(seen.outputs[ready.order.index(name)], own.templates)
    fits, chances = [], []
    for where in WHERE:
        x = seen.read(where)[layer]
        fits.append(regress(within(x @ vector, own.templates), y, own.clusters).r2)
        chances.append(_random_r2(within(x.T, own.templates).T, y, ready.seed))
    return Claim(
        f"{ready.observables[name].name}: {text}",
        "r2 within templates, the better of name token and mean over tokens; baseline: random",
        max(fits, key=lambda r2: r2.value),
        baseline=max(chances),
        floor=0.4,
        paper=paper,
    )
