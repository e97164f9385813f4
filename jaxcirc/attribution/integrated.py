r"""Integrated gradients: the slope of a dial averaged along its path, instead of at its start.

Sundararajan, Taly & Yan 2017 (arXiv 1703.01365), eq. 1; along the inputs as in Hanna, Pezzelle &
Belinkov 2024 (arXiv 2403.17806), section 3; layer by layer as in Marks et al. 2024
(arXiv 2403.19647), eq. 3. Never along all layers at once, which counts effects twice.
May import `taps`, `tasks`, `gradient`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._types import Direction
from ..taps import Add, At, Chain, Cone, Mix, Read, Sites, Start, cone, take_layer
from ..tasks import Metrics, Prompts, ends, logit_difference, name_metrics, with_reference
from .gradient import collect, contract, kept_axes, layered

Rule = Literal["left", "right", "midpoint", "gauss"]


def quadrature(
    steps: int, rule: Rule = "midpoint"
) -> tuple[Float[np.ndarray, "step"], Float[np.ndarray, "step"]]:
    """Points in [0, 1] and weights that add up to 1.

    "left" and "right" err by O(1/steps), "midpoint" by O(1/steps^2), and "gauss" (Gauss-Legendre)
    is exact for polynomials of degree 2 steps - 1. Raises `ValueError` for another word, or no
    steps.

    >>> quadrature(2, "midpoint")
    (array([0.25, 0.75]), array([0.5, 0.5]))
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: use at least 1, as in steps=5")
    if rule == "gauss":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    shifts = {"left": 0.0, "midpoint": 0.5, "right": 1.0}
    if rule not in shifts:
        raise ValueError(f"rule={rule!r}: use one of {', '.join([*shifts, 'gauss'])}")
    return (np.arange(steps) + shifts[rule]) / steps, np.full(steps, 1 / steps)


def integrated(
    model,
    prompts: Prompts,
    metric=logit_difference,
    sites: Sequence[str] = ("z", "mlp_out"),
    direction: Direction = "noise",
    *,
    along: Literal["inputs", "site"] = "inputs",
    steps: int = 5,
    rule: Rule = "midpoint",
    by: Sequence[str] = ("head",),
    precision: str = "highest",
    batch: int = 64,
) -> Any:
    r"""Attribution with the gradient averaged along a path from base to source.

    $$\mathrm{raw} = (a_{\text{source}} - a_{\text{base}}) \cdot
      \int_0^1 \nabla_a m(x(\alpha))\, d\alpha$$

    - `along`: "inputs" moves the embeddings, x = (1 - alpha) base + alpha source, and reads every
      site's gradient on the way: `steps` forwards and backwards. "site" moves one site of one layer
      at a time, which makes a single cut's scores add up to its exact joint effect: `steps` times
      the number of layers and sites.
    - `rule`: as in `quadrature`; the reference code of EAP-IG uses "right" from the base. The rest
      as for `nodes`.

    Returns `Scores`, or a dictionary of them. Raises `ValueError` as `nodes` and `quadrature` do.

    >>> jaxcirc.attribution.integrated(model, prompts, steps=5).z.mean(axis=0)     # [layer head]
    """
    if along not in ("inputs", "site"):
        raise ValueError(f'along={along!r}: use along="inputs" or along="site"')
    sites = tuple(map(layered, sites))
    model.check(*sites)
    keep = tuple((site, kept_axes(site, by)) for site in sites)
    metrics = name_metrics(metric)
    path = quadrature(steps, rule)
    first = int(prompts.first_difference().min()) if model.causal else 0
    options = {"first": first, "keep": keep, "metrics": metrics, "direction": direction}
    points, weights = (jnp.asarray(x, model.dtype) for x in path)
    parts = []
    with jax.default_matmul_precision(precision):
        for rows in prompts.batches(batch):
            chunk = prompts.take(rows).arrays()
            parts.append(_integrate(model, chunk, points, weights, along=along, **options))
    made = collect(prompts, metrics, direction, parts)
    return made if isinstance(metric, Mapping) else made[metrics[0][0]]


@partial(jax.jit, static_argnames=("first", "keep", "metrics", "direction", "along"))
def _integrate(
    model,
    prompts: Prompts,
    points: Float[Array, "step"],
    weights: Float[Array, "step"],
    *,
    first: int,
    keep: tuple[tuple[str, tuple[str, ...]], ...],
    metrics: Metrics,
    direction: Direction,
    along: str,
) -> dict[str, Sites]:
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    reads = Sites(**{site: Read() for site in {"resid_pre", *dict(keep)}})
    at_base, here = suffix.run(model, reads, logits_at=-1)
    at_source, there = suffix.of(*source).run(model, reads, logits_at=-1)
    prompts = with_reference(prompts, at_base if direction == "noise" else at_source)
    slopes = _along_inputs if along == "inputs" else _along_sites
    mean = slopes(model, suffix, prompts, here, there, points, weights, tuple(dict(keep)), metrics)
    delta = jax.tree.map(jnp.subtract, there, here)
    return {
        name: Sites(**{site: contract(site, kept, delta, mean[name], first) for site, kept in keep})
        for name, _ in metrics
    }


def _along_inputs(model, suffix: Cone, prompts, here, there, points, weights, sites, metrics):
    """The mean gradient of every site while the stream before the first block moves."""
    zeros = Sites(**{site: jnp.zeros_like(getattr(here, site)) for site in sites})
    low, high = here.resid_pre[0], there.resid_pre[0]

    def gradients(alpha):
        def logits(nudges: Sites):
            edits = Sites(**{site: Add(nudge) for site, nudge in nudges.items()})
            start = Start((1 - alpha) * low + alpha * high)
            return suffix.run(model, edits, start=start, logits_at=-1)[0]

        return _pull(logits, zeros, prompts, metrics)

    return _mean(gradients, points, weights)


def _along_sites(model, suffix: Cone, prompts, here, there, points, weights, sites, metrics):
    """The mean gradient of each site of each layer while it alone moves."""

    def of_site(site: str):
        def of_layer(layer: Int[Array, ""]):
            start = Start(take_layer(here.resid_pre, layer), layer)
            value = take_layer(getattr(there, site), layer)

            def gradients(alpha):
                def logits(nudge):
                    moved = Chain((Mix(value[None], alpha[None]), Add(nudge[None])))
                    edits = Sites(**{site: At(layer[None], moved)})
                    return suffix.run(model, edits, start=start, logits_at=-1)[0]

                return _pull(logits, jnp.zeros_like(value), prompts, metrics)

            return _mean(gradients, points, weights)

        return jax.lax.map(of_layer, jnp.arange(model.n_layers))

    found = {site: of_site(site) for site in sites}
    return {name: Sites(**{site: found[site][name] for site in sites}) for name, _ in metrics}


def _pull(logits, zero, prompts: Prompts, metrics: Metrics):
    """The gradient of every metric, through one forward pass."""
    values, pullback = jax.vjp(logits, zero)

    def gradient(metric):
        return pullback(jax.grad(lambda x: metric(x, prompts).sum())(values))[0]

    return {name: gradient(metric) for name, metric in metrics}


def _mean(gradients, points: Float[Array, "step"], weights: Float[Array, "step"]):
    """The weighted sum over the path, one point at a time."""
    shapes = jax.eval_shape(gradients, points[0])

    def add(total, step):
        alpha, weight = step
        return jax.tree.map(lambda t, g: t + weight * g, total, gradients(alpha)), None

    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zero, (points, weights))[0]
