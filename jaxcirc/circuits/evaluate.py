"""Is a set of nodes the circuit? Faithfulness and completeness under mean ablation.

Wang et al. 2022 (arXiv 2211.00593), section 4; Marks et al. 2024 (arXiv 2403.19647), section 3.3. A
node outside the circuit takes its mean over the corrupt prompts of the same template, position by
position; each prompt's first token (a sink) and padding keep their value. May import `taps`,
`tasks`.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..taps import AXES, Node, Read, Set, Sites, head_axis, run
from ..tasks import Interval, Metric, Prompts, logit_difference, recovered, with_reference

SITES = ("z", "mlp_out")


class Means(eqx.Module):
    """Values to ablate with: `values` [layer group pos ...] per site, and each prompt's group."""

    values: Sites
    group: Int[Array, "example"]


def means(model, prompts: Prompts, reference: Prompts | None = None) -> Means:
    """Means by position over the corrupt prompts of each template.

    - `reference`: the prompts to average over (default: `prompts` themselves); it must hold every
      template of `prompts` at the same length, else `ValueError`.
    """
    reference = prompts if reference is None else reference
    reference = reference.padded_to(prompts.clean.shape[1])
    keys = {key: i for i, key in enumerate(sorted(set(_keys(reference))))}
    missing = sorted(set(_keys(prompts)) - set(keys))
    if missing:
        raise ValueError(
            f"no reference prompt has template {missing[0][0]} at {missing[0][1]} tokens: draw"
            " more, as in means(model, prompts, reference=ioi(tokenizer, n=256, seed=1))"
        )
    groups = jnp.asarray([keys[key] for key in _keys(reference)])
    sites = tuple(site for site in SITES if site in model.sites())
    with jax.default_matmul_precision("highest"):
        sums = [
            _sums(model, part.arrays(), part_groups, n_groups=len(keys), sites=sites)
            for part, part_groups in _parts(reference, groups)
        ]
    total, count = jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *sums)
    values = jax.tree.map(lambda x: x / _behind(count, x.ndim)[None], total)
    return Means(values, jnp.asarray([keys[key] for key in _keys(prompts)]))


def _keys(prompts: Prompts) -> list[tuple[int, int]]:
    lengths = np.asarray(prompts.mask).sum(axis=1)
    return list(zip(np.asarray(prompts.templates).tolist(), lengths.tolist(), strict=True))


def _parts(prompts: Prompts, groups: Array, size: int = 64):
    for begin in range(0, len(prompts), size):
        rows = np.arange(begin, min(begin + size, len(prompts)))
        yield prompts.take(rows), groups[rows]


def _behind(count: Array, rank: int) -> Array:
    return jnp.maximum(count, 1).reshape(-1, *([1] * (rank - 2)))


@partial(jax.jit, static_argnames=("n_groups", "sites"))
def _sums(model, prompts: Prompts, groups, *, n_groups: int, sites: tuple[str, ...]):
    reads = Sites(**{site: Read() for site in sites})
    _, records = run(model, prompts.corrupt, reads, mask=prompts.mask, layers=model.n_layers)
    member = jax.nn.one_hot(groups, n_groups)
    total = jax.tree.map(lambda x: jnp.einsum("lb...,bg->lg...", x, member), records)
    return total, member.sum(axis=0)


@jax.jit
def _ablations(model, prompts: Prompts, ablation: Means) -> tuple[Array, Sites]:
    """The clean run's last logits, and what every node would be replaced by, [layer batch pos ...].

    That is the mean of its group, and at the first token what the clean run has there: no ablation
    behind a position changes it.
    """
    first = jnp.argmax(_sinks(prompts), axis=1)[:, None]
    pos = jnp.broadcast_to(first, (model.n_layers, *first.shape))
    reads = Sites(**{site: Read(pos) for site, _ in ablation.values.items()})
    logits, own = run(model, prompts.clean, reads, mask=prompts.mask, logits_at=-1)

    def value(mean: Array, own: Array) -> Array:
        sink = _sinks(prompts).reshape(1, *prompts.mask.shape, *[1] * (mean.ndim - 3))
        return jnp.where(sink, own, mean[:, ablation.group])

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


def _sinks(prompts: Prompts) -> Bool[Array, "batch pos"]:
    """The first real token of every prompt."""
    return prompts.mask & (jnp.cumsum(prompts.mask, axis=1) == 1)


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


def evaluate(
    model,
    prompts: Prompts,
    ranked: Sequence[Node],
    sizes: Sequence[int],
    *,
    ablation: Means,
    metric: Metric = logit_difference,
    draws: int = 5,
    seed: int = 0,
    progress=None,
) -> Curve:
    r"""Faithfulness of the first k ranked nodes, for every size k.

    $$f(C) = \frac{m(C) - m(\varnothing)}{m(M) - m(\varnothing)}$$

    with m(C) the mean metric when all nodes outside C are ablated.

    - `ranked`: nodes at the sites "z" and "mlp_out", best first. `sizes`: how many of them to keep.
    - `ablation`: what `means` returned. `draws`: random sets for each size.

    Returns `Curve`, its intervals bootstrapped over templates. Raises `ValueError` if the model
    does no better whole than ablated.

    >>> evaluate(model, prompts, nodes, (5, 20), ablation=means(model, prompts)).faithfulness
    """
    everything = all_nodes(model)
    rng = np.random.default_rng(seed)
    nested = [list(ranked[:size]) for size in sizes]
    rest = [sorted(set(everything) - set(kept)) for kept in nested]
    chosen = [
        rng.choice(len(everything), size, replace=False) for size in sizes for _ in range(draws)
    ]
    drawn = [[everything[i] for i in some] for some in chosen]
    values = ablated_values(
        model, prompts, [everything, [], *nested, *rest, *drawn], ablation, metric, progress
    )
    full, empty = values[:2]
    clusters, n = np.asarray(prompts.templates), len(sizes)

    def faithful(value: np.ndarray) -> Interval:
        return recovered(value, empty, full, clusters)

    mean = (values[2 + 2 * n :].mean(axis=1) - empty.mean()) / (full.mean() - empty.mean())
    return Curve(
        tuple(sizes),
        tuple(map(faithful, values[2 : 2 + n])),
        tuple(map(faithful, values[2 + n : 2 + 2 * n])),
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
    ablation: Means,
    metric: Metric = logit_difference,
    progress=None,
    at_once: int = 12,
) -> Float[np.ndarray, "circuit example"]:
    """The metric of every circuit with all nodes outside it ablated, on the clean prompts."""
    batch = prompts.arrays()
    with jax.default_matmul_precision("highest"):
        logits, values = _ablations(model, batch, ablation)
    batch = with_reference(batch, logits)
    masks = [_off(model, circuit) for circuit in circuits]
    found = []
    for begin in range(0, len(masks), at_once):
        chunk = masks[begin : begin + at_once]
        chunk = chunk + [chunk[-1]] * (min(at_once, len(masks)) - len(chunk))
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *chunk)
        with jax.default_matmul_precision("highest"):
            found.append(np.asarray(_values(model, batch, values, stacked, metric=metric)))
        if progress is not None:
            progress(min(begin + at_once, len(masks)), len(masks))
    return np.concatenate(found)[: len(masks)]


def _off(model, circuit: Sequence[Node]) -> Sites:
    """Masks of what lies outside a circuit: z Bool[layer head], mlp_out Bool[layer]."""
    shapes = {"z": (model.n_layers, model.config.n_heads), "mlp_out": (model.n_layers,)}
    off = {site: np.ones(shape, bool) for site, shape in shapes.items() if site in model.sites()}
    for node in circuit:
        if node.site not in off:
            raise ValueError(f"{node}: a node circuit holds the sites {', '.join(off)}")
        off[node.site][(node.layer,) if node.index is None else (node.layer, node.index)] = False
    return Sites(**off)
