"""Nodes of several bases at once: the slope along a path is the same in all of them.

All nodes of a place move together from the clean to the corrupt activation, whatever basis they are
coordinates of (Marks et al. 2024, arXiv 2403.19647, eq. 3); so the slopes are computed once and
contracted with every basis's steps. May import `circuits`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse

from ..._types import Progress
from ...attribution import quadrature
from ...circuits.features import Basis, FeatureScores
from ...circuits.features._objective import objective_of
from ...circuits.features._patches import encode
from ...circuits.features._runs import Spliced, parts, plan
from ...circuits.features._scores import contracted, sparse_rows, stacked
from ...circuits.features._slopes import joint_effect, slopes
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
    steps: int = 5,
    rule: Any = "gauss",
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
    path = quadrature(steps, rule) if method == "ig" else (np.zeros(1), np.ones(1))
    found: dict[str, list] = {name: [] for name in bases}
    joint, base = [], []
    with jax.default_matmul_precision(precision):
        at = plan(model, prompts, carrier, "counterfactual", None, None, batch)
        resolved = at.layout.n_pos is not None
        for part in parts(model, objective, carrier, at, "counterfactual", batch):
            runs = part.runs
            along = slopes(model, objective, runs, carrier.places, method, path)  # pyright: ignore
            for name, basis in bases.items():
                numbers = [carrier.places.index(place) for place in basis.places]
                pairs = zip(basis.dictionaries, numbers, strict=True)
                tables = [_scored(d, runs.at[i], along[i], summed=not resolved) for d, i in pairs]
                found[name].append(sparse_rows([np.asarray(t)[: part.new] for t in tables]))
            each = zip(carrier.places, runs.at, strict=True)
            whole = [joint_effect(model, objective, runs.prompts, *pair) for pair in each]
            joint.append(np.stack([np.asarray(x) for x in whole], axis=1)[: part.new])
            base.append(np.asarray(runs.base)[: part.new])
            if progress is not None:
                progress(sum(map(len, base)), len(prompts))
    effects, clean = np.concatenate(joint), np.concatenate(base)
    return {
        name: FeatureScores(
            basis.layout(at.layout.n_pos),
            stacked(found[name]),
            effects[:, [carrier.places.index(place) for place in basis.places]],
            clean,
            np.asarray(prompts.templates),
            method,  # pyright: ignore[reportArgumentType]
            "counterfactual",
            objective.name,
            objective.sign,
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
    parts |= {"joint": scores.joint, "base": scores.base, "templates": scores.templates}
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
    return FeatureScores(
        layout, raw, own["joint"], own["base"], own["templates"], patch="counterfactual", **like
    )


def dense(scores: FeatureScores, columns) -> Float[np.ndarray, "example node"]:
    """The effects of some nodes on every prompt."""
    return sparse.csr_array(scores.raw)[:, np.asarray(columns, int)].toarray()


def relative_gaps(scores: FeatureScores) -> dict[str, float]:
    """Of every residual place: the completeness gap as a share of the joint effect there."""
    joint = scores.joint.mean(axis=0)
    return {
        f"{scores.layout.places[i].site}.{scores.layout.places[i].layer}": float(
            scores.gap[i] / joint[i]
        )
        for i in scores.cuts
        if joint[i] != 0
    }
