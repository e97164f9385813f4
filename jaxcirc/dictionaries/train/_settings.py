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
    "anneal": (*BY_K, "crosscoder by k"),
    "sparsity": (*PENALISED, "crosscoder"),
    "sparsity_warmup": (*PENALISED, "crosscoder"),
    "widths": ("matryoshka",),
    "power": ("p_anneal",),
    "resample": PENALISED,
    "skip": (*BY_K, *PENALISED),
    "frozen": (*BY_K, *PENALISED),
}
"""Settings that only some architectures have; others refuse them."""


SHARES = ("warmup", "decay", "sparsity_warmup", "anneal", "power")
"""Settings between 0 and 1."""


def check_numbers(config: Any) -> None:
    """Raises `ValueError` for a number out of range, and one that another setting idles."""
    for name in ("d_dict", "batch", "tokens"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}: give a positive number")
    for name in ("weight_decay", "sparsity", "resample", "dead_after"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name}={getattr(config, name)}: give 0 or more")
    for name in SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name}={getattr(config, name)}: give a share from 0 to 1")
    if config.learning_rate is not None and not config.learning_rate > 0:
        raise ValueError(f"learning_rate={config.learning_rate}: give a positive number, as 3e-4")
    if config.weight_decay and config.optimiser == "adam":
        decay = config.weight_decay
        raise ValueError(f'weight_decay={decay}: adam has none, optimiser="adamw" or "muon" has')
    if config.k_start is None and config.anneal != type(config).anneal:
        raise ValueError(
            f"anneal={config.anneal}: k stays as it is, as long as there is no k_start"
        )


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
