"""What figures need of a `Result`, as arrays and words. May import `experiments` and `tasks`."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..experiments import Result
from ..tasks import Interval

PICTURES = {
    "discover": "discover_picture",
    "discover_edges": "edge_circuit",
    "compare": "compare_curves",
    "leaderboard": "leaderboard_map",
    "recovery": "recovery_dots",
    "study_shift": "shift_picture",
    "observe": "observe_map",
    "study_observables": "observable_heads",
    "clusters": "clusters_picture",
    "patch": "patch_picture",
    "dictionary": "dictionary_picture",
    "suite": "suite_picture",
}
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
    """Either "noise" or "denoise"; "noise" where the result does not say."""
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


def plain(value: float) -> str:
    """A number with as few digits as it needs."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A share of 1, such as "80%"."""
    return f"{value:.0%}".replace("-", "\N{MINUS SIGN}")


def interval(found: Interval, digits: int = 2) -> str:
    """Such as "3.41 [3.20, 3.62]", or the value alone where there is no interval."""
    return f"{number(found.value, digits)} {spread(found, digits)}".rstrip()


def spread(found: Interval, digits: int = 2) -> str:
    """Such as "[3.20, 3.62]", or nothing where there is no interval."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)) or found.low == found.high:
        return ""
    return f"[{number(found.low, digits)}, {number(found.high, digits)}]"


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


def what(result: Result) -> str:
    """What a circuit is made of: "nodes" or "edges"."""
    return "edges" if result.kind == "discover_edges" else "nodes"


def n_parts(result: Result) -> int:
    """How many nodes or edges the model has, by the arrays of their scores."""
    prefix = "importance" if result.kind == "discover_edges" else "atp_"
    return sum(array.size for name, array in result.arrays.items() if name.startswith(prefix))


def prompts(result: Result) -> str:
    """Such as "smollm2-135m · 32 prompts"."""
    model, count = result.facts.get("model", "model"), result.facts.get("prompts")
    return f"{model}" if count is None else f"{model} · {count} prompts"


def ends(result: Result) -> str:
    """Such as "logit difference 3.41 [3.20, 3.62] clean → −3.05 [−3.30, −2.80] corrupt"."""
    clean, corrupt = clean_and_corrupt(result)
    if clean is None or corrupt is None:
        return str(result.facts.get("place", metric(result)))
    return f"{metric(result)} {interval(clean)} clean → {interval(corrupt)} corrupt"


def clean_and_corrupt(result: Result) -> tuple[Interval | None, Interval | None]:
    """The metric on whole runs; a sweep calls them "base" and "source", by its direction."""
    if "clean" in result.numbers:
        return result.numbers.get("clean"), result.numbers.get("corrupt")
    base, source = (result.numbers.get(name) for name in ("base", "source"))
    return (base, source) if direction(result) == "noise" else (source, base)


def shares(result: Result) -> dict[int, Interval]:
    """Faithfulness by circuit size."""
    named = {name.removeprefix("faithfulness_"): v for name, v in result.numbers.items()}
    return {int(size): found for size, found in named.items() if size.isdigit()}


def most(found: dict[int, Interval]) -> int:
    """The smallest circuit that recovers 80 %, or the best one if none does."""
    best = max(share.value for share in found.values())
    return min(size for size, share in found.items() if share.value >= min(0.8, best))


def summary(result: Result) -> str:
    """Such as "24 of 300 nodes recover 85 %"."""
    found = shares(result)
    if not found:
        return "faithfulness"
    size = most(found)
    parts = f"{size} of {n_parts(result)} {what(result)}"
    return f"{parts} recover {percent(found[size].value)}"


def headlines(result: Result) -> list[tuple[str, str, str]]:
    """The numbers to show first: name, value, and its interval or what it means."""
    if result.kind == "dictionary":
        return _of_dictionary(result)
    named = zip(("clean", "corrupt"), clean_and_corrupt(result), strict=True)
    cards = [
        (f"{metric(result)}, {name}", number(found.value), spread(found))
        for name, found in named
        if found is not None
    ]
    found = shares(result)
    if found:
        size = most(found)
        kept, rest = found[size], result.numbers.get(f"complement_{size}")
        cards.append((f"faithfulness of {size} {what(result)}", percent(kept.value), spread(kept)))
        if rest is not None:
            cards.append((f"everything but these {size}", percent(rest.value), spread(rest)))
    if found and result.kind == "discover":
        about = f"AtP with exact, {len(result.table)} nodes"
        cards.append(("correlation", number(correlation(result.table)), about))
    return cards


def _of_dictionary(result: Result) -> list[tuple[str, str, str]]:
    """What a dictionary costs, and what it keeps."""
    numbers = result.numbers
    found = {name: numbers[name] for name in ("nats", "l0", "fve") if name in numbers}
    words = {"nats": "nats added by the splice", "l0": "active features (L0)", "fve": "FVE"}
    cards = [(words[name], number(each.value, 3), spread(each, 3)) for name, each in found.items()]
    dead = numbers.get("dead")
    if dead is not None:
        cards.append(("dead features", percent(dead.value), f"over {dead.n:,} tokens"))
    return cards
