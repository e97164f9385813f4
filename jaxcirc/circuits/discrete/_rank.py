"""From pairs of heads to heads and to directed pairs. Imports nothing of jaxcirc.

O'Neill & Bui 2024 (arXiv 2405.12522) rank heads by how often they appear in the best pairs, and
call that edge-level; the directed score is ours.
"""

import numpy as np
from jaxtyping import Float, Int


def rank_by_pairs(
    pairs: Float[np.ndarray, "component component"],
) -> Float[np.ndarray, "component"]:
    r"""How often a head appears in the best pairs: the published "edge-level" score of heads.

    All ordered pairs of two heads are sorted by U, and of the list of their heads the first
    $\lfloor H^2 / 2 \rfloor$ entries are counted, two a pair. Pairs that tie at the cut share what
    is left of it, so that heads do not gain by their number.

    - `pairs`: Float[head head], as `pair_counts` gives.

    >>> rank_by_pairs(np.ones((4, 4)))
    array([2., 2., 2., 2.])
    """
    n = len(pairs)
    apart = ~np.eye(n, dtype=bool)
    values, wanted = pairs[apart], n * n // 2 / 2
    last = np.sort(values)[::-1][min(int(np.ceil(wanted)), len(values)) - 1]
    above, equal = (pairs > last) & apart, (pairs == last) & apart
    share = above + equal * (wanted - above.sum()) / equal.sum()
    return share.sum(axis=0) + share.sum(axis=1)


def layer_ordered(
    pairs: Float[np.ndarray, "component component"], layers: Int[np.ndarray, "component"]
) -> Float[np.ndarray, "component component"]:
    """U of pairs (earlier, later), NaN where the first does not lie in a lower layer. Ours.

    >>> layer_ordered(pairs, np.arange(270) // 9)
    """
    return np.where(layers[:, None] < layers[None, :], pairs, np.nan)
