"""`Settings` of a job that finds circuits of clusters, and what makes it this job and no other.

May import `circuits`, `dictionaries`, `_result`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ...circuits.features import Basis
from ...dictionaries.train import Contexts
from .._result import model_facts
from ._batch import How
from ._group import Grouping
from ._represent import Kind, Pool
from ._samples import Each, Repeats


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is asked of the samples, the clusters and their circuits."""

    samples: int = 10_000
    """Tokens that the model predicts well, at most."""
    threshold: float = 0.3
    """Nats that such a token may cost."""
    shortest: int = 8
    """Tokens before it, at least."""
    repeats: Repeats = "drop"
    """Whether tokens that copy a trigram of their context are among them."""
    each: Each = "window"
    """One sample a window of text, or a document."""
    kind: Kind = "effects"
    """What samples are clustered by."""
    pool: Pool = "sum"
    """Over which positions features and effects are summed."""
    dims: int = 1024
    """Numbers that a sample is projected to."""
    grouping: Grouping = "kmeans"
    """How they are clustered."""
    clusters: int = 1000
    """Clusters of at least `least` samples that are wanted."""
    least: int = 4
    """Samples that a cluster needs."""
    most: int = 8
    """Samples of a cluster that are used."""
    nodes: tuple[int, ...] = (100, 1000)
    """Nodes of the circuits that are judged."""
    method: Literal["atp", "relp", "ig"] = "atp"
    """How nodes are scored."""
    steps: int = 5
    """Points of integrated gradients."""
    patch: Literal["mean", "zero"] = "mean"
    """What nodes are set to when they are scored."""
    errors: Literal["default", "removed", "kept"] = "default"
    """Whether error nodes compete with features (default), or are all removed or kept."""
    shuffled: int = 250
    """Clusters of the baseline whose labels are shuffled."""
    seeds: int = 3
    """Clusterings whose agreement is measured."""
    peaks: int = 3
    """Contexts shown of every feature."""
    seed: int = 0
    """Of all draws."""
    batch: int = 4
    """Clusters in one compiled call, which is what a killed job loses."""

    def check(self) -> None:
        """Raise `ValueError` for numbers and words with which a job would end."""
        least = dict.fromkeys(("samples", "shortest", "dims", "clusters", "batch", "steps"), 1)
        least |= {"least": 2, "most": 2, "seeds": 2}
        for name, n in least.items():
            if getattr(self, name) < n:
                raise ValueError(f"{name}={getattr(self, name)}: give --{name} {n} or more")
        _ = self.how

    @property
    def how(self) -> How:
        """How circuits are found. Raises `ValueError` for unknown words."""
        known = {name: getattr(self, name) for name in ("method", "steps", "patch", "errors")}
        return How(tuple(self.nodes), **known)


def job_facts(model, basis: Basis, contexts: Contexts, settings: Settings) -> dict[str, Any]:
    """What a job is about: model, dictionaries, text and settings."""
    return model_facts(model) | {
        "places": [f"{place.site}.{place.layer}" for place in basis.places],
        "dictionaries": basis_hash(basis),
        "contexts": len(contexts),
        "context": contexts.length - 1,
        "contexts_hash": contexts.hash(),
        **dataclasses.asdict(settings),
        "nodes": list(settings.nodes),
    }


def basis_hash(basis: Basis) -> str:
    """sha256 of all arrays of a basis."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(basis):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def job_folder(out: Path, facts: Mapping[str, Any]) -> Path:
    """Where this very job lies: another question has another folder."""
    words = json.dumps(facts, sort_keys=True, default=str)
    return Path(out) / f"clusters-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
