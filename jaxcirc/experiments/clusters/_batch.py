r"""One compiled call: circuits of several clusters, found on half of each, judged on the other.

Nodes are scored for every sample, summed over positions and averaged over a cluster's first half
(Marks et al. 2024, arXiv 2403.19647, eqs. 1-3, of log P of each next token, to means or to zero);
the largest are the circuit, and the second half runs with all other nodes set to their means, from
the same clean run. May import `taps`, `tasks`, `circuits`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...attribution.integrated import Rule
from ...circuits.features import Basis, Behaviour, Layout
from ...circuits.features._basis import CUTS
from ...circuits.features._evaluate import spliced
from ...circuits.features._patches import Means
from ...circuits.features._runs import Runs, Spliced, begin
from ...circuits.features._scores import contracted
from ...circuits.features._slopes import Along, joint_effect, slopes
from ...taps import Start
from ...tasks import Prompts, log_probability

OBJECTIVE = Behaviour(log_probability)


@dataclasses.dataclass(frozen=True)
class How:
    """How a cluster's circuit is found and judged.

    - `sizes`: nodes of the circuits that are judged, each the best of the next.
    - `method`: "atp", "relp" or "ig", the last in `steps` points of `rule`. `patch`: nodes are
      scored by setting them to their "mean", which is also how circuits are judged, or to "zero".
    - `errors`: "default" (error nodes compete with features), "removed" or "kept".
    """

    sizes: tuple[int, ...] = (100, 1000)
    method: Literal["atp", "relp", "ig"] = "atp"
    steps: int = 5
    rule: Rule = "gauss"
    patch: Literal["mean", "zero"] = "mean"
    errors: Literal["default", "removed", "kept"] = "default"

    def __post_init__(self):
        for name, known in KNOWN.items():
            if getattr(self, name) not in known:
                words = ", ".join(map(repr, known))
                raise ValueError(f"{name}={getattr(self, name)!r}: use one of {words}")
        if not self.sizes or min(self.sizes) < 1 or sorted(set(self.sizes)) != list(self.sizes):
            raise ValueError(f"sizes={self.sizes}: give numbers of nodes that rise, (100, 1000)")


KNOWN = {
    "method": ("atp", "relp", "ig"),
    "patch": ("mean", "zero"),
    "errors": ("default", "removed", "kept"),
}
"""The words that `How` takes."""


@partial(jax.jit, static_argnames=("how",))
def cluster_circuits(
    model,
    basis: Basis,
    prompts: Prompts,
    weight: Float[Array, "cluster half sample"],
    means: Means,
    *,
    how: How,
) -> dict[str, Array]:
    """Circuits of several clusters.

    - `prompts`: samples by cluster, half and number, in rows. `weight`: 0 where a row only fills
      up. `means`: of all nodes, each row's group.

    Returns "columns" and "effects" [cluster node], the best nodes and their mean effects, best
    first; "error_share" [cluster]; "total" and "gap" [cluster], the exact effect of all nodes at
    the last residual place and by how much the sum of their scores misses it; "values" [cluster
    sample set], log P on the second half with each of the sizes, with error nodes alone, and with
    nothing kept; "full" [cluster sample], with everything.

    >>> cluster_circuits(model, basis, prompts, weight, means, how=How())["values"]
    """
    n = len(weight)
    runs = begin(model, OBJECTIVE, basis, prompts, means, patch="mean")
    find, judge = (half_of(runs, n, i) for i in (0, 1))
    find = zeroed(find) if how.patch == "zero" else find
    layout = basis.layout(None)
    own = weight[:, 0] / weight[:, 0].sum(axis=1, keepdims=True)
    mean = jnp.einsum("cs,csn->cn", own, by_cluster(node_scores(model, basis, find, how), n))
    columns, sets = chosen(mean, layout, how)
    last = last_cut(layout)
    joint = joint_effect(model, OBJECTIVE, find, basis.places[last], find.at[last])
    total = jnp.einsum("cs,cs->c", own, by_cluster(joint, n))
    size, errors = jnp.abs(mean), error_columns(layout)
    values = judged(model, basis, judge, sets)
    return {
        "columns": columns,
        "effects": jnp.take_along_axis(mean, columns, axis=1),
        "error_share": size[:, errors].sum(axis=1) / jnp.maximum(size.sum(axis=1), 1e-30),
        "total": total,
        "gap": mean[:, layout.of_place(last)].sum(axis=1) - total,
        "values": jnp.moveaxis(values.reshape(len(values), n, -1), 0, 2),
        "full": by_cluster(judge.base, n),
    }


def by_cluster(x: Float[Array, "row ..."], n: int) -> Float[Array, "cluster sample ..."]:
    """Rows as clusters of samples."""
    return x.reshape(n, len(x) // n, *x.shape[1:])


def half_of(runs: Runs, n: int, half: int) -> Runs:
    """One half of every cluster of a batch."""

    def some(x: Array) -> Array:
        each, rest = len(x) // (2 * n), x.shape[1:]
        return x.reshape(n, 2, each, *rest)[:, half].reshape(n * each, *rest)

    def of(one: Spliced) -> Spliced:
        parts = {name: some(getattr(one, name)) for name in ("x", "stream", "live")}
        codes = {name: jax.tree.map(some, getattr(one, name)) for name in ("clean", "patch")}
        return dataclasses.replace(one, **parts, **codes)

    below = Start(some(runs.below.resid), runs.below.layer)
    prompts = jax.tree.map(some, runs.prompts)
    return Runs(prompts, tuple(map(of, runs.at)), below, some(runs.base))


def zeroed(runs: Runs) -> Runs:
    """The same with all nodes patched to 0."""
    at = [dataclasses.replace(a, patch=jax.tree.map(jnp.zeros_like, a.clean)) for a in runs.at]
    return dataclasses.replace(runs, at=tuple(at))


def node_scores(model, basis: Basis, runs: Runs, how: How) -> Float[Array, "row node"]:
    """Every node's effect on each sample, summed over positions."""
    along = Along(how.method, how.steps, how.rule)
    found = slopes(model, OBJECTIVE, runs, basis.places, along).each
    pairs = zip(runs.at, found, strict=True)
    tables = [contracted(*pair, summed=True)[:, 0] for pair in pairs]
    return jnp.concatenate(tables, axis=1)


def chosen(
    mean: Float[Array, "cluster node"], layout: Layout, how: How
) -> tuple[Int[Array, "cluster best"], Bool[Array, "set cluster node"]]:
    """The best nodes by size of their mean effect, as `select` takes them; and which nodes every
    set keeps."""
    size, columns = lax.top_k(jnp.abs(mean), how.sizes[-1])
    rows = jnp.arange(len(mean))[:, None]
    errors = jnp.asarray(error_columns(layout))

    def kept(n: int) -> Bool[Array, "cluster node"]:
        flags = jnp.zeros(mean.shape, bool).at[rows, columns[:, :n]].set(size[:, :n] > 0)
        return flags if how.errors == "default" else flags.at[:, errors].set(how.errors == "kept")

    none = jnp.zeros(mean.shape, bool)
    return columns, jnp.stack([*map(kept, how.sizes), none.at[:, errors].set(True), none])


def error_columns(layout: Layout) -> Int[np.ndarray, "place"]:
    """Every place's error."""
    return layout.offsets[1:] - 1


def last_cut(layout: Layout) -> int:
    """The last residual place, or the last of all."""
    cuts = [i for i, place in enumerate(layout.places) if place.site in CUTS]
    return cuts[-1] if cuts else len(layout.places) - 1


def judged(
    model, basis: Basis, runs: Runs, sets: Bool[Array, "set cluster node"]
) -> Float[Array, "set row"]:
    """Log P of every sample with all nodes outside its cluster's sets at their means."""
    layout, each = basis.layout(None), len(runs.base) // sets.shape[1]
    kept = [jnp.repeat(sets[:, :, layout.of_place(i)], each, axis=1) for i in places_of(layout)]

    def one(kept: Sequence[Array]) -> Float[Array, "row"]:
        edits = spliced(basis.places, runs.at, [mask[:, None] for mask in kept])
        return OBJECTIVE(model, runs.prompts.clean, runs.prompts, edits, runs.below)[0]

    return lax.map(one, kept)


def places_of(layout: Layout) -> range:
    """The numbers of all places."""
    return range(len(layout.places))
