"""Causal models of small tasks, and the parts of a transformer that their variables live in.

Interchange intervention training makes a transformer whose parts play the variables' roles (Geiger
et al. 2022, arXiv 2112.00826; strict as in Gupta et al. 2024, arXiv 2407.14494, section 3). A
causal model is a function `solve(tokens, tap)`, which passes every variable through `tap(name,
value)`, as a model of ours passes its activations through sites. May import `taps`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .._types import Tokens
from ..taps import Node

Tap = Callable[[str, Array], Array]
Answers = Int[Array, "batch"]

BOS = 0
INPUT = Node("embed", 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Causal:
    """A task with its causal model, and where the variables live.

    - `draw(key, n)`: Int[batch pos], prompts scored at the last position.
    - `solve(tokens, tap)`: Int[batch], the answers. `nodes`: the component of every variable.
    - `edges`: (source, reader) pairs along which the causal model passes what differs between
      prompts. `shape`: layers, heads and vocabulary. `length`: tokens of a prompt.
    """

    draw: Callable[[PRNGKeyArray, int], Tokens]
    solve: Callable[[Tokens, Tap], Answers]
    nodes: dict[str, Node]
    edges: tuple[tuple[Node, Node], ...]
    shape: dict[str, int]
    length: int
    about: str


def head(kind: str, node: Node) -> Node:
    """What a component reads: "q", "k" or "v" of a head, "mlp" of an MLP."""
    return Node(f"{kind}_in", node.layer, node.index)


def _column(x: Array, place: Array) -> Array:
    return jnp.take_along_axis(x, place[:, None], axis=1)[:, 0]


def _several(key: PRNGKeyArray, n: int, of: int, k: int) -> Array:
    """k different numbers below `of` in every row: Int[n k]."""
    return jnp.argsort(jax.random.uniform(key, (n, of)), axis=1)[:, :k]


# Induction: BOS and 8 different letters, then one of the first 7 again, or one that was not there.
# The answer is what came after it before, or BOS.

_LETTERS, _LONG = 16, 8


def _draw_induction(key: PRNGKeyArray, n: int) -> Tokens:
    order, place, fresh = jax.random.split(key, 3)
    letters = 1 + _several(order, n, _LETTERS, _LONG + 1)
    again = _column(letters, jax.random.randint(place, (n,), 0, _LONG - 1))
    last = jnp.where(jax.random.bernoulli(fresh, 0.2, (n,)), letters[:, -1], again)
    return jnp.column_stack([jnp.full(n, BOS), letters[:, :-1], last])


def _solve_induction(tokens: Tokens, tap: Tap) -> Answers:
    previous = tap("previous", jnp.roll(tokens, 1, axis=1).at[:, 0].set(BOS))
    hit = previous == tokens[:, -1:]
    found = jnp.where(hit.any(axis=1), _column(tokens, hit.argmax(axis=1)), BOS)
    return tap("follower", found)


# Greater-than: BOS, a digit, a word, a digit, a word, "=". The answer is yes or no.

_DIGITS, _WORDS = 10, 4
_YES = 1 + _DIGITS + _WORDS + 1


def _draw_greater(key: PRNGKeyArray, n: int) -> Tokens:
    digits, words = jax.random.split(key)
    d = 1 + jax.random.randint(digits, (n, 2), 0, _DIGITS)
    w = 1 + _DIGITS + jax.random.randint(words, (n, 2), 0, _WORDS)
    ends = jnp.full(n, BOS), jnp.full(n, _YES - 1)
    return jnp.column_stack([ends[0], d[:, 0], w[:, 0], d[:, 1], w[:, 1], ends[1]])


def _solve_greater(tokens: Tokens, tap: Tap) -> Answers:
    first, second = tap("first", tokens[:, 1]), tap("second", tokens[:, 3])
    larger = tap("larger", (first > second).astype(tokens.dtype))
    return _YES + 1 - larger


# Duplicate: BOS, a name, a word, another name, a word, one of both again, a word, "to". The answer
# is the other one, as in indirect object identification.

NAMES = 8
FIRST, SECOND, AGAIN = 1, 3, 5


def _draw_duplicate(key: PRNGKeyArray, n: int) -> Tokens:
    names, which, words = jax.random.split(key, 3)
    both = 1 + _several(names, n, NAMES, 2)
    again = _column(both, jax.random.randint(which, (n,), 0, 2))
    w = 1 + NAMES + jax.random.randint(words, (n, 3), 0, _WORDS)
    rows = jnp.full(n, BOS), both[:, 0], w[:, 0], both[:, 1], w[:, 1], again, w[:, 2]
    return jnp.column_stack([*rows, jnp.full(n, 1 + NAMES + _WORDS)])


def _solve_duplicate(tokens: Tokens, tap: Tap) -> Answers:
    is_second = tokens[:, AGAIN] == tokens[:, SECOND]
    duplicate = tap("duplicate", is_second.astype(tokens.dtype))
    inhibited = tap("inhibited", duplicate)
    return tap("mover", jnp.where(inhibited == 1, tokens[:, FIRST], tokens[:, SECOND]))


_PREVIOUS, _FOLLOWER = Node("z", 0, 1), Node("z", 1, 2)
_A, _B, _LARGER = Node("z", 0, 1), Node("z", 0, 3), Node("mlp_out", 1)
_DUPLICATE, _INHIBITED, _MOVER = Node("z", 0, 0), Node("z", 1, 3), Node("z", 2, 1)


def _out(layers: int) -> Node:
    return Node("final_resid", layers)


CAUSAL = {
    "duplicate": Causal(
        _draw_duplicate,
        _solve_duplicate,
        {"duplicate": _DUPLICATE, "inhibited": _INHIBITED, "mover": _MOVER},
        (
            (INPUT, head("q", _DUPLICATE)),
            (INPUT, head("k", _DUPLICATE)),
            (_DUPLICATE, head("v", _INHIBITED)),
            (_INHIBITED, head("q", _MOVER)),
            (INPUT, head("v", _MOVER)),
            (_MOVER, _out(3)),
        ),
        {"n_layers": 3, "vocab": 2 + NAMES + _WORDS},
        8,
        "of two names, the one that is not repeated",
    ),
    "greater_than": Causal(
        _draw_greater,
        _solve_greater,
        {"first": _A, "second": _B, "larger": _LARGER},
        (
            (INPUT, head("v", _A)),
            (INPUT, head("v", _B)),
            (_A, head("mlp", _LARGER)),
            (_B, head("mlp", _LARGER)),
            (_LARGER, _out(2)),
        ),
        {"n_layers": 2, "vocab": _YES + 2},
        6,
        "whether the first of two digits is larger",
    ),
    "induction": Causal(
        _draw_induction,
        _solve_induction,
        {"previous": _PREVIOUS, "follower": _FOLLOWER},
        (
            (INPUT, head("v", _PREVIOUS)),
            (_PREVIOUS, head("k", _FOLLOWER)),
            (INPUT, head("q", _FOLLOWER)),
            (INPUT, head("v", _FOLLOWER)),
            (_FOLLOWER, _out(2)),
        ),
        {"n_layers": 2, "vocab": 1 + _LETTERS},
        _LONG + 2,
        "what came after the last letter before",
    ),
}
"""By name; `checkpoints/make_zoo.py` trains a transformer for each."""

HEADS, D_MODEL, D_HEAD, D_MLP = 4, 32, 8, 64
"""Of every trained model."""
