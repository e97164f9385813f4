"""`FeatureCircuit`: chosen nodes and edges with their weights, and its file.

The file says by which rule and threshold the circuit was chosen, what of the effect it leaves
unexplained and what share of it errors carry. May import `_basis`, `_scores`, `_edges`.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..formats._file import write_json
from ._edges import FeatureEdges
from ._layout import FeatureNode
from ._scores import FeatureScores

VERSION = 1
METRIC = "metric"
"""The reader of edges into the metric."""


@dataclasses.dataclass(frozen=True)
class FeatureCircuit:
    """Nodes with their importance, and edges between them and into the metric with theirs.

    - `source`, `reader`: numbers of `nodes`; the reader `len(nodes)` is the metric. Importance is
      positive where a node or an edge helps.
    - `effect`: the total effect. `gaps`: by place, the sum of all its nodes' effects minus their
      joint effect. `error_share`: of all effects by size. `facts`: whatever JSON can hold.

    >>> FeatureCircuit.of(scores, edges, select_edges(edges, 200)).save("circuit.json")
    """

    nodes: tuple[FeatureNode, ...]
    importance: Float[np.ndarray, "node"]
    source: Int[np.ndarray, "edge"]
    reader: Int[np.ndarray, "edge"]
    weight: Float[np.ndarray, "edge"]
    effect: float
    gaps: Mapping[str, float]
    error_share: float
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        scores: FeatureScores,
        edges: FeatureEdges,
        kept: Bool[np.ndarray, "edge"] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> "FeatureCircuit":
        """The circuit of the nodes that `edges` were scored between, with the edges kept (default:
        all).

        - `facts`: by what rule and threshold nodes and edges were chosen, model, task.
        """
        chosen = np.arange(len(edges)) if kept is None else np.flatnonzero(kept)
        columns = [scores.layout.column(node) for node in edges.nodes]
        places = [f"{place.site}.{place.layer}" for place in scores.layout.places]
        known = {"method": scores.method, "edges": edges.method, "patch": scores.patch}
        return cls(
            edges.nodes,
            scores.importance[columns],
            edges.source[chosen],
            edges.reader[chosen],
            edges.sign * edges.mean[chosen],
            scores.effect,
            dict(zip(places, scores.gap.tolist(), strict=True)),
            scores.error_share,
            {**known, "metric": scores.metric, **(facts or {})},
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write the circuit as JSON, whole or not at all."""
        names = [*map(str, self.nodes), METRIC]
        ends = zip(self.source.tolist(), self.reader.tolist(), self.weight.tolist(), strict=True)
        document = {
            "version": VERSION,
            "nodes": [
                {"name": name, "importance": value}
                for name, value in zip(names, self.importance.tolist(), strict=False)
            ],
            "edges": [
                {"source": names[u], "reader": names[d], "weight": weight} for u, d, weight in ends
            ],
            "effect": self.effect,
            "gaps": dict(self.gaps),
            "error_share": self.error_share,
            "facts": dict(self.facts),
        }
        return write_json(path, document)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeatureCircuit":
        """Read what `save` wrote. Raises `ValueError` for anything else."""
        try:
            document = json.loads(Path(path).read_text())
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']!r}, known is {VERSION}")
            return cls._parsed(document)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no feature circuit ({error}): write it again") from None

    @classmethod
    def _parsed(cls, document: Mapping[str, Any]) -> "FeatureCircuit":
        names = [node["name"] for node in document["nodes"]]
        number = {name: i for i, name in enumerate([*names, METRIC])}
        edges = document["edges"]
        return cls(
            tuple(map(FeatureNode.parse, names)),
            np.asarray([node["importance"] for node in document["nodes"]], float),
            np.asarray([number[edge["source"]] for edge in edges], int),
            np.asarray([number[edge["reader"]] for edge in edges], int),
            np.asarray([edge["weight"] for edge in edges], float),
            float(document["effect"]),
            dict(document["gaps"]),
            float(document["error_share"]),
            dict(document["facts"]),
        )
