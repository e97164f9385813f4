"""`jaxcirc overlap circuit.json`: scores from a file against a reference circuit. Seconds.

EAP-IG's scores of GPT-2 small on IOI, `circuits/ioi-eap-ig.json` of hannamw/MIB-circuit-track,
should give .8677 over all edges, .8567 without MLPs, .9156 over heads against "ioi/acdc".
"""

import dataclasses
import os
from collections.abc import Sequence

from ..circuits._overlap import Rank, overlap
from ..circuits._truth import Truth, truth
from ..circuits.formats import Helpful, read_graph
from ._result import Row


@dataclasses.dataclass(frozen=True)
class OverlapReport:
    """What a file's scores recover of a reference circuit: a row for each kind of part."""

    truth: Truth
    rows: Sequence[Row]


def overlap_file(
    path: str | os.PathLike,
    name: str = "ioi/acdc",
    *,
    helpful: Helpful = "positive",
    rank: Rank = "size",
    n_kv_heads: int | None = None,
) -> OverlapReport:
    """The AUROC of the scores in a graph JSON against a reference circuit.

    - `path`, `helpful`, `n_kv_heads`: as for `read_graph`. `name`: as for `truth`. `rank`: as for
      `overlap`.

    Raises `ValueError` as those do.

    >>> overlap_file("ioi-eap-ig.json", helpful="negative").rows[0]["auroc"]
    0.8677...
    """
    known = truth(name)
    graph = read_graph(path, helpful=helpful, n_kv_heads=n_kv_heads)
    rows = [dataclasses.asdict(row) for row in overlap(graph, known, rank)]
    return OverlapReport(known, rows)
