"""What scoring one task takes, activations cached and not, beside ACDC and gradients; and by size.

O'Neill & Bui 2024 (arXiv 2405.12522), section 5, whose headline is hours against seconds. May
import `circuits`, `tasks`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ... import circuits, tasks
from ...circuits.discrete import Settings, component_outputs, fit, score_outputs
from ...circuits.discrete._sae import picked
from ...taps import Wiring
from ...tasks import Contrast
from .._clock import clock
from .._result import Row
from ..feature_circuits import Section

THRESHOLD = 0.01
PUBLISHED = {"gpt2-small": 2.6, "gpt2-medium": 3.43, "gpt2-large": 5.0, "gpt2-xl": 9.79}
"""Seconds with 10 training examples and 200 positives, activations cached, of O'Neill & Bui 2024
(charlieoneill11/sae-circuits, model_sizes), on their machine."""
SHAPES = {
    "gpt2-small": (144, 768),
    "gpt2-medium": (384, 1024),
    "gpt2-large": (720, 1280),
    "gpt2-xl": (1200, 1600),
}
"""Heads and width."""
STEPS = 5
"""Steps that are timed; a whole training is so many times as long."""


def cost_section(model, tokenizer, sizes, seed: int) -> Section:
    """Seconds without compiling of every method on the same pairs of IOI: rows "cost", "size".

    - `sizes`: `DiscreteSizes`. ACDC searches the best `acdc_edges` edges of EAP-IG at one
      threshold on the first few pairs; the whole search takes at least a run for every edge.
    """
    options = tasks.NEGATIVES["ioi"]
    prompts = tasks.ioi(tokenizer, n=sizes.pairs, seed=seed, **options)
    rows: list[Row] = [*_ours(model, prompts, sizes, seed)]
    whole = {row["what"]: float(row["seconds"] or 0) for row in rows}
    for label, method in (("EAP", "eap"), ("EAP-IG", "eap-ig")):
        with clock() as spent:
            circuits.score(model, prompts, method)
        rows.append(_row(label, spent["run"], f"{len(prompts)} pairs"))
    if sizes.acdc_edges:
        rows += _acdc(model, prompts, sizes.acdc_edges)
    reference = whole[WHOLE]
    rows = [{**row, "times ours": float(row["seconds"] or 0) / reference} for row in rows]
    return Section([*rows, *(_size(name) for name in sizes.shapes)])


WHOLE = "discrete, one dictionary"
FEW_ACDC = "ACDC among the best edges"
WHOLE_ACDC = "ACDC over all edges, at least, by arithmetic"


def _row(what: str, seconds: float, about: str) -> dict[str, Any]:
    return {"section": "cost", "what": what, "seconds": seconds, "about": about}


def _ours(model, prompts, sizes, seed: int) -> list[dict[str, Any]]:
    texts = Contrast.of(prompts).ordered()
    with clock() as cached:
        outputs = component_outputs(model, texts)
    n = int(texts.positive.sum())
    settings = dataclasses.replace(
        sizes.model_settings, examples=min(sizes.model_settings.examples, len(texts))
    )
    with clock() as spent:
        score_outputs(outputs[:n], outputs[n:], settings=settings, seeds=1, seed=seed)
    about = f"{len(texts)} texts, {settings.examples} trained on, {settings.steps} steps"
    return [
        _row("outputs of heads", cached["run"], f"{len(texts)} texts"),
        _row(f"{WHOLE}, outputs cached", spent["run"], about),
        _row(WHOLE, spent["run"] + cached["run"], about),
    ]


def task_cost(rows: Sequence[Row], costs: Sequence[Row]) -> list[Row]:
    """What all dictionaries of the first task took, from its own section, beside `costs` of one."""
    codes = next((row for row in rows if row["section"] == "codes"), None)
    if codes is None:
        return []
    reference = sum(float(row["seconds"] or 0) for row in costs if row["what"] == WHOLE)
    trained, outputs = float(codes["seconds"] or 0), float(codes["seconds, outputs"] or 0)
    name, about = f"discrete, {codes['dictionaries']} dictionaries", f"{codes['texts']} texts"
    both = (f"{name}, outputs cached", trained), (name, trained + outputs)
    return [
        {**_row(what, seconds, about), "times ours": seconds / reference} for what, seconds in both
    ]


def _acdc(model, prompts, edges: int) -> list[dict[str, Any]]:
    few, wiring = prompts.take(range(min(circuits.FEW, len(prompts)))), Wiring.of(model)
    first = circuits.score(model, few, "eap-ig", wiring=wiring).importance
    within = circuits.select(wiring, first, edges, signed=False, prune=False).kept
    with clock() as spent:
        found = circuits.acdc(model, few, THRESHOLD, wiring=wiring, within=within)
    about = f"{len(few)} pairs, {int(within.sum())} edges, {found.runs} runs"
    every = spent["run"] * wiring.n_edges / max(found.runs, 1)  # a run for every edge, and no more
    return [
        _row(FEW_ACDC, spent["run"], about),
        _row(WHOLE_ACDC, every, f"{len(few)} pairs, {wiring.n_edges:,} edges"),
    ]


def _size(name: str) -> Row:
    """One dictionary's training at a model's shape, from a few steps."""
    heads, width = SHAPES[name]
    settings = Settings(steps=STEPS)
    x = jax.random.normal(jax.random.key(0), (settings.examples, heads, width))
    picks, keys = picked(1, settings.examples, len(x))
    arguments = x, jnp.ones(x.shape[:2], bool), jnp.asarray(picks), keys, jnp.full(1, 0.02)
    with jax.default_matmul_precision("highest"):
        jax.block_until_ready(fit(*arguments, settings=settings))
        with clock() as spent:
            jax.block_until_ready(fit(*arguments, settings=settings))
    whole = Settings().steps / STEPS * spent["run"]
    a_row = 8.0 * width * settings.features + 4.0 * settings.features**2
    flops = a_row * settings.examples * heads * Settings().steps
    return {
        "section": "size",
        "model": name,
        "heads": heads,
        "width": width,
        "TFLOP": flops / 1e12,
        "seconds": whole,
        "GFLOP/s": flops / whole / 1e9,
        "paper, its machine": PUBLISHED[name],
    }
