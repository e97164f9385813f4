r"""The objective's slope at every place: at the clean run, averaged along a path, or by relevance.

Marks et al. 2024 (arXiv 2403.19647), eqs. 2-3. A path moves all features, positions and errors of
one place together; decoders are affine, so it is a straight line of the activation, and

$$\overline{\nabla_{f_i}} = v_i \cdot \overline{\nabla_x}, \quad
  \overline{\nabla_\epsilon} = \overline{\nabla_x}$$

One backward pass gives the clean slopes of all places; a path restarts at its place. How many
points a path needs can be known, since what its slopes should add up to can be measured. May import
`taps`, `attribution`, `_runs`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ...attribution import quadrature
from ...attribution.gradient import _HELD
from ...attribution.integrated import Rule
from ...taps import Add, At, Node, Sites, Start, Stop
from ...tasks import Prompts
from ._objective import Objective
from ._runs import Runs, Spliced, put

Method = Literal["atp", "ig", "relp", "exact"]

METHODS: tuple[Method, ...] = get_args(Method)

Path = tuple[Float[np.ndarray, "step"], Float[np.ndarray, "step"]]
"""Points between clean and patched, and their weights."""

LADDER = (1, 8, 16, 32)
"""Points that are tried, one after the other, where a tolerance asks for them: outputs of blocks
are often done with the midpoint, streams are not."""

ROOM = 64
"""Points that one compiled path has room for; as many as are asked for are run."""

AT_ONCE, TOKENS = 8, 1024
"""Points that run side by side, at most, which reads weights once for all of them, as long as they
have no more tokens than this together."""


@dataclasses.dataclass(frozen=True)
class Along:
    """How slopes are taken.

    - `method`: "atp" and "relp" at the clean run, "ig" in `steps` points of `rule`; in None, as
      many of `LADDER` as leave a gap of `tolerance` (see `slopes`).
    """

    method: Method
    steps: int | None = None
    rule: Rule = "gauss"
    tolerance: float = 0.01

    def __post_init__(self):
        if not self.tolerance > 0:
            raise ValueError(f"tolerance={self.tolerance}: give a share above 0, as in 0.01")
        self.path(LADDER[0] if self.steps is None else self.steps)

    @property
    def adapts(self) -> bool:
        """Whether the number of points is still to be found."""
        return self.method == "ig" and self.steps is None

    def path(self, steps: int) -> Path:
        """Where slopes are taken: in so many points, or at the clean run alone."""
        return quadrature(steps, self.rule) if self.method == "ig" else quadrature(1, "left")


class Slopes(NamedTuple):
    """The slope at every place, shaped like its activation, and in how many points it was taken."""

    each: tuple[Float[Array, "batch pos ..."], ...]
    steps: tuple[int, ...]


def check_method(method: str, objective: Objective, methods: Sequence[str]) -> None:
    """Raise `ValueError` for an unknown method, or one that gives 0 for this objective."""
    if method not in methods:
        raise ValueError(f"method={method!r}: use one of {', '.join(map(repr, methods))}")
    if objective.flat_at_clean and method in ("atp", "relp"):
        raise ValueError(
            f"the slope of {objective.name} is 0 at the clean run, its own reference: use"
            ' method="ig"'
        )


def slopes(
    model,
    objective: Objective,
    runs: Runs,
    places: tuple[Node, ...],
    along: Along,
    joint: Float[np.ndarray, "row place"] | None = None,
    least: Sequence[int] = (),
) -> Slopes:
    """The slope at every place.

    - `joint`: what patching each place whole does, which is needed where `along` finds the number
      of points: the fewest (but `least`) for which a prompt's scores miss its joint effect by less
      than `tolerance` of the largest joint effect of a place, both the mean over prompts.
    """
    if along.method != "ig":
        xs = tuple(at.x for at in runs.at)
        options = {"places": places, "relevance": along.method == "relp"}
        found = clean_slopes(model, objective, runs.prompts, xs, runs.below, **options)
        return Slopes(found, (1,) * len(places))
    if along.adapts and joint is None:
        raise ValueError("slopes(..., joint=joint_effect(...)): points are counted by it")
    rungs = LADDER if along.steps is None else (along.steps,)
    effects = np.zeros((1, len(places))) if joint is None else joint
    bound = along.tolerance * float(np.abs(effects).mean(axis=0).max())
    found = []
    for i, (place, at) in enumerate(zip(places, runs.at, strict=True)):
        own = [n for n in rungs if not least or n >= least[i]]
        path = partial(path_slope, model, objective, runs.prompts, place, at)
        near = partial(_is_near, at, joint=effects[:, i], bound=bound)
        found.append(_fewest(path, along, own, near))
    return Slopes(*zip(*found, strict=True))


def _fewest(
    path: Callable[[Path], Array], along: Along, rungs: Sequence[int], near: Callable[[Array], bool]
) -> tuple[Array, int]:
    """The slope by the first number of points that comes near enough, or by the last; and which."""
    *tried, last = rungs
    for steps in tried:
        slope = path(along.path(steps))
        if near(slope):
            return slope, steps
    return path(along.path(last)), last


def _is_near(at: Spliced, slope: Array, joint: Float[np.ndarray, "row"], bound: float) -> bool:
    """Whether the scores of a place miss its joint effect by no more, in the mean over prompts."""
    sums = (slope * (at.target - at.x)).reshape(len(joint), -1).sum(axis=1)
    return float(np.abs(np.asarray(sums) - joint).mean()) <= bound


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
    n = len(path[0])
    room = max(ROOM, 1 << (n - 1).bit_length())
    dials = tuple(jnp.asarray(np.resize(x, room), at.x.dtype) for x in path)
    start, ends = (at.layer, at.stream), (at.x, at.target)
    most = min(AT_ONCE, max(1, TOKENS // prompts.clean.size))
    side = max(k for k in range(1, most + 1) if n % k == 0)
    asked = (model, objective, prompts, start, ends, dials, jnp.asarray(n), edits)
    return _path_slope(*asked, site=place.site, side=side)


@partial(jax.jit, static_argnames=("site", "side"))
def _path_slope(
    model,
    objective: Objective,
    prompts: Prompts,
    start: tuple[Int[Array, ""], Array],
    ends: tuple[Array, Array],
    dials: tuple[Float[Array, "room"], Float[Array, "room"]],
    n: Int[Array, ""],
    edits: Sites,
    *,
    site: str,
    side: int,
) -> Float[Array, "batch pos ..."]:
    """The first `n` points and weights of `dials`, some side by side; one program for any number
    of them."""

    def total(value: Array) -> Float[Array, ""]:
        own, resumed = put(site, *start, value)
        return objective(model, prompts.clean, prompts, own | edits, resumed)[0].sum()

    def slope(alpha: Float[Array, ""]) -> Array:
        return jax.grad(total)((1 - alpha) * ends[0] + alpha * ends[1])

    def add(i: Int[Array, ""], mean: Array) -> Array:
        alphas, weights = (lax.dynamic_slice_in_dim(x, i * side, side) for x in dials)
        return mean + jnp.tensordot(weights, jax.vmap(slope)(alphas), 1)

    return lax.fori_loop(0, n // side, add, jnp.zeros_like(ends[0]))


def joint_effect(
    model, objective: Objective, runs: Runs, place: Node, at: Spliced
) -> Float[Array, "batch"]:
    """What patching every node of a place at once does, exactly; the sum of its nodes' integrated
    gradients."""
    resumed = (at.layer, at.stream), at.target
    return _value(model, objective, runs.prompts, *resumed, site=place.site) - runs.base


@partial(jax.jit, static_argnames=("site",))
def _value(
    model,
    objective: Objective,
    prompts: Prompts,
    start: tuple[Int[Array, ""], Array],
    value: Array,
    *,
    site: str,
) -> Float[Array, "batch"]:
    edits, resumed = put(site, *start, value)
    return objective(model, prompts.clean, prompts, edits, resumed)[0]


def joint_effects(
    model, objective: Objective, runs: Runs, places: Sequence[Node], first: int = 0
) -> Float[np.ndarray, "row place"]:
    """The same for every place of a batch, from the first on that is wanted."""
    pairs = zip(places[first:], runs.at[first:], strict=True)
    each = [joint_effect(model, objective, runs, *pair) for pair in pairs]
    return np.stack([np.asarray(x) for x in each], axis=1)
