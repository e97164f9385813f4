r"""Attribution patching: the slope of every dial at the base run, in one backward pass.

Nanda 2023, "Attribution Patching"; Syed, Rager & Conmy 2023 (arXiv 2310.10348), eq. 2. First
order: it is exact where the metric is linear in the site, and misses what saturates
(`patching.sweep` is the truth it estimates). May import `taps`, `tasks`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Direction
from ..taps import AXES, OUTER, Add, Chain, Cone, Read, Sites, Stop, cone, head_axis, parse_site
from ..tasks import Metrics, Prompts, ends, kl, logit_difference, name_metrics, sign, with_reference

Rule = Literal["gradient", "relp"]


class Scores(eqx.Module):
    """First-order effects of every cell of some sites, per example; same sign and units as
    `Effects`.

    `raw` is a table of arrays, each (example, layer, *axes); the sites are also attributes:
    `scores.z` is `scores.raw.z`. `importance` is positive where the component helps.
    """

    raw: Sites
    templates: Int[Array, "example"]
    metric: str = eqx.field(static=True)
    direction: Direction = eqx.field(static=True)
    sign: float = eqx.field(static=True)

    def __getattr__(self, name: str) -> Any:
        if name in AXES and not name.startswith("_"):
            return getattr(self.raw, name)
        raise AttributeError(name)

    @property
    def importance(self) -> Sites:
        """The table with positive values where the component helps."""
        return jax.tree.map(lambda raw: self.sign * raw, self.raw)


def nodes(
    model,
    prompts: Prompts,
    metric=logit_difference,
    sites: Sequence[str] = ("z", "mlp_out"),
    direction: Direction = "noise",
    *,
    by: Sequence[str] = ("head",),
    rule: Rule = "gradient",
    causal_cone: bool = True,
    remat: str = "none",
    precision: str = "highest",
    batch: int = 64,
) -> Any:
    r"""Attribution patching (AtP) of every cell of some sites.

    $$\mathrm{raw} = (a_{\text{source}} - a_{\text{base}}) \cdot \nabla_a m(\text{base})$$

    - `metric`: one metric, or a dictionary of several, which share the forward passes.
    - `sites`: per-layer sites. `by`: axes kept besides the layer; the others are summed. "head"
      stands for the head axis of each site, true key/value heads included.
    - `rule`: "gradient", or "relp", whose backward pass follows relevance propagation: attention
      patterns and norm scales held, activations as constant factors, gates' products halved (RelP,
      arXiv 2508.21258): the same cost, and better where gates and norms saturate.
    - `causal_cone`: run only what comes after the first column that differs. `remat`: as for `run`.
    - `batch`: examples in one compiled call.

    Returns `Scores`, or a dictionary of them: two forward passes and one backward, behind the cone.
    Raises `ValueError` for a site the model lacks.

    >>> scores = jaxcirc.attribution.nodes(model, prompts)
    >>> scores.z.shape, scores.mlp_out.shape          # (example, layer, head), (example, layer)
    """
    sites = tuple(map(layered, sites))
    model.check(*sites)
    if rule not in ("gradient", "relp"):
        raise ValueError(f'rule={rule!r}: use rule="gradient" or rule="relp"')
    keep = tuple((site, kept_axes(site, by)) for site in sites)
    metrics = name_metrics(metric)
    if direction == "noise" and any(f is kl for _, f in metrics):
        raise ValueError(
            'the slope of kl is 0 at the clean run, its own reference: use direction="denoise", or'
            " patching.sweep, which is exact"
        )
    first = int(prompts.first_difference().min()) if causal_cone and model.causal else 0
    parts = []
    with jax.default_matmul_precision(precision):
        for rows in prompts.batches(batch):
            chunk = prompts.take(rows).arrays()
            options = {"first": first, "keep": keep, "metrics": metrics, "direction": direction}
            parts.append(_attribute(model, chunk, **options, remat=remat, rule=rule))
    made = collect(prompts, metrics, direction, parts)
    return made if isinstance(metric, Mapping) else made[metrics[0][0]]


def collect(
    prompts: Prompts, metrics: Metrics, direction: Direction, parts: Sequence[dict[str, Sites]]
) -> dict[str, Scores]:
    """The scores of every metric from those of its batches, the last of which is filled up."""
    made = {}
    for name, f in metrics:
        raw = jax.tree.map(
            lambda *xs: jnp.concatenate(xs)[: len(prompts)], *(part[name] for part in parts)
        )
        made[name] = Scores(
            raw, jnp.asarray(prompts.templates), name, direction, sign(direction, f)
        )
    return made


def layered(name: str) -> str:
    """The name of a per-layer site."""
    site, layer = parse_site(name)
    if site in OUTER:
        raise ValueError(f"{site!r} lies outside the layers: score resid_pre or resid_post instead")
    if layer is not None:
        raise ValueError(f"{name!r} names one layer: sites=({site!r},) scores every layer")
    return site


def kept_axes(site: str, by: Sequence[str]) -> tuple[str, ...]:
    """The axes of a site that `by` keeps; "head" names its head axis, whichever that is."""
    named = [head_axis(site) if axis == "head" else axis for axis in by]
    return tuple(axis for axis in AXES[site] if axis in named)


@partial(jax.jit, static_argnames=("first", "keep", "metrics", "direction", "remat", "rule"))
def _attribute(
    model,
    prompts: Prompts,
    *,
    first: int,
    keep: tuple[tuple[str, tuple[str, ...]], ...],
    metrics: Metrics,
    direction: Direction,
    remat: str,
    rule: Rule,
) -> dict[str, Sites]:
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    reads = Sites(**{site: Read() for site, _ in keep})
    source_logits, there = suffix.of(*source).run(model, reads, logits_at=-1)
    zeros = jax.tree.map(jnp.zeros_like, there)

    def from_zero(nudges: Sites):
        return _nudged(model, suffix, nudges, remat, rule)

    logits, pullback, here = jax.vjp(from_zero, zeros, has_aux=True)
    prompts = with_reference(prompts, logits if direction == "noise" else source_logits)
    delta = jax.tree.map(jnp.subtract, there, here)

    def scores(metric) -> Sites:
        slope = jax.grad(lambda logits: metric(logits, prompts).sum())(logits)
        (gradient,) = pullback(slope)
        return Sites(**{s: contract(s, kept, delta, gradient, first) for s, kept in keep})

    return {name: scores(metric) for name, metric in metrics}


_HELD = ("pattern", "attn_norm_scale", "mlp_norm_scale", "attn_post_scale", "mlp_post_scale")


def _nudged(model, suffix: Cone, nudges: Sites, remat: str, rule: Rule) -> tuple[Array, Sites]:
    """Logits with something added at every site, and what the sites held before."""
    edits = Sites(**{site: Chain((Read(), Add(nudge))) for site, nudge in nudges.items()})
    if rule == "relp":
        held = [site for site in (*_HELD, "final_norm_scale") if site in model.sites()]
        edits, model = edits | Sites(**{site: Stop() for site in held}), model.relevant()
    logits, records = suffix.run(model, edits, logits_at=-1, remat=remat)
    return logits, Sites(**{site: getattr(records, site)[0] for site, _ in nudges.items()})


def contract(
    site: str, kept: tuple[str, ...], delta: Sites, gradient: Sites, first: int
) -> Float[Array, "..."]:
    """delta . gradient over every axis not kept: (example, layer, *kept); 0 before the cone."""
    product = getattr(delta, site) * getattr(gradient, site)
    axes = ("layer", *AXES[site])
    before = [(first, 0) if axis in kept and axis in ("pos", "dest") else (0, 0) for axis in axes]
    summed = tuple(i for i, axis in enumerate(axes) if axis not in ("layer", "batch", *kept))
    return jnp.swapaxes(jnp.pad(product, before).sum(axis=summed), 0, 1)
