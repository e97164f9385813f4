"""Why noise misleads: it splits attention, restores less, and leaves the distribution."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ... import attribution, patching
from ...patching import Cell
from ...taps import Node, Read, Sites, cone
from ...tasks import Prompts, ends, interval, interval_of
from .._claim import Claim
from .._result import Row


def attention_rows(model, runs: Mapping[str, Prompts], movers: Sequence[Node]) -> list[Row]:
    """Where the name movers look from the end, on clean prompts and under each corruption."""
    at = ([n.layer for n in movers], [n.index or 0 for n in movers])
    rows: list[Row] = []
    settings = [("clean", next(iter(runs.values())), False)]
    settings += [(name, prompts, True) for name, prompts in runs.items()]
    for name, prompts, corrupt in settings:
        sources = jnp.stack([prompts.span(span) for span in ("IO", "S1", "S2")])
        with jax.default_matmul_precision("highest"):
            looks = attribution.attention(
                model, prompts.arrays(), prompts.span("end"), sources, corrupt=corrupt
            )
        mean = np.asarray(looks)[:, at[0], at[1]].mean(axis=1)
        shares = dict(zip(("to IO", "to S1", "to S2"), map(float, mean), strict=True))
        rows.append({"section": "attention", "run": name, "heads": len(movers), **shares})
    return rows


def value_rows(model, runs: Mapping[str, Prompts], heads: Sequence[Node]) -> list[Row]:
    """What restoring the S-inhibition heads' values alone recovers."""
    group = [Cell("v_at_head", node.layer, (("head", node.index or 0),)) for node in heads]
    rows: list[Row] = []
    for name, prompts in runs.items():
        found = patching.patch(model, prompts, [group], direction="denoise")
        after = interval(np.asarray(found.base + found.raw[:, 0]), np.asarray(found.templates))
        rows.append(
            {
                "section": "values",
                "run": name,
                "heads": " ".join(map(str, heads)),
                "corrupted": float(found.base.mean()),
                "values restored": after.value,
                "low": after.low,
                "high": after.high,
                "recovered": found.recovered(0).value,
            }
        )
    return rows


def distance(
    model, clean: Prompts, runs: Mapping[str, Prompts], span: str = "changed"
) -> tuple[list[Row], Claim]:
    """How far each corruption takes the stream from its clean distribution, at the changed tokens.

    In standard deviations: the root mean square over coordinates of the z score, with mean and
    deviation over clean runs; 1 for a fresh clean prompt.
    """
    mean, deviation = _moments(model, clean.arrays(), span=span)
    found = {
        name: np.asarray(_scores(model, prompts.arrays(), mean, deviation, span=span))
        for name, prompts in runs.items()
    }
    rows: list[Row] = []
    for name, scores in found.items():
        for layer in sorted({0, model.n_layers // 2, model.n_layers - 1}):
            at = interval(scores[:, layer], np.asarray(runs[name].templates))
            rows.append(
                {
                    "section": "distance",
                    "run": name,
                    "layer": layer,
                    "z score": at.value,
                    "low": at.low,
                    "high": at.high,
                }
            )
    excess = interval_of(
        lambda gn, str_: float(gn.mean() / str_.mean()),
        [found["GN"], found["STR"]],
        [np.asarray(runs[name].templates) for name in ("GN", "STR")],
    )
    text = "IOI: noise takes activations off their distribution"
    return rows, Claim(text, "z score under GN over STR, all layers", excess, baseline=1.0)


def _stream(
    model, prompts: Prompts, corrupt: bool, span: str
) -> Float[Array, "layer batch d_model"]:
    end = ends(prompts, "noise")[corrupt]
    whole = cone(model, end.tokens, prompts.mask, 0, end.added)
    _, records = whole.run(model, Sites(resid_post=Read()), layers=model.n_layers)
    there = prompts.span(span)[None, :, :, None]
    return (records.resid_post * there).sum(axis=2) / there.sum(axis=2)


@partial(jax.jit, static_argnames=("span",))
def _moments(model, prompts: Prompts, *, span: str):
    stream = _stream(model, prompts, False, span)
    return stream.mean(axis=1, keepdims=True), stream.std(axis=1, keepdims=True, ddof=1)


@partial(jax.jit, static_argnames=("span",))
def _scores(model, prompts: Prompts, mean, deviation, *, span: str) -> Float[Array, "batch layer"]:
    z = (_stream(model, prompts, True, span) - mean) / deviation
    return jnp.sqrt(jnp.square(z).mean(axis=-1)).T


def mechanism_claims(attended: Sequence[Row], values: Sequence[Row]) -> list[str]:
    """The two mechanisms in words, with their numbers."""
    said = []
    if attended:
        by_run = {row["run"]: row for row in attended}
        looks = "; ".join(
            f"{run} {row['to IO']:.2f} / {row['to S1']:.2f}" for run, row in by_run.items()
        )
        said.append(f"name movers look from the end at IO / S1: {looks}")
    if values:
        parts = "; ".join(f"{row['run']} {row['values restored']:.2f}" for row in values)
        said.append(f"logit difference with the values of S-inhibition heads restored: {parts}")
    return said
