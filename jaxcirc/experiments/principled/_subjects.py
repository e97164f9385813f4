"""The dictionaries under test: trained on the task's own activations, one for each component.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 5: task dictionaries see nothing but one
component at one token role. Every architecture is trained at several sparsities and from several
seeds, as populations; the sparsity is chosen on one split of prompts and judged on another, and all
seeds of the one chosen are judged. May import `dictionaries`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Progress
from ...dictionaries import AbstractDictionary, Config, fit, greedy_edit
from ...dictionaries.train import Batch
from ._bench import Bench, Values

LEVELS: dict[str, tuple[float, ...]] = {
    "l1": (1.0, 2.5, 5.0),
    "gated": (5.0, 10.0, 20.0),
    "topk": (3, 6, 12),
    "batchtopk": (3, 6, 12),
    "jumprelu": (3, 6, 12),
    "frozen decoder": (3, 6, 12),
}
"""By architecture, coefficients of the penalty or numbers of active features. In units of what
varies; the paper's follow-up has 0.5 to 5, and 3 to 24, in units of the whole length."""

BY_COEFFICIENT = ("l1", "gated")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How task dictionaries are trained.

    - `features`: of each. `tokens`, `batch`, `learning_rate`: of training; twice the tokens edit no
      better on SmolLM2. `seeds`: from 0. `levels`: how many of `LEVELS`, from the middle out.
    """

    features: int = 512
    tokens: int = 120_000
    batch: int = 128
    learning_rate: float = 3e-3
    seeds: int = 3
    levels: int = 2
    architectures: tuple[str, ...] = tuple(LEVELS)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A dictionary for every component of a cross-section, all of one kind and seed."""

    kind: str
    level: str
    seed: int
    dictionaries: tuple[AbstractDictionary, ...]


class Drawn:
    """Rows of some arrays drawn anew for every batch, the same rows of each: a `Source`."""

    def __init__(self, arrays: Mapping[str, Float[np.ndarray, "row d"]], batch: int, seed: int = 0):
        self._arrays, self._batch, self._seed, self._used = dict(arrays), batch, seed, 0
        self.places, self.facts = tuple(self._arrays), {"source": "task", "seed": seed}

    def batch(self) -> Mapping[str, Batch]:
        rng = np.random.default_rng((self._seed, self._used))
        rows = rng.integers(0, len(next(iter(self._arrays.values()))), self._batch)
        self._used += 1
        drawn = {name: jnp.asarray(x[rows]) for name, x in self._arrays.items()}
        return {name: (x, x) for name, x in drawn.items()}

    def state(self) -> dict[str, np.ndarray]:
        return {"used": np.asarray(self._used)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._used = int(state["used"])


def levels_of(kind: str, n: int) -> tuple[float, ...]:
    """n of an architecture's levels, the middle one first."""
    every = LEVELS[kind]
    order = sorted(range(len(every)), key=lambda i: abs(i - len(every) // 2))
    return tuple(every[i] for i in sorted(order[:n]))


def trained(
    values: Values, recipe: Recipe, *, draw: int = 0, progress: Progress | None = None
) -> list[Subject]:
    """Task dictionaries of every architecture, level and seed.

    They learn how activations differ from their mean, which prompts of one task share and which is
    most of their length: levels are in units of what varies.

    - `values`: activations of the components on prompts to learn from. `draw`: of the order in
      which they are seen.

    >>> trained([activations], Recipe(architectures=("topk",), tokens=20_000))
    """
    means = [np.asarray(x).mean(axis=0) for x in values]
    pairs = zip(values, means, strict=True)
    arrays = {f"component {i}": np.asarray(x) - mean for i, (x, mean) in enumerate(pairs)}
    runs = [run for kind in recipe.architectures for run in _runs(kind, recipe)]
    found = []
    for i, (kind, configs) in enumerate(runs):
        fitted = fit([c for _, c in configs], Drawn(arrays, recipe.batch, draw))
        members = zip(*fitted.dictionaries.values(), strict=True)
        for (level, config), own in zip(configs, members, strict=True):
            moved = tuple(_moved(d, mean) for d, mean in zip(own, means, strict=True))
            found.append(Subject(kind, level, config.seed, moved))
        if progress is not None:
            progress(i + 1, len(runs))
    return found


def _moved(dictionary: Any, mean: Float[np.ndarray, "d"]) -> AbstractDictionary:
    """The same for activations with this mean."""
    bias = dictionary.coder.b_dec
    return eqx.tree_at(lambda d: d.coder.b_dec, dictionary, bias + mean.astype(bias.dtype))


def _runs(kind: str, recipe: Recipe) -> Iterator[tuple[str, list[tuple[str, Config]]]]:
    """Populations: coefficients may differ within one, numbers of features may not."""
    seeds, levels = range(recipe.seeds), levels_of(kind, recipe.levels)
    if kind in BY_COEFFICIENT:
        every = [(v, s) for v in levels for s in seeds]
        yield kind, [(f"{v:g}", config_of(kind, recipe, v, s)) for v, s in every]
        return
    for k in levels:
        yield kind, [(f"k={k:g}", config_of(kind, recipe, k, s)) for s in seeds]


def config_of(kind: str, recipe: Recipe, level: float, seed: int) -> Config:
    """How one is trained."""
    architecture: Any = "topk" if kind == "frozen decoder" else kind
    architecture = "l1_unit" if kind == "l1" else architecture  # the document's: unit directions
    own: dict[str, Any] = {"sparsity": level} if kind in BY_COEFFICIENT else {"k": int(level)}
    return Config(
        architecture,
        d_dict=recipe.features,
        batch=recipe.batch,
        tokens=recipe.tokens,
        learning_rate=recipe.learning_rate,
        dead_after=max(1, recipe.tokens // 10),
        frozen=kind == "frozen decoder",
        seed=seed,
        **own,
    )


def chosen(
    subjects: Sequence[Subject], bench: Bench, k: int = 2
) -> tuple[list[Subject], dict[str, dict[str, float]]]:
    """For every kind the level whose edits come nearest to the counterfactuals, all its seeds.

    - `bench`: prompts of the selection split, apart from those that are reported.

    Returns them with the mean distance of every level, as a share of where edits begin.
    """
    distance: dict[str, dict[str, list[float]]] = {}
    for subject in subjects:
        found = _distance(subject, bench, k)
        distance.setdefault(subject.kind, {}).setdefault(subject.level, []).append(found)
    mean = {kind: {v: float(np.mean(x)) for v, x in own.items()} for kind, own in distance.items()}
    best = {kind: min(own, key=lambda level: own[level]) for kind, own in mean.items()}
    return [s for s in subjects if s.level == best[s.kind]], mean


def _distance(subject: Subject, bench: Bench, k: int) -> float:
    shares = []
    for attribute in bench.section.attributes:
        others = bench.others(attribute)
        for dictionary, x, y in zip(subject.dictionaries, bench.values, others, strict=True):
            f, g = coded(dictionary, x, y)
            edit = greedy_edit(dictionary.directions, f, g, y - x, k)
            shares.append(float(edit.left.sum() / jnp.square(y - x).sum()))
    return float(np.mean(shares))


@eqx.filter_jit
def _encode(dictionary: AbstractDictionary, x: Array) -> Array:
    return dictionary.encode(x)


def coded(dictionary: AbstractDictionary, *rows: Array) -> list[Array]:
    """Coefficients of some activations."""
    return [_encode(dictionary, x) for x in rows]


@eqx.filter_jit
def decoded_by(dictionary: AbstractDictionary, features: Array) -> Array:
    """The reconstruction from coefficients."""
    return dictionary.decode(features)
