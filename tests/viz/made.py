"""Made-up results of every kind, shaped as SmolLM2-135M's, for tests and for looking at figures."""

import numpy as np

from jaxcirc.experiments import Result
from jaxcirc.tasks import Interval

LAYERS, HEADS, VERIFIED, DRAWS = 30, 9, 60, 5
PARTS = ("value", "low", "high")
SIZES = (1, 2, 4, 7, 11, 16, 24, 35, 47, 60)
ROLES = (
    "end looks at IO (0.61); copies what it reads (88%); writes +0.61 to the answer",
    "end looks at S2 (0.43)",
    "S2 looks at S1+1 (0.37); induction (0.62)",
    "previous token (0.97)",
    "S2 looks at S1 (0.55); duplicate token (0.81)",
    "end looks at IO (0.33); suppresses what it reads (75%); writes -0.34 to the answer",
    "",
)
FACTS = {
    "model": "smollm2-135m",
    "sha256": "0f" * 32,
    "dtype": "float32",
    "precision": "highest",
    "bos": "model",
    "prompts": 32,
    "metric": "logit_difference",
    "direction": "noise",
    "sizes": list(SIZES),
}


def around(value: float, spread: float) -> Interval:
    """An interval of a value, as if from 32 prompts in 10 templates."""
    return Interval(float(value), float(value - spread), float(value + spread), 32, 10)


def discovered(seed: int = 0, lens: str | None = None, **facts) -> Result:
    """A `discover` result; `lens` puts one text into every row."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 0.02, (LAYERS, HEADS)) - rng.gamma(0.09, 0.5, (LAYERS, HEADS))
    z[rng.integers(12, LAYERS, 6), rng.integers(0, HEADS, 6)] *= -0.6
    mlp = rng.normal(0, 0.12, LAYERS)
    mlp[0] = -3.1
    table = _table(z, mlp, rng, lens)
    curves = _curves(rng)
    numbers = {"clean": around(3.41, 0.31), "corrupt": around(-3.18, 0.29)}
    for i, size in enumerate(SIZES):
        for name in ("faithfulness", "complement"):
            value, low, high = (float(curves[f"{name}_{part}"][i]) for part in PARTS)
            numbers[f"{name}_{size}"] = Interval(value, low, high, 32, 10)
    axes = {name: ("size", "draw")[: array.ndim] for name, array in curves.items()}
    return Result(
        kind="discover",
        task="ioi",
        numbers=numbers,
        table=table,
        arrays={"atp_z": z, "atp_mlp_out": mlp} | curves,
        axes={"atp_z": ("layer", "head"), "atp_mlp_out": ("layer",)} | axes,
        facts=FACTS | facts,
        seconds={"compile": 31.2, "run": 22.8, "total": 54.0},
        notes=["AtP correlates 0.970 with exact patching over 60 verified nodes.", "Made up."],
    )


def _table(z: np.ndarray, mlp: np.ndarray, rng, lens: str | None) -> list[dict]:
    cells: list[tuple] = [("z", *cell, z[cell]) for cell in np.ndindex(z.shape)]
    cells += [("mlp_out", layer, None, mlp[layer]) for layer in range(len(mlp))]
    cells = sorted(cells, key=lambda cell: -abs(cell[3]))[:VERIFIED]
    exact = [0.9 * cell[3] + rng.normal(0, 0.03) for cell in cells]
    rows = []
    for i in np.argsort(exact):
        site, layer, head, estimate = cells[i]
        spread = 0.02 + 0.15 * abs(exact[i])
        rows.append(
            {
                "rank": len(rows) + 1,
                "node": f"mlp {layer}" if head is None else f"{layer}.{head}",
                "site": site,
                "layer": layer,
                "head": head,
                "exact": float(exact[i]),
                "exact_low": float(exact[i] - spread),
                "exact_high": float(exact[i] + spread),
                "atp": float(estimate),
                "importance": float(-exact[i]),
                "lens": lens or (ROLES[len(rows) % len(ROLES)] if head is not None else ""),
            }
        )
    return rows


def _curves(rng) -> dict[str, np.ndarray]:
    sizes = np.asarray(SIZES)
    kept = 1.06 / (1 + np.exp(-(np.log(sizes) - 2.4) * 1.6)) - 0.02
    rest = 1 / (1 + np.exp((np.log(sizes) - 1.2) * 1.9)) - 0.06
    curves = {"sizes": sizes}
    for name, value in (("faithfulness", kept), ("complement", rest)):
        wide = 0.03 + 0.08 * rng.random(len(sizes))
        parts = {"value": value, "low": value - wide, "high": value + wide}
        curves |= {f"{name}_{part}": array.astype(np.float32) for part, array in parts.items()}
    spread = rng.normal(0.01, 0.04, (len(sizes), DRAWS)) * np.sqrt(sizes / 12)[:, None]
    return curves | {"random": spread.astype(np.float32)}


def patched(*axes: str, seed: int = 0, **facts) -> Result:
    """A `patch` result whose effects have the axes ("layer", ...)."""
    rng = np.random.default_rng(seed)
    lengths = {"layer": LAYERS, "head": HEADS, "kv_head": 3, "pos": 15, "d_mlp": 200}
    effects = rng.normal(0, 0.1, [lengths[axis] for axis in axes]) ** 3 * 300
    rows = [
        {
            "cell": ".".join(map(str, cell)),
            **dict(zip(axes, cell, strict=True)),
            "raw": float(effects[cell]),
            "low": float(effects[cell]) - 0.1,
            "high": float(effects[cell]) + 0.1,
            "importance": -float(effects[cell]),
        }
        for cell in np.ndindex(effects.shape)
    ]
    return Result(
        kind="patch",
        task="ioi",
        numbers={"base": around(3.4, 0.3), "source": around(-3.2, 0.3)},
        table=rows,
        arrays={"effects": effects.astype(np.float32)},
        axes={"effects": axes},
        facts=FACTS | {"site": "z"} | facts,
        seconds={"compile": 1.0, "run": 2.0, "total": 3.0},
    )
