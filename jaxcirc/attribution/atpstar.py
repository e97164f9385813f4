r"""AtP*: attribution patching that does not miss saturated attention or cancelling paths.

Kramár, Lieberum, Shah & Nanda 2024 (arXiv 2403.00745), sections 3.1 (QK fix) and 3.2 (GradDrop).
May import `taps`, `tasks`, `gradient`.
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import Direction
from ..taps import Add, Chain, Cone, Read, Set, Sites, Stop, cone
from ..tasks import Metric, Prompts, ends, logit_difference, name_metrics, sign, with_reference
from .gradient import Scores, contract, kept_axes, layered

_TURNED = {"q": "rot_q", "k": "rot_k"}


class Star(eqx.Module):
    """AtP* of every cell of some sites, per example.

    - `scores`: signed first-order effects, those of queries and keys with the softmax recomputed.
    - `magnitude`: what to rank by, (example, layer, *axes) per site: the mean over dropped layers
      of the size of the score, which cancellation between paths cannot hide.
    """

    scores: Scores
    magnitude: Sites


def atp_star(
    model,
    prompts: Prompts,
    metric: Metric = logit_difference,
    sites: Sequence[str] = ("q", "k", "z", "mlp_out"),
    direction: Direction = "noise",
    *,
    drop: bool = True,
    precision: str = "highest",
    batch: int = 64,
) -> Star:
    r"""Attribution patching with the QK fix and GradDrop.

    $$\mathrm{raw}_q = (A(q_{\text{source}}, k_{\text{base}}) - A_{\text{base}})
      \cdot \nabla_A m$$
    $$\mathrm{magnitude} =
      \frac{1}{L - 1} \sum_\ell \left|\Delta a \cdot \nabla^{(\ell)}_a m\right|$$

    where A is the attention pattern, and the gradient of drop l passes nothing through what layer
    l writes. A key/value head's key acts through all its query heads.

    - `sites`: per-layer sites; "q" and "k" get the QK fix. `drop`: without it the magnitude is the
      size of the score, at two forwards and a backward more than `nodes`; with it the number of
      layers times a forward and a backward more.

    Returns `Star`. Raises `ValueError` for a site the model lacks.

    >>> star = atp_star(model, prompts)
    >>> star.magnitude.z.mean(axis=0)                                          # [layer head]
    """
    sites = tuple(map(layered, sites))
    model.check(*sites)
    name, f = name_metrics(metric)[0]
    first = int(prompts.first_difference().min()) if model.causal else 0
    options = {"first": first, "sites": sites, "metric": f, "direction": direction, "drop": drop}
    parts = []
    with jax.default_matmul_precision(precision):
        for rows in prompts.batches(batch):
            parts.append(_star(model, prompts.take(rows).arrays(), **options))
    raw, magnitude = jax.tree.map(lambda *xs: jnp.concatenate(xs)[: len(prompts)], *parts)
    templates = jnp.asarray(prompts.templates)
    return Star(Scores(raw, templates, name, direction, sign(direction, f)), magnitude)


@partial(jax.jit, static_argnames=("first", "sites", "metric", "direction", "drop"))
def _star(
    model,
    prompts: Prompts,
    *,
    first: int,
    sites: tuple[str, ...],
    metric: Metric,
    direction: Direction,
    drop: bool,
) -> tuple[Sites, Sites]:
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    plain = tuple(site for site in sites if site not in _TURNED)
    turned = {site: at for site, at in _TURNED.items() if site in sites}
    reads = Sites(**{site: Read() for site in {"z", *plain, *turned.values()}})
    at_base, here = suffix.run(model, reads | _pattern(turned), logits_at=-1)
    at_source, there = suffix.of(*source).run(model, reads, logits_at=-1)
    prompts = with_reference(prompts, at_base if direction == "noise" else at_source)
    delta = {site: getattr(there, site) - getattr(here, site) for site in plain}
    for site, at in turned.items():
        moved = _moved_pattern(model, suffix, at, getattr(there, at), here.z)
        delta[site] = moved - here.pattern

    def scores(dropped: Bool[Array, "layer"]) -> Sites:
        gradient = _gradient(model, suffix, prompts, here, plain, bool(turned), metric, dropped)
        return Sites(**{site: _score(model, site, delta[site], gradient, first) for site in sites})

    raw = scores(jnp.zeros(model.n_layers, bool))
    if not drop:
        return raw, jax.tree.map(jnp.abs, raw)
    each = jax.lax.map(lambda d: jax.tree.map(jnp.abs, scores(d)), jnp.eye(model.n_layers) > 0)
    return raw, jax.tree.map(lambda x: x.sum(axis=0) / max(model.n_layers - 1, 1), each)


def _pattern(turned: dict[str, str]) -> Sites:
    return Sites(pattern=Read()) if turned else Sites()


def _moved_pattern(model, suffix: Cone, site: str, value: Array, z: Array) -> Array:
    """Every layer's pattern with the source's queries or keys, all else as in the base run: the
    heads' outputs are held, so that no layer hears of another's change."""
    edits = Sites(**{site: Set(value)}, pattern=Read(), z=Set(z))
    return suffix.run(model, edits, layers=model.n_layers)[1].pattern


def _gradient(model, suffix: Cone, prompts, here, plain, patterns: bool, metric, dropped) -> Sites:
    """The metric's gradient at the sites, with nothing passing what the dropped layers write."""
    sites = (*plain, *(("pattern",) if patterns else ()))
    zeros = Sites(**{site: jnp.zeros_like(getattr(here, site)) for site in sites})
    writes = [site for site in ("attn_out", "mlp_out") if site in model.sites()]
    stops = Sites(**{site: Stop(dropped[:, None, None, None]) for site in writes})

    def total(nudges: Sites) -> Float[Array, ""]:
        edits = Sites(**{site: Chain((Add(nudge),)) for site, nudge in nudges.items()})
        logits, _ = suffix.run(model, edits | stops, logits_at=-1)
        return metric(logits, prompts).sum()

    return jax.grad(total)(zeros)


def _score(model, site: str, delta: Array, gradient: Sites, first: int) -> Array:
    """delta . gradient: (example, layer, head), or (example, layer) where there are no heads."""
    if site not in _TURNED:
        table = (Sites(**{site: delta}), gradient)
        return contract(site, kept_axes(site, ("head",)), *table, first)
    by_head = jnp.einsum("lbhds,lbhds->blh", delta, gradient.pattern)
    if site == "q":
        return by_head
    groups = model.axis_size("kv_head")
    return by_head.reshape(*by_head.shape[:2], groups, -1).sum(axis=-1)
