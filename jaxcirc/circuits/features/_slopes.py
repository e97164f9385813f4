r"""The objective's slope at every place: at the clean run, averaged along a path, or by relevance.

Marks et al. 2024 (arXiv 2403.19647), eqs. 2-3. A path moves all features, positions and errors of
one place together; decoders are affine, so it is a straight line of the activation, and

$$\overline{\nabla_{f_i}} = v_i \cdot \overline{\nabla_x}, \quad
  \overline{\nabla_\epsilon} = \overline{\nabla_x}$$

One backward pass gives the clean slopes of all places; a path restarts at its place. May import
`taps`, `attribution`, `_runs`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...attribution import quadrature
from ...attribution.gradient import _HELD
from ...attribution.integrated import Rule, _mean
from ...taps import Add, At, Node, Sites, Start, Stop
from ...tasks import Prompts
from ._objective import Objective
from ._runs import Runs, Spliced, put

Method = Literal["atp", "ig", "relp", "exact"]

Path = tuple[Float[np.ndarray, "step"], Float[np.ndarray, "step"]]
"""Points between clean and patched, and their weights."""


def check_method(method: str, objective: Objective, methods: Sequence[str]) -> None:
    """Raise `ValueError` for an unknown method, or one that gives 0 for this objective."""
    if method not in methods:
        raise ValueError(f"method={method!r}: use one of {', '.join(map(repr, methods))}")
    if objective.flat_at_clean and method in ("atp", "relp"):
        raise ValueError(
            f"the slope of {objective.name} is 0 at the clean run, its own reference: use"
            ' method="ig"'
        )


METHODS: tuple[Method, ...] = get_args(Method)


def path_of(method: Method, steps: int, rule: Rule) -> Path:
    """Where the slope is taken: at the clean run alone, or on the way to the patch."""
    return quadrature(steps, rule) if method == "ig" else (np.zeros(1), np.ones(1))


def slopes(
    model,
    objective: Objective,
    runs: Runs,
    places: tuple[Node, ...],
    method: Method,
    path: Path,
) -> tuple[Float[Array, "batch pos ..."], ...]:
    """The slope at every place, shaped like its activation."""
    if method != "ig":
        xs = tuple(at.x for at in runs.at)
        options = {"places": places, "relevance": method == "relp"}
        return clean_slopes(model, objective, runs.prompts, xs, runs.below, **options)
    return tuple(
        path_slope(model, objective, runs.prompts, place, at, path)
        for place, at in zip(places, runs.at, strict=True)
    )


@partial(jax.jit, static_argnames=("places", "relevance"))
def clean_slopes(
    model,
    objective: Objective,
    prompts: Prompts,
    xs: tuple[Array, ...],
    below: Start,
    *,
    places: tuple[Node, ...],
    relevance: bool,
) -> tuple[Float[Array, "batch pos ..."], ...]:
    """The slope at the clean run of every place, in one backward pass.

    - `relevance`: by relevance propagation (RelP, arXiv 2508.21258): patterns and norm scales held,
      activations as constant factors, products halved.
    """
    by_site = {p.site: [i for i, q in enumerate(places) if q.site == p.site] for p in places}
    stops = Sites()
    if relevance:
        sites = [site for site in (*_HELD, "final_norm_scale") if site in model.sites()]
        stops, model = Sites(**{site: Stop() for site in sites}), model.relevant()

    def total(nudges: dict[str, Array]) -> Float[Array, ""]:
        edits = stops
        for site, members in by_site.items():
            layers = jnp.asarray([places[i].layer for i in members])
            edits = edits | Sites(**{site: At(layers, Add(nudges[site]))})
        return objective(model, prompts.clean, prompts, edits, below)[0].sum()

    zeros = {
        site: jnp.stack([jnp.zeros_like(xs[i]) for i in members])
        for site, members in by_site.items()
    }
    found = jax.grad(total)(zeros)
    return tuple(found[p.site][by_site[p.site].index(i)] for i, p in enumerate(places))


def path_slope(
    model,
    objective: Objective,
    prompts: Prompts,
    place: Node,
    at: Spliced,
    path: Path,
    edits: Sites = Sites(),  # noqa: B008 (an empty table is immutable)
) -> Float[Array, "batch pos ..."]:
    """The mean slope while every node of a place moves to its patch, with `edits` in place."""
    points, weights = (jnp.asarray(x, at.x.dtype) for x in path)
    ends = at.x, at.target
    return _path_slope(
        model,
        objective,
        prompts,
        at.layer,
        at.stream,
        ends,
        points,
        weights,
        edits,
        site=place.site,
    )


@partial(jax.jit, static_argnames=("site",))
def _path_slope(
    model,
    objective: Objective,
    prompts: Prompts,
    layer: Int[Array, ""],
    stream: Array,
    ends: tuple[Array, Array],
    points: Float[Array, "step"],
    weights: Float[Array, "step"],
    edits: Sites,
    *,
    site: str,
) -> Float[Array, "batch pos ..."]:
    def gradient(alpha: Float[Array, ""]) -> Array:
        def total(value: Array) -> Float[Array, ""]:
            own, start = put(site, layer, stream, value)
            return objective(model, prompts.clean, prompts, own | edits, start)[0].sum()

        return jax.grad(total)((1 - alpha) * ends[0] + alpha * ends[1])

    return _mean(gradient, points, weights)


def joint_effect(
    model, objective: Objective, prompts: Prompts, place: Node, at: Spliced
) -> Float[Array, "batch"]:
    """What patching every node of a place at once does, exactly; the sum of its nodes' integrated
    gradients."""
    ends = jnp.stack([at.target, at.x])
    values = _values(model, objective, prompts, at.layer, at.stream, ends, site=place.site)
    return values[0] - values[1]


@partial(jax.jit, static_argnames=("site",))
def _values(
    model, objective: Objective, prompts: Prompts, layer, stream, values: Array, *, site: str
) -> Float[Array, "value batch"]:
    def one(value: Array) -> Float[Array, "batch"]:
        edits, start = put(site, layer, stream, value)
        return objective(model, prompts.clean, prompts, edits, start)[0]

    return jax.lax.map(one, values)
