"""`jaxcirc discover ioi`: the node circuit of a task, with what each head does.

On SmolLM2-135M with the default 32 prompts: about a minute on two cores. Expect a clean logit
difference of 3 to 5 and a corrupt one of about the same size with the other sign. AtP agrees with
exact patching in the late layers and underrates the heads at S2 and at the end that saturate.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import attribution, circuits
from .._types import Direction, Tell
from ..taps import Node
from ..tasks import METRICS, Prompts
from ._clock import clock
from ._result import Result, Row, facts_of

NODE_SIZES = (1, 2, 4, 7, 11, 16, 24, 35, 47, 60)
WATCHED = (("end", "IO"), ("end", "S1"), ("end", "S2"), ("S2", "S1"), ("S2", "S1+1"))


def discover_task(
    model,
    prompts: Prompts,
    *,
    reference: Prompts | None = None,
    metric: str = "logit_difference",
    direction: Direction = "noise",
    verify: int = 60,
    sizes: Sequence[int] = NODE_SIZES,
    draws: int = 5,
    seed: int = 0,
    progress: Tell | None = None,
) -> Result:
    """Find a task's node circuit, look at its heads, and put both into a `Result`.

    Arguments as for `jaxcirc.circuits.discover`; `metric` by name.

    >>> discover_task(model, ioi(tokenizer, n=32)).table[0]
    """
    means = (prompts if reference is None else reference).hash()
    settings = {"metric": metric, "direction": direction, "verify": verify, "means_of": means}
    with clock() as seconds:
        circuit = circuits.discover(
            model,
            prompts,
            reference=reference,
            metric=METRICS[metric],
            direction=direction,
            verify=verify,
            sizes=sizes,
            draws=draws,
            seed=seed,
            progress=progress,
        )
        lens = head_lens(model, prompts)
    table = [_row(circuit, lens, i) for i in range(len(circuit.nodes))]
    arrays, axes = _arrays(circuit, lens)
    return Result(
        kind="discover",
        task=prompts.name,
        numbers=_numbers(circuit),
        table=table,
        arrays=arrays,
        axes=axes,
        facts=facts_of(
            model, prompts, draws=draws, seed=seed, sizes=list(circuit.curve.sizes), **settings
        ),
        seconds=seconds,
        notes=_notes(circuit, table),
    )


def head_lens(model, prompts: Prompts, seed: int = 0) -> dict[str, np.ndarray]:
    """Everything the lens says of each head, by name: Float[layer head] each.

    "direct" (to the logit difference), "previous", "duplicate", "induction" (on random tokens),
    "copies" and "suppresses" (its OV circuit on the answers), and attention between the spans that
    the prompts have, such as "end>IO".
    """
    with jax.default_matmul_precision("highest"):
        return _head_lens(model, prompts, seed)


def _head_lens(model, prompts: Prompts, seed: int) -> dict[str, np.ndarray]:
    ours = attribution.direct(model, prompts)
    general = attribution.head_scores(model, jax.random.key(seed))
    tokens = np.unique(np.concatenate([prompts.answers[:, 0], prompts.wrongs[:, 0]]))[:16]
    copies, suppresses = attribution.copying(model, jnp.asarray(tokens))
    found: dict[str, Any] = {
        "direct": ours.heads.mean(axis=0),
        "previous": general.previous,
        "duplicate": general.duplicate,
        "induction": general.induction,
        "copies": copies,
        "suppresses": suppresses,
    }
    batch = prompts.arrays()
    for dest in dict.fromkeys(dest for dest, _ in WATCHED if dest in prompts.spans):
        sources = [src for at, src in WATCHED if at == dest and src in prompts.spans]
        if sources:
            stacked = jnp.stack([jnp.asarray(prompts.spans[src]) for src in sources])
            mass = attribution.attention(model, batch, prompts.spans[dest], stacked)
            found |= {f"{dest}>{src}": mass[i] for i, src in enumerate(sources)}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def describe(lens: dict[str, np.ndarray], node: Node) -> str:
    """What the lens says of a head, in words: where it looks, what it does there, what it
    writes."""
    if node.site != "z":
        return ""

    def of(name: str) -> float:
        return float(lens[name][node.layer, node.index]) if name in lens else 0.0

    said = []
    looks = {name: of(name) for name in lens if ">" in name}
    if looks and max(looks.values()) >= 0.25:
        best = max(looks, key=lambda name: looks[name])
        dest, src = best.split(">")
        said.append(f"{dest} looks at {src} ({looks[best]:.2f})")
    for name, words in (
        ("previous", "previous token"),
        ("duplicate", "duplicate token"),
        ("induction", "induction"),
    ):
        if of(name) >= 0.3:
            said.append(f"{words} ({of(name):.2f})")
    for name, words in (("copies", "copies"), ("suppresses", "suppresses")):
        if of(name) >= 0.5:
            said.append(f"{words} what it reads ({of(name):.0%})")
    if abs(of("direct")) >= 0.1:
        said.append(f"writes {of('direct'):+.2f} to the answer")
    return "; ".join(said)


def _row(circuit: circuits.NodeCircuit, lens: dict[str, np.ndarray], i: int) -> Row:
    node, exact, estimate = circuit.nodes[i], circuit.exact[i], circuit.estimate[i]
    return {
        "rank": i + 1,
        "node": str(node),
        "site": node.site,
        "layer": node.layer,
        "head": node.index,
        "exact": exact.value,
        "exact_low": exact.low,
        "exact_high": exact.high,
        "atp": estimate.value,
        "importance": circuit.importance[i],
        "lens": describe(lens, node),
    }


def _numbers(circuit: circuits.NodeCircuit) -> dict[str, Any]:
    numbers = {"clean": circuit.clean, "corrupt": circuit.corrupt}
    for size, kept, rest in zip(
        circuit.curve.sizes, circuit.curve.faithfulness, circuit.curve.complement, strict=True
    ):
        numbers[f"faithfulness_{size}"] = kept
        numbers[f"complement_{size}"] = rest
    return numbers


def _arrays(circuit: circuits.NodeCircuit, lens: dict[str, np.ndarray]):
    curve = circuit.curve

    def column(intervals, name):
        return np.asarray([getattr(interval, name) for interval in intervals], np.float32)

    arrays = {f"atp_{site}": np.asarray(mean) for site, mean in circuit.scores.items()}
    axes = {name: ("layer", "head")[: array.ndim] for name, array in arrays.items()}
    arrays |= {f"lens_{name}": value for name, value in lens.items()}
    axes |= {f"lens_{name}": ("layer", "head") for name in lens}
    curves = {"sizes": np.asarray(curve.sizes), "random": np.asarray(curve.random, np.float32)}
    for name in ("faithfulness", "complement"):
        for part in ("value", "low", "high"):
            curves[f"{name}_{part}"] = column(getattr(curve, name), part)
    axes |= {name: ("size", "draw")[: array.ndim] for name, array in curves.items()}
    return arrays | curves, axes


def _notes(circuit: circuits.NodeCircuit, table: Sequence[Row]) -> list[str]:
    heads = [row for row in table if row["site"] == "z"]
    low, high = circuit.averaged
    return [
        f"AtP correlates {circuit.correlation():.3f} with exact patching over {len(table)} verified"
        f" nodes ({len(heads)} heads).",
        f"Ablation: mean by position over the {low} to {high} corrupt prompts of a template and"
        " length; first tokens kept.",
        "Nodes are preselected by the size of their AtP score: one that saturates may be missing"
        " (`jaxcirc.circuits.verify` bounds what is).",
    ]
