"""`jaxcirc recovery`: which architectures find a dictionary that is known, beside an oracle.

Some minutes on two cores. Expect all trained ones far above random directions, none at the oracle,
and in the world of parents and children lower numbers than in the flat one: children absorb.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Tell
from ..dictionaries import AbstractDictionary, Config, Pursuit, fit, random_directions
from ..tasks import Interval, interval
from ._clock import clock
from ._matching import match, support_f1
from ._result import Result, Row, finite
from ._synthetic import Made, World, flat_world, tree_world


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the worlds are, and how long dictionaries train.

    - `d`, `atoms`, `active`: width, number of atoms, how many are active on average. `tokens`: of
      training, `batch` a step. `held`: tokens to judge on.
    """

    d: int = 64
    atoms: int = 256
    active: int = 5
    tokens: int = 1_500_000
    batch: int = 2048
    held: int = 8192


SCALES = {
    "full": Scale(),
    "quick": Scale(d=16, atoms=32, active=2, tokens=60_000, batch=512, held=1024),
}
"""By name: the document's sizes, and one of seconds."""

SPARSITY = {
    **{"l1": 3.0, "l1_unit": 2.0, "p_anneal": 1.0, "gated": 4.0, "jumprelu": 1.0},
    "crosscoder": 2.0,
}
"""Coefficients that find most atoms; more of it would only bring down the L0."""

ARCHITECTURES = (
    "topk",
    "batchtopk",
    "matryoshka",
    "l1",
    "l1_unit",
    "p_anneal",
    "gated",
    "jumprelu",
    "crosscoder",
    "crosscoder by k",
)
BASELINES = ("oracle codes", "oracle pursuit", "frozen random", "random pursuit")
WORLDS = {
    "flat": ("atoms alike and independent", "every atom as frequent as the others"),
    "tree": ("parents and children", "a child needs its parent; frequencies as 1 / rank"),
}
"""By name: what a world is, and how its atoms occur."""
FOUND = 0.9
"""The cosine from which on an atom counts as found."""
LEAST = 1e-3
"""What a feature adds in length for it to count as active: atoms add 0.5 to 1.5."""


def study_recovery(
    *,
    scale: Scale = SCALES["full"],
    architectures: Sequence[str] = ARCHITECTURES,
    seeds: int = 3,
    progress: Tell | None = None,
) -> Result:
    r"""Train every architecture on worlds whose atoms are known, and compare.

    Features are matched with atoms one to one, so that the sum of $|\cos|$ is largest (Hungarian).
    "cosine" is the mean over atoms; "F1" compares which atoms are active on which token with which
    matched features are, on tokens not trained on. Worlds: "flat", and "tree" with parents,
    children and frequencies as 1 / rank.

    Crosscoders see each activation as two sites of half the width.

    - `seeds`: dictionaries of each architecture, trained as one population on the same tokens.

    Returns `Result`: a row for each world and dictionary with intervals over seeds, beside the true
    atoms coded by pursuit and by the true codes, and random directions. Raises `ValueError` for an
    unknown architecture.

    >>> study_recovery(scale=SCALES["quick"], architectures=("topk",)).numbers["flat/topk/cosine"]
    """
    unknown = set(architectures) - set(ARCHITECTURES)
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)[0]!r}: use some of {', '.join(ARCHITECTURES)}")
    with clock() as seconds:
        worlds = _worlds(scale)
        held = {name: world.draw(jax.random.key(2), scale.held) for name, world in worlds.items()}
        scores: dict[tuple[str, str], list[Score]] = {}
        names = (*architectures, *BASELINES)
        for i, name in enumerate(names):
            if progress is not None:
                progress("recovery", i, len(names))
            for world, found in _dictionaries(name, worlds, scale, seeds).items():
                truth = worlds[world]
                scores[world, name] = [_score(one, truth, *held[world]) for one in found]
        if progress is not None:
            progress("recovery", len(names), len(names))
    return _result(worlds, scores, scale, seeds, seconds)


@dataclasses.dataclass(frozen=True)
class Score:
    """How well one dictionary matches a world: |cosine| of every atom with its feature, F1 of the
    support, features active a token, and the explained share of variance."""

    cosine: Float[np.ndarray, "atom"]
    f1: float
    l0: float
    explained: float


class _Codes(eqx.Module):
    """The true codes, for what can be reached at best."""

    world: World


def _worlds(scale: Scale) -> dict[str, World]:
    sizes = (scale.d, scale.atoms, scale.active)
    first, second = jax.random.split(jax.random.key(1))
    return {"flat": flat_world(first, *sizes), "tree": tree_world(second, *sizes)}


def config_of(name: str, scale: Scale, seed: int) -> Config:
    """How an architecture is trained here."""
    frozen = name == "frozen random"
    architecture: Any = "topk" if frozen else name.removesuffix(" by k")
    return Config(
        architecture,
        d_dict=scale.atoms,
        k=None if name == "crosscoder" else scale.active,
        sparsity=SPARSITY.get(name, 1.0),
        batch=scale.batch,
        tokens=scale.tokens,
        learning_rate=3e-3,
        dead_after=scale.tokens // 10,
        frozen=frozen,
        seed=seed,
    )


def _dictionaries(
    name: str, worlds: Mapping[str, World], scale: Scale, seeds: int
) -> Mapping[str, Sequence[AbstractDictionary | _Codes]]:
    """The dictionaries of one name, by world."""
    zero, n = jnp.zeros(scale.d), range(seeds)
    if name == "oracle codes":
        return {world: [_Codes(truth)] for world, truth in worlds.items()}
    if name == "oracle pursuit":
        return {
            w: [Pursuit(zero, truth.atoms, 2 * scale.active + 2)] for w, truth in worlds.items()
        }
    if name == "random pursuit":
        sizes = scale.d, scale.atoms, scale.active
        keys = jax.random.split(jax.random.key(4), seeds)
        made = [random_directions(key, *sizes, mean=zero) for key in keys]
        return {world: made for world in worlds}
    sites = 2 if name.startswith("crosscoder") else 1
    source = Made(worlds, scale.batch, jax.random.key(3), sites)
    return fit([config_of(name, scale, seed) for seed in n], source).dictionaries


@eqx.filter_jit
def _coded(dictionary: AbstractDictionary, x: Array) -> tuple[Array, Array]:
    if dictionary.directions.ndim == 3:  # sites apart
        x = x.reshape(len(x), *dictionary.directions.shape[1:])
    codes = dictionary.encode(x)
    return codes, dictionary.decode(codes)


def _score(dictionary: Any, world: World, x: Array, codes: Array) -> Score:
    if isinstance(dictionary, _Codes):
        rows, found, back = world.atoms, codes, x
    else:
        rows, (found, back) = dictionary.directions, _coded(dictionary, x)
        rows, back = rows.reshape(len(rows), -1), back.reshape(x.shape)
    matched, cosine = match(np.asarray(world.atoms), np.asarray(rows))
    active = np.asarray(jnp.abs(found) * jnp.linalg.norm(rows, axis=1) > LEAST)
    left = jnp.square(x - back).sum() / jnp.square(x - x.mean(axis=0)).sum()
    f1 = support_f1(np.asarray(codes != 0), active, matched)
    return Score(cosine, f1, float(active.sum(axis=1).mean()), float(1 - left))


COLUMNS = ("cosine", "F1", "found", "L0", "FVE")


def _columns(score: Score, world: World) -> dict[str, float]:
    first = len(world.atoms) - len(world.parents)
    values = {
        "cosine": float(score.cosine.mean()),
        "F1": score.f1,
        "found": float((score.cosine > FOUND).mean()),
        "L0": score.l0,
        "FVE": score.explained,
    }
    if len(world.parents):
        values["parents"] = float(score.cosine[:first].mean())
        values["children"] = float(score.cosine[first:].mean())
    return values


def _result(
    worlds: Mapping[str, World],
    scores: Mapping[tuple[str, str], Sequence[Score]],
    scale: Scale,
    seeds: int,
    seconds: Mapping[str, float],
) -> Result:
    rows: list[Row] = []
    numbers: dict[str, Interval] = {}
    for (world, name), own in scores.items():
        columns = [_columns(score, worlds[world]) for score in own]
        found = {key: interval([column[key] for column in columns]) for key in columns[0]}
        numbers |= {f"{world}/{name}/{key}": number for key, number in found.items()}
        rows.append({"section": world, "dictionary": name} | _cells(found))
    order = {world: i for i, world in enumerate(worlds)}
    rows.sort(key=lambda row: (order[str(row["section"])], -float(row["cosine"] or 0)))
    arrays = {
        f"{world}/{name}/cosine": np.stack([score.cosine for score in own]).astype(np.float32)
        for (world, name), own in scores.items()
    }
    frequent = {f"{w}/frequency": np.asarray(world.frequencies) for w, world in worlds.items()}
    names = list(dict.fromkeys(name for _, name in scores))
    return Result(
        kind="recovery",
        task="synthetic",
        numbers=numbers,
        table=finite(rows),
        arrays=arrays | frequent,
        axes={name: ("seed", "atom") for name in arrays} | {name: ("atom",) for name in frequent},
        facts={
            **dataclasses.asdict(scale),
            "dictionaries": names,
            "seeds": seeds,
            "sparsity": SPARSITY,
            "precision": str(jax.config.values["jax_default_matmul_precision"]),
            "device": jax.devices()[0].device_kind,
        },
        seconds=seconds,
        notes=[
            f"{scale.atoms} atoms in {scale.d} dimensions, {scale.active} active on average; as"
            " many features as atoms. Intervals over seeds.",
            f"found: atoms whose feature has a cosine above {FOUND}. tree: children occur only with"
            " their parent, frequencies fall as 1 / rank.",
        ],
    )


def _cells(found: Mapping[str, Interval]) -> dict[str, float]:
    cells: dict[str, float] = {}
    for key, number in found.items():
        cells[key] = number.value
        if np.isfinite(number.low):
            cells |= {f"{key} low": number.low, f"{key} high": number.high}
    return cells
