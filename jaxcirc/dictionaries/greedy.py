r"""Greedy edits: the few features that bring an activation nearest to a target, one at a time.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.2. An edit moves a source activation
towards a target: feature j goes from its coefficient $\alpha_j$ in the source to $\beta_j$ in the
target, which adds $(\beta_j - \alpha_j) d_j$; what the dictionary leaves unexplained stays. The
greedy choice is

$$\arg\min_j \|r - \Delta_j d_j\|^2 = \arg\min_j\; \Delta_j^2 \|d_j\|^2 - 2 \Delta_j\, d_j^\top r,$$

r what is left of the way: one product of the directions with r a round, and no [batch feature d]
array. May import nothing of the package.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

Features = Float[Array, "batch feature"] | Float[np.ndarray, "batch feature"]
Activations = Float[Array, "batch d"] | Float[np.ndarray, "batch d"]
Directions = Float[Array, "feature d"] | Float[np.ndarray, "feature d"]
"""Numpy or JAX."""

NONE = -1
"""A round in which no feature brought the activation any nearer."""

SPARSE = 8
"""Where at most a share of 1 / SPARSE of features differ, the others are not looked at."""

ROWS = 32
"""Prompts whose coefficients are compared at once."""


class Edit(eqx.Module):
    """What was changed.

    - `chosen`: features in the order of their choice, `NONE` where none helped. `removed`: those
      whose source coefficient was taken away. `delta`: what is added to the activation. `left`:
      the squared distance from the target that stays.
    """

    chosen: Int[Array, "batch round"]
    removed: Int[Array, "batch removal"]
    delta: Float[Array, "batch d"]
    left: Float[Array, "batch"]


def greedy_edit(
    directions: Directions,
    source: Features,
    target: Features,
    gap: Activations,
    k: int,
) -> Edit:
    """Move up to k features from their source to their target coefficients, the best one each time.

    - `source`, `target`: coefficients. `gap`: target activation minus source activation, which
      holds what the dictionary leaves unexplained too.

    A round in which no move shortens what is left changes nothing. Features whose coefficients
    agree are never moved; where few differ, only those are looked at.

    >>> greedy_edit(d.directions, d.encode(a_s), d.encode(a_t), a_t - a_s, k=2).delta
    """
    rows = jnp.asarray(directions)
    if any(isinstance(x, Tracer) for x in (source, target, gap, rows)):
        return _dense(rows, jnp.asarray(target) - jnp.asarray(source), jnp.asarray(gap), k)
    packed = _packed(np.asarray(source), np.asarray(target))
    if packed is None:
        return _dense(rows, jnp.asarray(target) - jnp.asarray(source), jnp.asarray(gap), k)
    return _sparse(rows, *packed, jnp.asarray(gap), k)


def _packed(
    source: Float[np.ndarray, "batch feature"], target: Float[np.ndarray, "batch feature"]
) -> tuple[Array, Array] | None:
    """The features that differ and by how much, side by side; None where they are many. A few rows
    at a time, so that nothing of the size of all coefficients is made."""
    n, features = source.shape
    found = [_differing(source[i : i + ROWS], target[i : i + ROWS]) for i in range(0, n, ROWS)]
    most = max((int(counts.max(initial=0)) for counts, _, _ in found), default=0)
    width = max(8, 1 << max(most - 1, 0).bit_length())  # few shapes, so that few are compiled
    if SPARSE * width > features:
        return None
    where, size = np.zeros((n, width), np.int32), np.zeros((n, width), source.dtype)
    for i, (counts, columns, moves) in enumerate(found):
        row = i * ROWS + np.repeat(np.arange(len(counts)), counts)
        slot = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        where[row, slot], size[row, slot] = columns, moves
    return jnp.asarray(where), jnp.asarray(size)


def _differing(
    source: np.ndarray, target: np.ndarray
) -> tuple[Int[np.ndarray, "row"], np.ndarray, np.ndarray]:
    """How many features differ in every row, which, and by how much."""
    row, column = np.divmod(np.flatnonzero(target != source), source.shape[1])
    moves = target[row, column] - source[row, column]
    return np.bincount(row, minlength=len(source)), column, moves


@partial(jax.jit, static_argnames=("k",))
def _sparse(
    directions: Float[Array, "feature d"],
    where: Int[Array, "batch slot"],
    delta: Float[Array, "batch slot"],
    gap: Float[Array, "batch d"],
    k: int,
) -> Edit:
    """The rounds from the rows of the features that differ, prompt by prompt."""

    def one(args):
        at, moves, left = args
        rows = directions[at]
        sizes = jnp.square(rows).sum(axis=1)
        found = _rounds(lambda r: rows @ r, lambda j: rows[j], moves[None], sizes, left[None], k)
        slots = found.chosen[0]
        names = jnp.where(slots == NONE, NONE, at[slots])
        return names, found.delta[0], found.left[0]

    names, moved, left = lax.map(one, (where, delta, gap))
    return Edit(names, names, moved, left)


@partial(jax.jit, static_argnames=("k",))
def _dense(
    directions: Float[Array, "feature d"],
    delta: Float[Array, "batch feature"],
    gap: Float[Array, "batch d"],
    k: int,
) -> Edit:
    sizes = jnp.square(directions).sum(axis=1)
    return _rounds(
        lambda r: (directions @ r) if r.ndim == 1 else r @ directions.T,
        lambda j: directions[j],
        delta,
        sizes,
        gap,
        k,
    )


def _rounds(
    along: Callable[[Array], Array],
    row: Callable[[Array], Array],
    delta: Float[Array, "batch feature"],
    sizes: Float[Array, "feature"],
    gap: Float[Array, "batch d"],
    k: int,
) -> Edit:
    """k rounds; `along` is the product of all directions with what is left."""
    one = len(delta) == 1
    batch = jnp.arange(len(delta))

    def take(carry, _):
        left, moves = carry
        product = along(left[0])[None] if one else along(left)
        gain = moves * (2 * product - moves * sizes)
        j = gain.argmax(axis=1)
        helps = jnp.take_along_axis(gain, j[:, None], 1)[:, 0] > 0
        size = jnp.where(helps, moves[batch, j], 0.0)
        left = left - size[:, None] * row(j)
        return (left, moves.at[batch, j].set(0.0)), jnp.where(helps, j, NONE)

    (left, _), chosen = lax.scan(take, (gap, delta), length=k)
    return Edit(chosen.T, chosen.T, gap - left, jnp.square(left).sum(axis=1))
