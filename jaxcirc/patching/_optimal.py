"""Optimal ablation: the constant that does least harm, learned for each cell.

Li & Janson 2024 (arXiv 2409.09951), section 2: what is lost with the best constant in a cell's
place is what the cell's *varying* value gives. May import `taps`, `tasks`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..taps import AXES, Read, Set, Sites, Start, head_axis, run, take_layer
from ..tasks import Metric, Prompts, kl, sign
from ._ablation import Ablation, along, means, sinks
from ._patch import Cell, Pair, Picks, pair, picks_of


def optimal(
    model,
    prompts: Prompts,
    cells: Sequence[Cell],
    metric: Metric = kl,
    *,
    steps: int = 100,
    learning_rate: float = 0.1,
    at_once: int = 8,
) -> Ablation:
    r"""The constant for every cell, ablated alone, that keeps a metric best.

    $$\Delta_\mathrm{opt} = \min_a \mathbb{E}\, m(\text{cell} \leftarrow a)$$

    - `cells`: whole sites or heads of some layers. `metric`: what to keep; default, the divergence
      from the clean run.
    - `steps` of Adam from the pooled mean, in units of the site's standard deviation, with a rate
      that decays to 0; the best constant on the way is kept. `at_once`: cells in a compiled call.

    Returns `Ablation`; values of cells not asked for are the pooled means. Raises `ValueError` for
    a cell resolved along anything but heads.

    >>> optimal(model, prompts, [Cell("z", 9, (("head", 6),))])
    """
    sites = sorted({cell.site for cell in cells})
    for cell in cells:
        if any(axis != head_axis(cell.site) for axis, _ in cell.choice):
            raise ValueError(f"{cell}: an optimal constant serves all positions of a site or head")
    start = means(model, prompts, sites, pooled=True)
    tables = dict(start.values.items())
    with jax.default_matmul_precision("highest"):
        batch = prompts.arrays()
        spread = dict(_spread(model, batch, start.values).items())
        options = {"metrics": (("kept", metric),), "direction": "noise"}
        for site in sites:
            runs = pair(model, batch, first=0, sites=(site,), **options)
            chosen = sorted({cell for cell in cells if cell.site == site})
            for begin in range(0, len(chosen), at_once):
                some = chosen[begin : begin + at_once]
                picks = picks_of([(cell,) for cell in some], at_once, runs, None, 0)
                layers = jnp.asarray([c.layer for c in some] + [0] * (at_once + 1 - len(some)))
                found = _fit(
                    model,
                    runs,
                    picks,
                    tables[site][layers],
                    spread[site][layers],
                    learning_rate,
                    site=site,
                    metric=metric,
                    steps=steps,
                )
                for cell, value in zip(some, found, strict=False):
                    at = _place(cell)
                    tables[site] = tables[site].at[at].set(value[at[1:]])
    return Ablation(Sites(**tables), start.group, start.sizes)


def _place(cell: Cell) -> tuple:
    """The cell's place in a table [layer group pos ...]."""
    index = next((index for _, index in cell.choice), None)
    if index is None:
        return (cell.layer,)
    axes = ("layer", *AXES[cell.site])
    return (cell.layer, *[index if a == head_axis(cell.site) else slice(None) for a in axes[1:]])


@jax.jit
def _spread(model, prompts: Prompts, mean: Sites) -> Sites:
    """The standard deviation of every site and layer: Float[layer]."""
    reads = Sites(**{site: Read() for site, _ in mean.items()})
    _, records = run(model, prompts.clean, reads, mask=prompts.mask, layers=model.n_layers)
    real = prompts.mask & ~sinks(prompts)

    def deviation(site: str, mean: Array) -> Array:
        x = getattr(records, site)
        there = jnp.broadcast_to(along(site, real), x.shape[1:])
        squares = jnp.square(x - mean).mean(axis=tuple(range(1, x.ndim)), where=there)
        return jnp.sqrt(squares)

    return Sites(**{site: deviation(site, value) for site, value in mean.items()})


@partial(jax.jit, static_argnames=("site", "metric", "steps"))
def _fit(
    model,
    runs: Pair,
    picks: Picks,
    begin: Float[Array, "pick group pos ..."],
    spread: Float[Array, "pick"],
    learning_rate: float,
    *,
    site: str,
    metric: Metric,
    steps: int,
) -> Float[Array, "pick group pos ..."]:
    """The best value of each pick; the last pick is empty."""
    start = Start(take_layer(runs.resid, picks.low), picks.low)
    real = along(site, runs.prompts.mask & ~sinks(runs.prompts))
    scale = spread.reshape(-1, *[1] * (begin.ndim - 1))
    better = sign("denoise", metric)

    def value_of(theta: Array) -> Array:
        return begin + scale * theta

    def one(where: Array, value: Array) -> Float[Array, ""]:
        spread_out = jnp.broadcast_to(value, (model.n_layers, *value.shape))
        edits = Sites(**{site: Set(spread_out, where & real)})
        logits, _ = runs.cone.run(model, edits, start=start, logits_at=-1)
        return -better * metric(logits, runs.prompts).mean()

    def losses(theta: Array) -> tuple[Array, Array]:
        each = jax.vmap(one)(getattr(picks.where, site), value_of(theta))
        return each.sum(), each

    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry, _):
        theta, state, best, least = carry
        (_, each), slope = jax.value_and_grad(losses, has_aux=True)(theta)
        better = (each < least).reshape(-1, *[1] * (theta.ndim - 1))
        best, least = jnp.where(better, theta, best), jnp.minimum(each, least)
        update, state = adam.update(slope, state)
        return (theta + update, state, best, least), None

    theta = jnp.zeros_like(begin)
    none = jnp.full(len(begin), jnp.inf, begin.dtype)
    (_, _, best, _), _ = jax.lax.scan(step, (theta, adam.init(theta), theta, none), length=steps)
    return value_of(best)
