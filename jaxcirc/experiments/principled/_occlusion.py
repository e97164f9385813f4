"""Occlusion where the strengths are known: two attributes in one activation, one a little larger.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 6 and appendix A.9: $a = u_i + v_j$, codes
drawn from N(0, I), the first scaled so that its mean length exceeds the second's by a ratio. A
dictionary that finds every value of the stronger attribute may find few of the weaker one. The same
question is asked of a real activation by taking a share of one attribute's code away. May import
`dictionaries`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...dictionaries import AbstractDictionary, Config, Supervised, fit
from ...dictionaries.interpret import score
from ...dictionaries.train import Batch
from ...tasks import interval
from .._result import Row
from ._approximation import cells
from ._subjects import Drawn, coded

RECOVERED = (0.5, 0.9)
"""F1 from which on a value counts as recovered."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the toy is.

    - `values`: of each attribute. `features`, `tokens`, `batch`: of training. `penalty`: in units
      of unit mean square. `ratios`: of the stronger attribute's length to the weaker's.
    """

    values: int = 32
    d: int = 64
    features: int = 256
    tokens: int = 300_000
    batch: int = 512
    penalties: tuple[float, ...] = (1.0, 2.5)
    ratios: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
    seeds: int = 3


class Pairs:
    """Sums of two codes drawn anew for every batch: a `Source`."""

    def __init__(self, codes: Sequence[Float[np.ndarray, "value d"]], batch: int, seed: int = 0):
        self._codes, self._batch, self._seed, self._used = codes, batch, seed, 0
        self.places, self.facts = ("pairs",), {"source": "pairs", "seed": seed}

    def draw(self, n: int, seed: int) -> tuple[Float[np.ndarray, "row d"], list[np.ndarray]]:
        rng = np.random.default_rng((self._seed, seed))
        labels = [rng.integers(0, len(rows), n) for rows in self._codes]
        parts = [rows[at] for rows, at in zip(self._codes, labels, strict=True)]
        return sum(parts[1:], parts[0]), labels

    def batch(self) -> Mapping[str, Batch]:
        x = jnp.asarray(self.draw(self._batch, 1 + self._used)[0], jnp.float32)
        self._used += 1
        return {"pairs": (x, x)}

    def state(self) -> dict[str, np.ndarray]:
        return {"used": np.asarray(self._used)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._used = int(state["used"])


def codes_of(scale: Scale, ratio: float, seed: int = 0) -> list[Float[np.ndarray, "value d"]]:
    """Codes of both attributes, the first `ratio` times as long on average."""
    rng = np.random.default_rng(seed)
    found = []
    for size in (ratio, 1.0):
        rows = rng.normal(size=(scale.values, scale.d))
        found.append(size * rows / np.linalg.norm(rows, axis=1).mean() * np.sqrt(scale.d))
    return found


def recovered(
    dictionary: AbstractDictionary,
    x: Any,
    labels: Sequence[Int[np.ndarray, "row"]],
    values: Sequence[int],
    least: float,
) -> list[int]:
    """How many values of each attribute some feature tells with an F1 of at least so much."""
    active = np.asarray(coded(dictionary, jnp.asarray(x, jnp.float32))[0]) != 0
    found = []
    for own, size in zip(labels, values, strict=True):
        predicates = {str(v): own == v for v in range(size)}
        found.append(int((score(active, predicates).f1.max(axis=1) >= least).sum()))
    return found


def toy_rows(scale: Scale, seed: int = 0) -> list[Row]:
    """Recovered values of the stronger and of the weaker attribute, ratio by ratio, with seeds."""
    rows: list[Row] = []
    for ratio in scale.ratios:
        codes = codes_of(scale, ratio, seed)
        source = Pairs(codes, scale.batch, seed)
        x, labels = source.draw(4096, 0)
        configs = [_config(scale, p, s) for p in scale.penalties for s in range(scale.seeds)]
        dictionaries = fit(configs, source).dictionaries["pairs"]
        for penalty in scale.penalties:
            own = [d for d, c in zip(dictionaries, configs, strict=True) if c.sparsity == penalty]
            rows.append(
                {"section": "occlusion toy", "ratio": ratio, "penalty": penalty}
                | _counts(own, x, labels, [scale.values] * 2, ("stronger", "weaker"))
            )
    return rows


def _config(scale: Scale, penalty: float, seed: int) -> Config:
    return Config(
        "l1_unit",
        d_dict=scale.features,
        sparsity=penalty,
        batch=scale.batch,
        tokens=scale.tokens,
        learning_rate=3e-3,
        seed=seed,
    )


def _counts(dictionaries, x, labels, sizes, names) -> dict[str, float]:
    """Shares recovered at each F1, with intervals over seeds."""
    found: dict[str, float] = {}
    for least in RECOVERED:
        each = [recovered(d, x, labels, sizes, least) for d in dictionaries]
        for i, name in enumerate(names):
            shares = interval([one[i] / sizes[i] for one in each])
            found |= cells({f"{name}, F1 {least:g}": shares})
    return found


def interpolated_rows(
    x: Float[Array, "row d"],
    labels: Mapping[str, Int[np.ndarray, "row"]],
    codes: Supervised,
    away: str,
    other: str,
    scale: Scale,
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> list[Row]:
    """The same of real activations: a share of one attribute's code is taken away, dictionaries are
    trained on what is left, and the values of both attributes that features tell are counted."""
    rows: list[Row] = []
    names = (away, other)
    sizes = [len(codes.codes[name]) for name in names]
    penalty = scale.penalties[len(scale.penalties) // 2]
    code = np.asarray(codes.codes[away])[labels[away]]
    for share in shares:
        left = np.asarray(x) - share * code
        configs = [_config(scale, penalty, s) for s in range(scale.seeds)]
        found = fit(configs, Drawn({"x": left}, scale.batch)).dictionaries["x"]
        own = [labels[name] for name in names]
        rows.append(
            {"section": "occlusion", "taken away": share, "penalty": penalty}
            | {
                "length of " + name: _length(codes, name, 1 - share * (name == away))
                for name in names
            }
            | _counts(found, left, own, sizes, names)
        )
    return rows


def _length(codes: Supervised, name: str, share: float) -> float:
    rows = np.asarray(codes.codes[name])
    return float(share * np.linalg.norm(rows, axis=1).mean())
