"""Made-up results of kind "discover_edges", shaped as GPT-2 small's, for tests and for looking."""

import numpy as np

from jaxcirc.experiments import Result
from jaxcirc.taps import Wiring
from jaxcirc.tasks import Interval

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DRAWS = 4


def edges_found(
    wiring: Wiring | None = None, sizes=SIZES, edges: int | None = None, seed: int = 0, **facts
) -> Result:
    """A result whose circuits hold together; `edges` cuts the order short."""
    wiring = wiring or Wiring(12, 12, 12)
    rng = np.random.default_rng(seed)
    importance = _importance(wiring, rng)
    order = np.argsort(-np.abs(importance), kind="stable").astype(np.int32)[:edges]
    curves = _curves(np.asarray(sizes, np.int32), rng)
    arrays = {"importance": importance, "order": order} | curves
    axes = {name: ("size", "draw")[: array.ndim] for name, array in curves.items()}
    return Result(
        kind="discover_edges",
        task="ioi",
        numbers=_numbers(curves),
        table=[_row(wiring, rank, int(number), importance) for rank, number in _top(order)],
        arrays=arrays,
        axes=axes | {"importance": ("edge",), "order": ("rank",)},
        facts=_facts(wiring) | facts,
        seconds={"total": 1.0},
        notes=["Made up."],
    )


def _importance(wiring: Wiring, rng) -> np.ndarray:
    """Heavy tails: some sources and some readers have most of the edges."""
    write = rng.gamma(0.5, 1, wiring.n_sources)
    read = rng.gamma(0.5, 1, len(wiring.readers))
    write[0], read[-1] = 3, 6
    size = write[wiring.source] * read[wiring.reader] * rng.lognormal(0, 0.6, wiring.n_edges)
    sign = np.where(rng.random(wiring.n_edges) < 0.22, -1, 1)
    return (0.02 * size * sign).astype(np.float32)


def _curves(sizes: np.ndarray, rng) -> dict[str, np.ndarray]:
    value = 1 / (1 + np.exp(-(np.log(sizes) - 4.3) * 1.2))
    wide = 0.02 + 0.06 * rng.random(len(sizes))
    parts = {"value": value, "low": value - wide, "high": value + wide}
    curves = {f"faithfulness_{name}": part.astype(np.float32) for name, part in parts.items()}
    random = rng.normal(0.01, 0.02, (len(sizes), DRAWS)).astype(np.float32)
    return {"sizes": sizes, "random": random} | curves


def _numbers(curves: dict[str, np.ndarray]) -> dict[str, Interval]:
    numbers = {
        "clean": Interval(3.4, 3.1, 3.7, 32, 10),
        "corrupt": Interval(-3.2, -3.5, -2.9, 32, 10),
    }
    for i, size in enumerate(curves["sizes"].tolist()):
        ends = [float(curves[f"faithfulness_{part}"][i]) for part in ("value", "low", "high")]
        numbers[f"faithfulness_{size}"] = Interval(*ends, 32, 10)
    return numbers


def _top(order: np.ndarray):
    return list(enumerate(order[:100].tolist(), start=1))


def _row(wiring: Wiring, rank: int, number: int, importance: np.ndarray) -> dict:
    source, reader = wiring.edge(number)
    ends = {"source": str(source), "reader": str(reader)}
    name = {"rank": rank, "edge": f"{source} -> {reader}"}
    return name | ends | {"importance": float(importance[number])}


def _facts(wiring: Wiring) -> dict:
    shape = {"n_layers": wiring.n_layers, "n_heads": wiring.n_heads, "mlp": wiring.mlp}
    shape |= {"n_kv_heads": wiring.n_kv_heads, "parallel": wiring.parallel, "split": wiring.split}
    return {"model": "gpt2-small", "method": "eap-ig", "prompts": 32, "direction": "noise"} | shape
