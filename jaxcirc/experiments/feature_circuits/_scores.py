"""Nodes of several bases at once: the slope along a path is the same in all of them.

All nodes of a place move together from the clean to the corrupt activation, whatever basis they are
coordinates of (Marks et al. 2024, arXiv 2403.19647, eq. 3); so the slopes are computed once and
contracted with every basis's steps. May import `circuits`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse

from ..._types import Progress
from ...circuits.features import Basis, FeatureScores
from ...circuits.features._objective import objective_of
from ...circuits.features._patches import encode
from ...circuits.features._runs import Spliced, parts, plan
from ...circuits.features._scores import contracted, sparse_rows, stacked
from ...circuits.features._slopes import Along, Method, joint_effects, slopes
from ...dictionaries import Identity
from ...taps import AbstractDictionary, Code
from ...tasks import Prompts, logit_difference
from ._baselines import names_of, norms_of


def score_bases(
    model,
    prompts: Prompts,
    bases: Mapping[str, Basis],
    metric: Any = logit_difference,
    *,
    method: str = "ig",
    steps: int | None = None,
    rule: Any = "gauss",
    tolerance: float = 0.01,
    precision: str = "highest",
    batch: int = 16,
    progress: Progress | None = None,
) -> dict[str, FeatureScores]:
    """What `nodes` gives for each of several bases, for the cost of one: counterfactual patches.

    Arguments as for `nodes`. Raises `ValueError` for bases that pass other sinks at one place.

    >>> score_bases(model, prompts, bases)["neurons"].error_share
    0.0
    """
    objective, carrier = objective_of(metric), _carrier(model, bases)
    along = Along(cast(Method, method), steps, rule, tolerance)
    found: dict[str, list] = {name: [] for name in bases}
    joint, base, used = [], [], ()
    with jax.default_matmul_precision(precision):
        at = plan(model, prompts, carrier, "counterfactual", None, None, batch)
        resolved = at.layout.n_pos is not None
        for part in parts(model, objective, carrier, at, "counterfactual", batch):
            runs = part.runs
            whole = joint_effects(model, objective, runs, carrier.places)
            slope, used = slopes(model, objective, runs, carrier.places, along, whole, used)
            for name, basis in bases.items():
                numbers = [carrier.places.index(place) for place in basis.places]
                pairs = zip(basis.dictionaries, numbers, strict=True)
                tables = [_scored(d, runs.at[i], slope[i], summed=not resolved) for d, i in pairs]
                found[name].append(sparse_rows([np.asarray(t)[: part.new] for t in tables]))
            joint.append(whole[: part.new])
            base.append(np.asarray(runs.base)[: part.new])
            if progress is not None:
                progress(sum(map(len, base)), len(prompts))
    effects, clean = np.concatenate(joint), np.concatenate(base)
    own = {name: [carrier.places.index(p) for p in basis.places] for name, basis in bases.items()}
    return {
        name: FeatureScores(
            basis.layout(at.layout.n_pos),
            stacked(found[name]),
            effects[:, own[name]],
            clean,
            np.asarray(prompts.templates),
            along.method,
            "counterfactual",
            objective.name,
            objective.sign,
            tuple(used[i] for i in own[name]),
        )
        for name, basis in bases.items()
    }


def _carrier(model, bases: Mapping[str, Basis]) -> Basis:
    """All places of all bases, their activations as they are."""
    widths: dict[str, int] = {}
    norms: dict[str, float] = {}
    for basis in bases.values():
        for name, norm in norms_of(basis).items():
            if norms.setdefault(name, norm) != norm:
                raise ValueError(f"two bases pass other sinks at {name}: give them one sink_norms")
        pairs = zip(names_of(basis), basis.dictionaries, strict=True)
        widths |= {name: dictionary.d_in for name, dictionary in pairs}
    return Basis.of(model, {name: Identity(d) for name, d in widths.items()}, norms)


@partial(jax.jit, static_argnames=("summed",))
def _scored(
    dictionary: AbstractDictionary, at: Spliced, slope: Float[Array, "batch pos ..."], *, summed
) -> Float[Array, "batch at feature_and_error"]:
    """The scores of a place's nodes in another basis than that of `at`."""
    ends: list[Code] = [encode(dictionary, x) for x in (at.clean.features, at.patch.features)]
    own = Spliced(dictionary, at.x, at.stream, at.layer, at.live, *ends)
    return contracted(own, slope, summed=summed)


def pack(scores: FeatureScores, name: str) -> dict[str, np.ndarray]:
    """Scores as arrays by name, to be kept."""
    raw = sparse.csr_array(scores.raw)
    parts = {"data": raw.data, "indices": raw.indices, "indptr": raw.indptr}
    parts |= {"base": scores.base, "templates": scores.templates, "joint": scores.joint}
    parts |= {"steps": np.asarray(scores.steps, int)}
    kept = {f"{name}/{part}": np.asarray(array) for part, array in parts.items()}
    return kept | {f"{name}/n_pos": np.asarray(scores.layout.n_pos or 0)}


def unpack(
    arrays: Mapping[str, np.ndarray], name: str, basis: Basis, like: Mapping[str, Any]
) -> FeatureScores:
    """The inverse of `pack`; `like`: method, metric and sign."""
    own = {part: arrays[f"{name}/{part}"] for part in ("joint", "base", "templates")}
    layout = basis.layout(int(arrays[f"{name}/n_pos"].item()) or None)
    triple = tuple(arrays[f"{name}/{part}"] for part in ("data", "indices", "indptr"))
    raw = sparse.csr_array(triple, shape=(len(own["base"]), layout.size))
    steps = tuple(arrays[f"{name}/steps"].tolist())
    return FeatureScores(layout, raw, **own, patch="counterfactual", steps=steps, **like)


def dense(scores: FeatureScores, columns) -> Float[np.ndarray, "example node"]:
    """The effects of some nodes on every prompt."""
    return sparse.csr_array(scores.raw)[:, np.asarray(columns, int)].toarray()
