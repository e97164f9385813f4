r"""Scores of every feature and error node, and what they leave unexplained.

$$\mathrm{IE}(f_i) = (f_i' - f_i)\, v_i \cdot \overline{\nabla_x m}, \quad
  \mathrm{IE}(\epsilon) = (\epsilon' - \epsilon) \cdot \overline{\nabla_x m}$$

Marks et al. 2024 (arXiv 2403.19647), eqs. 1-3. Integrated gradients of a place add up to the effect
of patching it whole; what is missing is the completeness gap. May import `taps`, `tasks`, `_runs`,
`_slopes`, `_exact`.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Progress
from ...attribution.integrated import Rule
from ...tasks import Interval, Prompts, interval, logit_difference
from ._basis import CUTS, Basis
from ._exact import exact
from ._layout import FeatureNode, Layout
from ._objective import Objective, objective_of
from ._patches import Patch
from ._runs import Part, Spliced, flat, parts, plan
from ._slopes import METHODS, Along, Method, check_method, joint_effects, slopes


@dataclasses.dataclass(frozen=True)
class FeatureScores:
    """The effect of patching every node, per prompt; same sign and units as `Effects`.

    - `layout`: the node of every column. `raw`: sparse, [example node], metric patched - clean.
    - `joint`: the exact effect of patching all nodes of a place, Float[example place]; None if it
      was not measured.
    - `base`: the metric on the clean run. `templates`: Int[example], the clusters of intervals.
    - `steps`: points in which the slope of each place was taken; none for exact effects.
    """

    layout: Layout
    raw: Any
    joint: Float[np.ndarray, "example place"] | None
    base: Float[np.ndarray, "example"]
    templates: Int[np.ndarray, "example"]
    method: Method
    patch: Patch
    metric: str
    sign: float
    steps: tuple[int, ...] = ()

    @cached_property
    def mean(self) -> Float[np.ndarray, "node"]:
        """The mean raw effect over prompts."""
        return np.asarray(self.raw.sum(axis=0)).ravel() / self.raw.shape[0]

    @property
    def importance(self) -> Float[np.ndarray, "node"]:
        """The mean with positive where the node helps."""
        return self.sign * self.mean

    def of(self, node: FeatureNode) -> float:
        """The mean raw effect of one node."""
        return float(self.mean[self.layout.column(node)])

    def interval(self, column: int) -> Interval:
        """The mean raw effect of a node with its interval, clustered by template."""
        return interval(self.raw[:, [column]].toarray().ravel(), self.templates)

    def nodes(self, columns: Sequence[int] | np.ndarray) -> tuple[FeatureNode, ...]:
        """The nodes of some columns."""
        return tuple(self.layout.node(int(column)) for column in columns)

    @property
    def sums(self) -> Float[np.ndarray, "place"]:
        """The mean effects of each place's nodes, added up."""
        n = len(self.layout.places)
        return np.asarray([self.mean[self.layout.of_place(i)].sum() for i in range(n)])

    @cached_property
    def joints(self) -> Float[np.ndarray, "place"]:
        """The mean joint effects. Raises `ValueError` if they were not measured."""
        if self.joint is None:
            raise ValueError("joint effects were not measured: nodes(..., gaps=True)")
        return self.joint.mean(axis=0)

    @property
    def gap(self) -> Float[np.ndarray, "place"]:
        """The completeness gap of every place: the sum of its nodes' effects minus their joint
        effect. At a residual place that is the total effect."""
        return self.sums - self.joints

    @property
    def cuts(self) -> tuple[int, ...]:
        """Which places are residual, so that every path crosses them."""
        return tuple(i for i, place in enumerate(self.layout.places) if place.site in CUTS)

    @property
    def effect(self) -> float:
        """The total effect that shares are of: the joint effect of the last residual place, or
        where there is none of the place where it is largest."""
        last = self.cuts[-1] if self.cuts else np.abs(self.joints).argmax()
        return float(self.joints[last])

    @cached_property
    def active(self) -> Int[np.ndarray, "node"]:
        """The columns whose mean is not 0."""
        return np.flatnonzero(self.mean)

    @property
    def error_share(self) -> float:
        """The share of all effects, by size, that error nodes carry."""
        size = np.abs(self.mean[self.active])
        errors = self.layout.errors(self.active)
        return float(size[errors].sum() / size.sum()) if size.sum() else 0.0

    @property
    def error_shares(self) -> Float[np.ndarray, "place"]:
        """At every place, the share of the nodes' summed effect that errors carry, with sign."""
        errors = np.zeros(len(self.layout.places))
        columns = self.active[self.layout.errors(self.active)]
        np.add.at(errors, self.layout.split(columns)[0], self.mean[columns])
        sums = self.sums
        return np.divide(errors, sums, out=np.zeros_like(errors), where=sums != 0)


def nodes(
    model,
    prompts: Prompts,
    basis: Basis,
    metric: Any = logit_difference,
    *,
    method: Method = "atp",
    steps: int | None = None,
    rule: Rule = "gauss",
    tolerance: float = 0.01,
    gaps: bool = True,
    patch: Patch = "counterfactual",
    reference: Prompts | None = None,
    by_position: bool | None = None,
    precision: str = "highest",
    batch: int = 16,
    chunk: int = 64,
    progress: Progress | None = None,
) -> FeatureScores:
    """Score every feature and error node of a basis.

    - `metric`: a metric, its name, or an `Objective`.
    - `method`: "exact" patches one node a run; "atp" takes the slope at the clean run; "ig"
      averages it while all nodes of a place move together; "relp" is "atp" by relevance
      propagation.
    - `steps`, `rule`: points of "ig" (see `quadrature`; the paper: 10, "left"). Default: for every
      place and batch the fewest of 1, 8, 16 and 32 whose scores miss the joint effects by less
      than `tolerance` of the largest.
    - `gaps`: without it joint effects are not measured (a run from each place on), and nobody
      knows what the scores leave unexplained.
    - `patch`: what nodes are set to: "counterfactual" (the corrupt run's), "zero", "mean" (over the
      corrupt prompts of `reference` of equal length, by position), "resample" (another prompt's).
    - `by_position`: a node for every position, or one for all (default: by position if all prompts
      have one length). `batch`: prompts in one compiled call; `chunk`: exact rows in one.

    Returns `FeatureScores`. Raises `ValueError` for unknown words, prompts without positions in
    common, or a metric whose slope is 0 at the clean run.

    >>> scores = nodes(model, prompts, basis, method="ig")
    >>> scores.nodes(select(scores, 20)), scores.gap, scores.error_share
    """
    objective = objective_of(metric)
    check_method(method, objective, METHODS)
    along = Along(method, steps, rule, tolerance)
    found, joint, base, used = [], [], [], ()
    with jax.default_matmul_precision(precision):
        at = plan(model, prompts, basis, patch, reference, by_position, batch)
        for part in parts(model, objective, basis, at, patch, batch):
            whole = None
            if gaps or along.adapts:
                whole = joint_effects(model, objective, part.runs, basis.places)
                joint.append(whole[: part.new])
            if method == "exact":
                tables = _exact(model, objective, basis, part, at.layout, chunk)
            else:
                slope, used = slopes(model, objective, part.runs, basis.places, along, whole, used)
                tables = _contracted(part, slope, at.layout)
            found.append(sparse_rows(tables))
            base.append(np.asarray(part.runs.base)[: part.new])
            if progress is not None:
                progress(sum(map(len, base)), len(prompts))
    return FeatureScores(
        at.layout,
        stacked(found),
        np.concatenate(joint) if joint else None,
        np.concatenate(base),
        np.asarray(prompts.templates),
        method,
        patch,
        objective.name,
        objective.sign,
        used,
    )


Tables = list[Float[np.ndarray, "row at feature_and_error"]]


def _exact(model, objective: Objective, basis: Basis, part: Part, layout: Layout, chunk) -> Tables:
    """Every node's exact effect, place by place."""
    each = zip(basis.places, part.runs.at, strict=True)
    prompts, options = part.runs.prompts, (layout.n_pos is not None, part.new, chunk)
    return [exact(model, objective, prompts, *pair, *options) for pair in each]


def _contracted(part: Part, slope: Sequence[Array], layout: Layout) -> Tables:
    """Every node's score, place by place."""
    pairs = zip(part.runs.at, slope, strict=True)
    found = [contracted(*pair, summed=layout.n_pos is None) for pair in pairs]
    return [np.asarray(table)[: part.new] for table in found]


@partial(jax.jit, static_argnames=("summed",))
def contracted(
    at: Spliced, slope: Float[Array, "batch pos ..."], *, summed: bool
) -> Float[Array, "batch at feature_and_error"]:
    """Every node's step times the slope along it; summed over positions into an axis of 1."""
    step = at.step
    features = step.features * (flat(slope, 2) @ flat(at.directions, 1).T)
    error = (flat(step.error, 2) * flat(slope, 2)).sum(axis=-1, keepdims=True)
    scores = jnp.concatenate([features, error], axis=-1)
    return scores.sum(axis=1, keepdims=True) if summed else scores


def sparse_rows(tables: Sequence[Float[np.ndarray, "row ..."]]) -> Any:
    """Tables side by side, a row each, without what is 0."""
    from scipy import sparse  # imports for a while, which every command would pay

    rows = [sparse.csr_array(table.reshape(len(table), -1)) for table in tables]
    return sparse.hstack(rows, format="csr")


def stacked(parts: Sequence[Any]) -> Any:
    """Sparse rows of several batches."""
    from scipy import sparse

    return sparse.vstack(parts, format="csr")
