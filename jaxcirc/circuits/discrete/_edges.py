"""Edge scores of a wiring from codes, for whatever judges edges: ours. May import `taps`."""

import numpy as np
from jaxtyping import Float

from ...taps import Wiring
from .._graph import reader_components
from ._discover import DiscreteScores


def edge_scores(scores: DiscreteScores, wiring: Wiring) -> Float[np.ndarray, "edge"]:
    r"""Edges by the pair score of their two ends, directed by who reads whom. Ours.

    $$s_{u \to v} = U_{uv}, \quad s_{input \to v} = u_v, \quad s_{u \to logits} = u_u$$

    The input and the logits have one code on every text, with which a pair is as good as the other
    end alone. A key/value head counts with the best head of its group; q, k and v of a head count
    alike. From the input to the logits: the best of all.

    - `scores`: with pairs, and with MLPs where the model has any.

    Raises `ValueError` for scores of other components.

    >>> edge_scores(discrete(model, texts, mlps=True), Wiring.of(model))
    """
    if scores.pairs is None:
        raise ValueError("no pairs were counted: discrete(model, texts, mlps=True, pairs=True)")
    n = _checked(scores, wiring)
    table = np.zeros((n + 1, n + 1))
    table[:n, :n] = scores.pairs.mean(axis=0)
    table[n, :n] = table[:n, n] = scores.importance
    table[n, n] = table.max()
    return _spread(wiring, lambda source, reader: table[source, reader], n)


def end_scores(scores: DiscreteScores, wiring: Wiring) -> Float[np.ndarray, "edge"]:
    """Edges by the lesser node score of their two ends, as circuits of nodes are made into edges;
    the input and the logits are always in.

    >>> end_scores(discrete(model, texts, mlps=True, pairs=False), Wiring.of(model))
    """
    n = _checked(scores, wiring)
    node = np.append(scores.importance, scores.importance.max() + 1)
    return _spread(wiring, lambda u, v: np.minimum(node[u], node[v]), n)


def _checked(scores: DiscreteScores, wiring: Wiring) -> int:
    n = wiring.n_sources - wiring.first
    if scores.nodes.shape[1] != n:
        raise ValueError(
            f"scores of {scores.nodes.shape[1]} components for a wiring of {n}: count MLPs where"
            " the model has any, discrete(model, texts, mlps=True)"
        )
    return n


def _spread(wiring: Wiring, value, n: int) -> Float[np.ndarray, "edge"]:
    """The best value over the heads that a reader feeds."""
    source = np.where(wiring.source < wiring.first, n, wiring.source - wiring.first)
    members = range(wiring.n_heads // wiring.n_kv_heads)
    return np.max([value(source, reader_components(wiring, i)) for i in members], axis=0)
