"""Is a set of nodes the circuit? Faithfulness and completeness under mean ablation.

Wang et al. 2022 (arXiv 2211.00593), section 4; Marks et al. 2024 (arXiv 2403.19647), section 3.3. A
node outside the circuit takes its mean over the corrupt prompts of the same template, position by
position; each prompt's first token (a sink) and padding keep their value. May import `taps`,
`tasks`, `patching`.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Progress
from ..patching import Ablation
from ..patching._ablation import sinks
from ..taps import AXES, Node, Read, Set, Sites, head_axis, run
from ..tasks import Interval, Metric, Prompts, logit_difference, recovered, with_reference


@jax.jit
def _ablations(model, prompts: Prompts, ablation: Ablation) -> tuple[Array, Sites]:
    """The clean run's last logits, and what every node would be replaced by, [layer batch pos ...].

    That is the mean of its group, and at the first token what the clean run has there, which no
    ablation behind it changes; padding, which nothing reads, gets 0.
    """
    first = jnp.argmax(sinks(prompts), axis=1)[:, None]
    pos = jnp.broadcast_to(first, (model.n_layers, *first.shape))
    reads = Sites(**{site: Read(pos) for site, _ in ablation.values.items()})
    logits, own = run(model, prompts.clean, reads, mask=prompts.mask, logits_at=-1)

    def value(mean: Array, own: Array) -> Array:
        shape = (1, *prompts.mask.shape, *[1] * (mean.ndim - 3))
        sink, real = sinks(prompts).reshape(shape), prompts.mask.reshape(shape)
        return jnp.where(sink, own, jnp.where(real, mean[:, ablation.group], 0))

    return logits, jax.tree.map(value, ablation.values, own)


@partial(jax.jit, static_argnames=("metric",))
def _values(model, prompts: Prompts, values: Sites, ablated: Sites, *, metric: Metric):
    """The metric with each set of nodes ablated: Float[set batch].

    Most sets ablate most layers whole, and those are not computed.
    """

    def one(ablated: Sites) -> Float[Array, "batch"]:
        def edit(site: str, off: Bool[Array, "layer ..."]) -> Set:
            axes = AXES[site]
            sizes = [off[0].size if axis == head_axis(site) else 1 for axis in axes]
            return Set(getattr(values, site), off.reshape(-1, *sizes), lazy=True)

        edits = Sites(**{site: edit(site, off) for site, off in ablated.items()})
        logits, _ = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
        return metric(logits, prompts)

    return jax.lax.map(one, ablated)


class Curve(eqx.Module):
    """Faithfulness and completeness of nested circuits, beside random sets of the same sizes.

    `faithfulness[i]` is that of the first `sizes[i]` nodes; `complement[i]` that of everything else
    (completeness: it should fall to 0). `random` holds one mean per size and draw. `full` and
    `empty` are the metric with nothing and with everything ablated, Float[example].
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    faithfulness: tuple[Interval, ...]
    complement: tuple[Interval, ...]
    random: Float[np.ndarray, "size draw"]
    full: Float[np.ndarray, "example"]
    empty: Float[np.ndarray, "example"]


def bounds(
    model, prompts: Prompts, ablation: Ablation, metric: Metric = logit_difference
) -> tuple[Float[np.ndarray, "example"], Float[np.ndarray, "example"]]:
    """The metric with nothing, and with everything ablated: what faithfulness lies between.

    Returns (full, empty), Float[example] each. Raises `ValueError` if their means are within two
    standard errors of each other: there is no behaviour to explain.

    >>> full, empty = bounds(model, prompts, means(model, prompts))
    """
    full, empty = ablated_values(model, prompts, [all_nodes(model), []], ablation, metric)
    recovered(full, empty, full, np.asarray(prompts.templates))
    return full, empty


def evaluate(
    model,
    prompts: Prompts,
    ranked: Sequence[Node],
    sizes: Sequence[int],
    *,
    ablation: Ablation,
    metric: Metric = logit_difference,
    draws: int = 5,
    seed: int = 0,
    ends: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> Curve:
    r"""Faithfulness of the first k ranked nodes, for every size k.

    $$f(C) = \frac{m(C) - m(\varnothing)}{m(M) - m(\varnothing)}$$

    with m(C) the mean metric when all nodes outside C are ablated.

    - `ranked`: nodes at the sites "z" and "mlp_out", best first. `sizes`: how many of them to keep.
    - `ablation`: what `means` returned. `draws`: random sets for each size.
    - `ends`: what `bounds` returned, if it has been called.

    Returns `Curve`, its intervals bootstrapped over templates. Raises `ValueError` as `bounds`.

    >>> evaluate(model, prompts, nodes, (5, 20), ablation=means(model, prompts)).faithfulness
    """
    full, empty = bounds(model, prompts, ablation, metric) if ends is None else ends
    everything, n = all_nodes(model), len(sizes)
    rng = np.random.default_rng(seed)
    nested = [list(ranked[:size]) for size in sizes]
    rest = [sorted(set(everything) - set(kept)) for kept in nested]
    chosen = [
        rng.choice(len(everything), size, replace=False) for size in sizes for _ in range(draws)
    ]
    drawn = [[everything[i] for i in some] for some in chosen]
    values = ablated_values(
        model, prompts, [*nested, *rest, *drawn], ablation, metric, progress=progress
    )

    def faithful(value: np.ndarray) -> Interval:
        return recovered(value, empty, full, np.asarray(prompts.templates))

    mean = (values[2 * n :].mean(axis=1) - empty.mean()) / (full.mean() - empty.mean())
    return Curve(
        tuple(sizes),
        tuple(map(faithful, values[:n])),
        tuple(map(faithful, values[n : 2 * n])),
        mean.reshape(n, draws),
        full,
        empty,
    )


def all_nodes(model) -> list[Node]:
    """Every head and MLP of a model."""
    heads = itertools.product(range(model.n_layers), range(model.config.n_heads))
    nodes = [Node("z", layer, head) for layer, head in heads]
    if "mlp_out" in model.sites():
        nodes += [Node("mlp_out", layer) for layer in range(model.n_layers)]
    return nodes


def ablated_values(
    model,
    prompts: Prompts,
    circuits: Sequence[Sequence[Node]],
    ablation: Ablation,
    metric: Metric = logit_difference,
    *,
    at_once: int = 4,
    batch: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "circuit example"]:
    """The metric of every circuit with all nodes outside it ablated, on the clean prompts.

    - `at_once`: circuits in one compiled call; `batch`: prompts in it.

    >>> ablated_values(model, prompts, [[Node("z", 23, 3)], []], means(model, prompts))
    """
    masks = [_off(model, circuit) for circuit in circuits]
    filled = masks + [masks[-1]] * (-len(masks) % at_once)
    chunks = [filled[i : i + at_once] for i in range(0, len(filled), at_once)]
    stacked = [jax.tree.map(lambda *xs: jnp.stack(xs), *chunk) for chunk in chunks]
    columns, done, parts = [], 0, prompts.batches(batch)
    with jax.default_matmul_precision("highest"):
        for rows in parts:
            some = prompts.take(rows).arrays()
            logits, values = _ablations(model, some, ablation.take(rows))
            some, found = with_reference(some, logits), []
            for chunk in stacked:
                found.append(np.asarray(_values(model, some, values, chunk, metric=metric)))
                done += at_once
                if progress is not None:
                    progress(min(done, len(masks) * len(parts)), len(masks) * len(parts))
            columns.append(np.concatenate(found)[: len(masks)])
    return np.concatenate(columns, axis=1)[:, : len(prompts)]


def _off(model, circuit: Sequence[Node]) -> Sites:
    """Masks of what lies outside a circuit: z Bool[layer head], mlp_out Bool[layer]."""
    shapes = {"z": (model.n_layers, model.config.n_heads), "mlp_out": (model.n_layers,)}
    off = {site: np.ones(shape, bool) for site, shape in shapes.items() if site in model.sites()}
    for node in circuit:
        if node.site not in off:
            raise ValueError(f"{node}: a node circuit holds the sites {', '.join(off)}")
        off[node.site][(node.layer,) if node.index is None else (node.layer, node.index)] = False
    return Sites(**off)
