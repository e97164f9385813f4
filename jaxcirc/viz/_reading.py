"""What the figures need of a `Result`, as arrays and words. May import `experiments` and `tasks`."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..experiments import Result
from ..tasks import Interval

PICTURES = {"discover": "discover_picture", "patch": "patch_picture"}
SITES = {"z": "head", "mlp_out": "MLP"}
DONE = {
    "noise": "clean run, one {what} at a time set to its corrupt value",
    "denoise": "corrupt run, one {what} at a time set to its clean value",
}


def expect(result: Result, kind: str, caller: str) -> None:
    """Raise `ValueError` unless the result is of this kind."""
    if result.kind != kind:
        call = PICTURES.get(result.kind, "write_page")
        argument = "result" if result.kind in PICTURES else "result, folder"
        raise ValueError(
            f"{caller} draws results of kind {kind!r}, this one is {result.kind!r}:"
            f" use jaxcirc.viz.{call}({argument})"
        )


def direction(result: Result) -> str:
    """"noise" or "denoise"; "noise" where the result does not say."""
    return str(result.facts.get("direction", "noise"))


def metric(result: Result) -> str:
    """The metric in words: "logit difference"."""
    return str(result.facts.get("metric", "logit_difference")).replace("_", " ")


def done(result: Result, what: str = "node") -> str:
    """What was done to the model, in words."""
    return DONE.get(direction(result), "").format(what=what)


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus sign, or a dash if it is not finite."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def interval(found: Interval, digits: int = 2) -> str:
    """"3.41 [3.20, 3.62]", or the value alone where there is no interval."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)) or found.low == found.high:
        return number(found.value, digits)
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{number(found.value, digits)} [{low}, {high}]"


def column(rows: Sequence, name: str) -> Float[np.ndarray, "row"]:
    """One numeric column of a table; NaN where a row lacks it."""
    values = [row.get(name) for row in rows]
    return np.asarray([np.nan if value is None else value for value in values], float)


def strongest(result: Result, top: int) -> list:
    """The rows with the largest exact effects, in the order of the table: helpers first."""
    size = np.nan_to_num(np.abs(column(result.table, "exact")))
    kept = set(np.argsort(-size, kind="stable")[:top].tolist())
    return [row for i, row in enumerate(result.table) if i in kept]


def correlation(rows: Sequence) -> float:
    """Pearson correlation of AtP with the exact effect; NaN for fewer than three rows."""
    exact, estimate = column(rows, "exact"), column(rows, "atp")
    if len(rows) < 3 or not exact.std() or not estimate.std():
        return math.nan
    return float(np.corrcoef(exact, estimate)[0, 1])


def n_nodes(result: Result) -> int:
    """How many nodes the model has, by the arrays of AtP scores."""
    return sum(array.size for name, array in result.arrays.items() if name.startswith("atp_"))


def prompts(result: Result) -> str:
    """"smollm2-135m · 32 prompts"."""
    model, count = result.facts.get("model", "model"), result.facts.get("prompts")
    return f"{model}" if count is None else f"{model} · {count} prompts"


def ends(result: Result) -> str:
    """"logit difference 3.41 [3.20, 3.62] clean → −3.05 [−3.30, −2.80] corrupt"."""
    clean, corrupt = (result.numbers.get(name) for name in ("clean", "corrupt"))
    if clean is None or corrupt is None:
        return metric(result)
    return f"{metric(result)} {interval(clean)} clean → {interval(corrupt)} corrupt"


def shares(result: Result) -> dict[int, Interval]:
    """Faithfulness by circuit size."""
    named = result.numbers.items()
    return {int(k.rpartition("_")[2]): v for k, v in named if k.startswith("faithfulness_")}


def summary(result: Result) -> str:
    """"24 of 300 nodes recover 85 %": the smallest circuit that recovers most of the behaviour."""
    found = shares(result)
    if not found:
        return ""
    best = max(share.value for share in found.values())
    size = min(size for size, share in found.items() if share.value >= min(0.8, best))
    return f"{size} of {n_nodes(result)} nodes recover {found[size].value:.0%}"
