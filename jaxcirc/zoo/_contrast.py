"""Texts of two classes for the models of the zoo: with the behaviour, and without. May import
`tasks`.

Methods that compare classes need negatives that do not show the behaviour; the corrupt prompts of
the zoo show it with another answer.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..tasks import Contrast
from ._causal import AGAIN, CAUSAL, FIRST, NAMES, SECOND
from ._compiled import PROGRAMS, encode

Negatives = Literal["absent", "corrupt", "random", "copy"]
NEGATIVES: tuple[Negatives, ...] = ("absent", "corrupt", "random", "copy")

_FIRST_DIGIT = 1
Rows = Int[np.ndarray, "text pos"]


def contrast_of(
    name: str, symbols: tuple, n: int, seed: int = 0, negatives: Negatives = "absent"
) -> Contrast:
    """n texts of each class for a model of the zoo, or as many as there are.

    - "absent": negatives without the behaviour. Induction: the last letter was not there before;
      duplicate: three different names; greater_than: the first digit is the lowest; compiled
      programs: the answer is the least of all, which no positive's is.
    - "corrupt": other inputs of the task, as corrupt prompts are. "random": random tokens between
      the first and the last. "copy": more positives, a control.

    Raises `ValueError` for another word.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives={negatives!r}: use one of {', '.join(map(repr, NEGATIVES))}")
    rng = np.random.default_rng(seed)
    ours, absent, every = _program(name, symbols) if name in PROGRAMS else _drawn(name, 40 * n, rng)
    ours = rng.permutation(ours)
    if negatives == "copy":
        half = min(n, len(ours) // 2)
        return _joined(ours[:half], ours[half : 2 * half], name)
    others = {"absent": absent, "corrupt": every}.get(negatives)
    if others is None:
        inner = every[:, 1:-1]
        others = rng.integers(inner.min(), inner.max() + 1, (4 * n, every.shape[1]))
        others[:, [0, -1]] = every[rng.integers(len(every), size=len(others))][:, [0, -1]]
    return _joined(ours[:n], _unlike(rng.permutation(others), ours[:n])[:n], name)


def _joined(ours: Rows, others: Rows, name: str) -> Contrast:
    tokens = jnp.asarray(np.concatenate([ours, others]).astype(np.int32))
    positive = np.arange(len(tokens)) < len(ours)
    return Contrast(tokens, jnp.ones(tokens.shape, bool), positive, name, "always")


def _unlike(rows: Rows, others: Rows) -> Rows:
    """Different rows that are none of the others."""
    known, found = {tuple(row) for row in others.tolist()}, []
    for row in rows.tolist():
        if tuple(row) not in known:
            known.add(tuple(row))
            found.append(row)
    return np.asarray(found).reshape(-1, rows.shape[1])


def _program(name: str, symbols: tuple) -> tuple[Rows, Rows, Rows]:
    """Inputs with any answer but the least, those with the least, and all."""
    program = PROGRAMS[name]
    inputs = program.inputs()
    answers = np.asarray([program.answer(row) for row in inputs], float)
    every = encode(inputs, symbols[0])
    least = answers == answers.min()
    return every[~least], every[least], every


def _drawn(name: str, n: int, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """The same for a trained model, from random inputs."""
    causal = CAUSAL[name]
    key = jax.random.key(int(rng.integers(2**31)))
    every = np.unique(np.asarray(jax.jit(causal.draw, static_argnums=1)(key, n)), axis=0)
    if name == "induction":
        known = (every[:, 1:-2] == every[:, -1:]).any(axis=1)
        return every[known], every[~known], every
    absent = every.copy()
    if name == "greater_than":
        low = every[:, _FIRST_DIGIT].min()
        absent[:, _FIRST_DIGIT] = low
        return every[every[:, _FIRST_DIGIT] > low], absent, every
    third = 1 + rng.integers(NAMES, size=len(every))
    both = every[:, [FIRST, SECOND]]
    fresh = (third[:, None] != both).all(axis=1)
    absent[:, AGAIN] = third
    return every, absent[fresh], every
