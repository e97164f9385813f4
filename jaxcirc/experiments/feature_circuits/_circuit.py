"""One task's feature circuit: nodes, edges, how faithful they are, and what its features fire on.

On SmolLM2 with 13 dictionaries and 24 prompts: about two minutes on two cores, as much again for
the text. May import `circuits`, `dictionaries`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..._types import Tell
from ...attribution.integrated import Rule
from ...circuits.features import (
    Basis,
    FeatureCircuit,
    FeatureEdges,
    FeatureScores,
    circuit_values,
    edge_values,
    edges,
    errors_of,
    faithfulness,
    nodes,
    random_like,
    select,
    select_edges,
)
from ...circuits.features._slopes import Along, Method
from ...dictionaries.train import Contexts
from ...tasks import recovered
from .._clock import clock
from .._result import Result, Row, facts_of, finite
from ..dictionaries import Annotation, FeaturePage
from ._baselines import names_of
from ._circuit_rows import node_rows, notes_of, place_rows
from ._circuit_text import chosen_of, explanations, pages_of
from ._curves import ERRORS, errors_rule, sizes_to
from ._edges import edge_rows
from ._prompts import Split, clusters


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How a circuit is found and judged.

    - `nodes`, `edges`: kept. `method` ("atp", "ig", "relp" or "exact"), `steps`, `rule`,
      `tolerance` and `patch` ("counterfactual", "zero", "mean" or "resample"): of the scores, as
      for `nodes`. `metric`: by name.
    - `value`: what ablation sets nodes to. `errors`: "default", "removed", "attn+mlp removed" or
      "kept". `start`: places below this layer are free.
    """

    nodes: int = 60
    edges: int = 200
    method: str = "ig"
    steps: int | None = None
    rule: str = "gauss"
    tolerance: float = 0.01
    patch: str = "counterfactual"
    metric: str = "logit_difference"
    value: str = "mean"
    errors: str = "default"
    start: int = 0
    batch: int = 24

    def __post_init__(self):
        for name in ("nodes", "edges", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more")
        if self.errors not in ERRORS:
            raise ValueError(f"errors={self.errors!r}: use one of {', '.join(map(repr, ERRORS))}")
        Along(cast(Method, self.method), self.steps, cast(Rule, self.rule), self.tolerance)


@dataclasses.dataclass(frozen=True)
class CircuitReport:
    """A finished circuit: its numbers, its file, and pages of its features by place."""

    result: Result
    circuit: FeatureCircuit
    pages: dict[str, FeaturePage]
    annotations: list[Annotation]


def feature_circuit(
    model,
    tokenizer,
    split: Split,
    basis: Basis,
    wanted: Wanted = Wanted(),  # noqa: B008 (frozen)
    *,
    contexts: Contexts | None = None,
    annotations: Sequence[Annotation] = (),
    explained: bool = False,
    tell: Tell | None = None,
) -> CircuitReport:
    """Find the circuit of a task on one split, judge it on the other.

    - `contexts`: text for the pages of its features (None: no pages). `annotations`: labels to
      show. `explained`: label the others by n-gram rules.

    Raises what `nodes` and `edges` raise.

    >>> report = feature_circuit(model, tokenizer, split_of(model, tokenizer, task, 24), basis)
    >>> report.result.numbers["faithfulness"], report.circuit.save("circuit.json")
    """
    say = tell or (lambda stage, done, total: None)
    with clock() as seconds:
        scores, found = _found(model, split, basis, wanted, say)
        kept = select_edges(found, wanted.edges)
        curve, numbers = _judged(model, split, basis, scores, wanted, say)
        pruned = _pruned(model, split, basis, found, wanted, say)
        labels = list(annotations)
        chosen = chosen_of(found.nodes)
        if contexts is not None and explained:
            labels = explanations(model, tokenizer, basis, chosen, contexts, say) + labels
        pages = pages_of(model, tokenizer, basis, chosen, contexts, labels, say)
    facts = facts_of(model, split.discovery, **dataclasses.asdict(wanted))
    facts |= {"places": names_of(basis), "error_share": scores.error_share}
    facts |= {"effect": scores.effect, "dictionaries": [d.d_dict for d in basis.dictionaries]}
    circuit = FeatureCircuit.of(scores, found, kept, facts)
    rows = [*node_rows(scores, found, labels, split, tokenizer), *edge_rows(found, kept)]
    result = Result(
        kind="feature_circuit",
        task=split.name,
        numbers=numbers,
        table=finite([*rows, *place_rows(scores), *curve, *pruned]),
        arrays={"importance": circuit.importance},
        axes={"importance": ("node",)},
        facts=facts,
        seconds=seconds,
        notes=notes_of(split, scores, basis),
    )
    own = [note for note in labels if note.feature in chosen.get(note.place, ())]
    return CircuitReport(result, circuit, pages, own)


def _found(
    model, split: Split, basis: Basis, wanted: Wanted, say: Tell
) -> tuple[FeatureScores, FeatureEdges]:
    options: dict[str, Any] = {"patch": wanted.patch, "batch": wanted.batch}
    path: dict[str, Any] = {"steps": wanted.steps, "rule": wanted.rule}
    path["tolerance"] = wanted.tolerance
    scores = nodes(
        model,
        split.discovery,
        basis,
        wanted.metric,
        method=wanted.method,  # pyright: ignore[reportArgumentType]
        progress=lambda done, total: say("nodes", done, total),
        **options,
        **path,
    )
    best = scores.nodes(select(scores, wanted.nodes))
    found = edges(
        model,
        split.discovery,
        basis,
        best,
        wanted.metric,
        method="ig" if wanted.method == "ig" else "atp",
        progress=lambda done, total: say("edges", done, total),
        **options,
        **path,
    )
    return scores, found


def _ablation(split: Split, wanted: Wanted) -> dict[str, Any]:
    means = split.discovery if wanted.value == "mean" else None
    return {"value": wanted.value, "reference": means, "batch": wanted.batch}


def _judged(model, split: Split, basis: Basis, scores: FeatureScores, wanted: Wanted, say: Tell):
    """Faithfulness against size, of random features, and of errors alone."""
    best = select(scores, scores.layout.size)
    sizes = sizes_to(min(len(best), 4 * wanted.nodes), 8)
    sizes = sorted({*sizes, min(wanted.nodes, len(best))})
    sets = [best[:size] for size in sizes]
    random = [random_like(scores, chosen) for chosen in sets]
    found = faithfulness(
        model,
        split.evaluation,
        basis,
        scores.layout,
        [*sets, *random, errors_of(scores.layout)],
        wanted.metric,
        errors=errors_rule(basis, wanted.errors),
        start=wanted.start,
        progress=lambda done, total: say("faithfulness", done, total),
        **_ablation(split, wanted),
    )
    kinds = [*["the circuit"] * len(sets), *["random features"] * len(sets), "all errors alone"]
    rows: list[Row] = [
        {
            "section": "curve",
            "kind": kind,
            "nodes": found.sizes[i],
            "scalars": found.scalars[i],
            "faithfulness": found.faithful[i].value,
            "faithfulness low": found.faithful[i].low,
            "faithfulness high": found.faithful[i].high,
            "without it": found.complement[i].value,
        }
        for i, kind in enumerate(kinds)
    ]
    at = sizes.index(min(wanted.nodes, len(best)))
    numbers = {"faithfulness": found.faithful[at], "completeness": found.complement[at]}
    numbers |= {"random features": found.faithful[len(sets) + at]}
    return rows, numbers | {"all errors alone": found.faithful[-1]}


def _pruned(
    model, split: Split, basis: Basis, found: FeatureEdges, wanted: Wanted, say: Tell
) -> list[Row]:
    """Faithfulness with the best edges alone, as a share of the way from no edge to all nodes."""
    sizes = sorted({n for n in (wanted.edges // 4, wanted.edges) if 0 < n < len(found)})
    masks = [select_edges(found, n) for n in sizes]
    masks += [np.ones(len(found), bool), np.zeros(len(found), bool)]
    values = edge_values(
        model,
        split.evaluation,
        basis,
        found,
        np.stack(masks),
        wanted.metric,
        start=wanted.start,
        progress=lambda done, total: say("edges kept", done, total),
        **_ablation(split, wanted),
    )
    full = _clean(model, split, basis, found, wanted)
    spread = [recovered(row, values[-1], full, clusters(split.evaluation)) for row in values[:-1]]
    return [
        {
            "section": "edges kept",
            "kept": n,
            "faithfulness": one.value,
            "faithfulness low": one.low,
            "faithfulness high": one.high,
        }
        for n, one in zip([*sizes, len(found)], spread, strict=True)
    ]


def _clean(model, split: Split, basis: Basis, found: FeatureEdges, wanted: Wanted) -> np.ndarray:
    """The metric of the evaluation split as it is."""
    n_pos = None if found.nodes[0].pos is None else split.evaluation.clean.shape[1]
    layout = basis.layout(n_pos)
    every = [np.arange(layout.size)]
    return circuit_values(
        model, split.evaluation, basis, layout, every, wanted.metric, **_ablation(split, wanted)
    )[0]
