"""The compiled programs of the zoo: what each computes, in plain Python, and prompts for it.

The answer is what stands at the last position. May import `tasks`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..tasks import Prompts

BOS = "BOS"
PATIENCE = 2000
"""Pairs in a row that may have been drawn before, until `pairs` gives up."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of a sequence: `answer(symbols)` is its output at the last position.

    `distinct`: no symbol occurs twice. `numerical`: the output is a number, which is logit 0.
    """

    symbols: tuple[Any, ...]
    length: int
    answer: Callable[[tuple], Any]
    about: str
    distinct: bool = False
    numerical: bool = False

    def inputs(self, length: int | None = None) -> list[tuple]:
        """Every input of a length (default: the longest that the program takes)."""
        length = self.length if length is None else length
        if not 1 <= length <= self.length:
            raise ValueError(f"length={length}: this program takes 1..{self.length} symbols")
        if self.distinct:
            return list(itertools.permutations(self.symbols, length))
        return list(itertools.product(self.symbols, repeat=length))


def _balanced(x: Sequence[str]) -> bool:
    depths = list(itertools.accumulate(1 if symbol == "(" else -1 for symbol in x))
    return min(depths) >= 0 and depths[-1] == 0


def _by_frequency(x: tuple) -> list:
    return sorted(x, key=lambda symbol: -x.count(symbol))


PROGRAMS = {
    "count_less_freq": Program(
        ("a", "b", "c"),
        5,
        lambda x: sum(x.count(symbol) <= 2 for symbol in x),
        "how many symbols occur at most twice",
    ),
    "detect_pattern": Program(
        ("a", "b", "c"), 5, lambda x: x[-2:] == ("a", "b"), "whether a b stands here"
    ),
    "hist": Program(("a", "b", "c"), 5, lambda x: x.count(x[-1]), "how often this symbol occurs"),
    "pair_balance": Program(
        ("(", ")"),
        6,
        lambda x: (x.count("(") - x.count(")")) / len(x),
        "the share of opening minus that of closing brackets so far",
        numerical=True,
    ),
    "reverse": Program((1, 2, 3), 5, lambda x: x[0], "the sequence backwards"),
    "shuffle_dyck": Program(("(", ")"), 6, _balanced, "whether the brackets balance"),
    "sort_freq": Program(
        (1, 2, 3), 5, lambda x: _by_frequency(x)[-1], "symbols by how often they occur"
    ),
    "sort_unique": Program((1, 2, 3, 4, 5, 6), 5, max, "different numbers sorted", distinct=True),
    "xproportion": Program(
        ("w", "x", "y", "z"),
        5,
        lambda x: x.count("x") / len(x),
        "the share of x so far",
        numerical=True,
    ),
}
"""By name; `checkpoints/make_zoo.py` compiles the same functions from RASP."""


def encode(inputs: Sequence[tuple], tokens: Sequence[Any]) -> np.ndarray:
    """Token ids of inputs, BOS in front: Int[batch pos]. `tokens`: symbols in the order of ids."""
    ids = {symbol: i for i, symbol in enumerate(tokens)}
    return np.asarray([[ids[BOS], *(ids[symbol] for symbol in row)] for row in inputs], np.int32)


def pairs(
    program: Program,
    tokens: Sequence[Any],
    outputs: Sequence[Any],
    n: int,
    seed: int,
    name: str,
    length: int | None = None,
) -> Prompts:
    """n different pairs of inputs with different answers, drawn evenly over the answers.

    The corrupt prompt is any input with another answer, and the wrong token is that answer. A
    numerical output is logit 0, and logit 1 is always 0: the answer is 0 where the number is larger
    than the corrupt prompt's, else 1, so the logit difference is the number, or minus it.

    - `tokens`, `outputs`: symbols in the order of their ids. `length`: of the inputs, without BOS
      (default: the longest).

    Raises `ValueError` for n < 1, more pairs than there are, or a length that does not fit.
    """
    if n < 1:
        raise ValueError(f"n={n}: {name} needs at least one pair, n=64")
    clean, corrupt = zip(*_draw(program, n, np.random.default_rng(seed), name, length), strict=True)
    right, wrong = ([program.answer(row) for row in rows] for rows in (clean, corrupt))
    if program.numerical:
        answers = np.asarray([a < b for a, b in zip(right, wrong, strict=True)], np.int32)
        wrongs = 1 - answers
    else:
        answers = np.asarray([outputs.index(a) for a in right], np.int32)
        wrongs = np.asarray([outputs.index(b) for b in wrong], np.int32)
    return prompts_of(encode(clean, tokens), encode(corrupt, tokens), answers, wrongs, name)


def prompts_of(clean, corrupt, answers, wrongs, name: str, bos: str = "always") -> Prompts:
    """`Prompts` of equally long rows with one answer and one wrong each."""
    one, end = jnp.ones((len(clean), 1)), np.zeros(np.shape(clean), bool)
    end[:, -1] = True
    return Prompts(
        clean=jnp.asarray(clean),
        corrupt=jnp.asarray(corrupt),
        mask=jnp.ones(np.shape(clean), bool),
        answers=jnp.asarray(answers)[:, None],
        answer_weights=one,
        wrongs=jnp.asarray(wrongs)[:, None],
        wrong_weights=one,
        spans={"end": jnp.asarray(end)},
        templates=jnp.arange(len(clean)),
        name=name,
        bos=bos,
    )


def _draw(program: Program, n: int, rng: np.random.Generator, name: str, length) -> list:
    classes: dict[Any, list[tuple]] = {}
    for row in program.inputs(length):
        classes.setdefault(program.answer(row), []).append(row)
    groups, found, idle = list(classes.values()), {}, 0
    while len(found) < n and idle < PATIENCE:
        both = (groups[i] for i in rng.choice(len(groups), 2, replace=False))
        pair = tuple(group[rng.integers(len(group))] for group in both)
        idle = idle + 1 if pair in found else 0
        found[pair] = None
    if len(found) < n:
        raise ValueError(f"{name} has about {len(found)} pairs, not {n}: n={len(found)}")
    return list(found)
