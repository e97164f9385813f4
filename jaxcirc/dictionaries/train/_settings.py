"""Which settings of a `Config` which architectures read.

May import nothing of the package.
"""

import dataclasses
from typing import Any

BY_K = ("topk", "batchtopk", "matryoshka")
"""Architectures whose sparsity is a number of features, not a coefficient."""

PENALISED = ("l1", "l1_unit", "p_anneal", "gated", "jumprelu")
"""Architectures of one site whose sparsity is a coefficient."""

ONLY = {
    "k_start": (*BY_K, "crosscoder by k"),
    "sparsity": (*PENALISED, "crosscoder"),
    "widths": ("matryoshka",),
    "power": ("p_anneal",),
    "resample": PENALISED,
    "skip": (*BY_K, *PENALISED),
    "frozen": (*BY_K, *PENALISED),
}
"""Settings that only some architectures have; others refuse them."""


def check_read(config: Any, kind: str) -> None:
    """Raises `ValueError` for a setting of a `Config` that its kind of dictionary does not read."""
    for field in dataclasses.fields(config):
        known = ONLY.get(field.name)
        found = getattr(config, field.name)
        if known is not None and kind not in known and found != field.default:
            raise ValueError(
                f"{field.name}={found!r}: a {kind} has none, leave it out, or use one of"
                f" {', '.join(known)}"
            )
