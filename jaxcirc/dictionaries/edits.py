r"""Editing an activation with few features of a dictionary.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.2. An edit moves a source activation
towards a target: feature j goes from its coefficient $\alpha_j$ in the source to $\beta_j$ in the
target, which adds $(\beta_j - \alpha_j) d_j$; what the dictionary leaves unexplained stays. The
greedy choice is

$$\arg\min_j \|r - \Delta_j d_j\|^2 = \arg\min_j\; \Delta_j^2 \|d_j\|^2 - 2 \Delta_j\, d_j^\top r,$$

r what is left of the way: one product of the directions with r a round, and no [batch feature d]
array. May import nothing of the package.
"""

import itertools
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


def best_edit(
    directions: Directions,
    source: Features,
    target: Features,
    gap: Activations,
    k: int,
) -> Edit:
    """The best of all sets of up to k features: the oracle that greedy choices are held against.

    Of the same kind of moves, for small dictionaries alone: every set is tried.

    >>> best_edit(d.directions, d.encode(a_s), d.encode(a_t), a_t - a_s, k=2).left
    """
    rows, delta = np.asarray(directions, np.float64), np.asarray(target, np.float64)
    delta = delta - np.asarray(source, np.float64)
    gaps = np.asarray(gap, np.float64)
    chosen, added = [], []
    for moves, way in zip(delta, gaps, strict=True):
        best: tuple[float, tuple[int, ...]] = (float(way @ way), ())
        active = np.flatnonzero(moves)
        sets = (s for n in range(1, k + 1) for s in itertools.combinations(active, n))
        for some in sets:
            left = way - moves[list(some)] @ rows[list(some)]
            best = min(best, (float(left @ left), tuple(map(int, some))))
        chosen.append((*best[1], *[NONE] * (k - len(best[1]))))
        added.append(moves[list(best[1])] @ rows[list(best[1])] if best[1] else 0 * way)
    delta_x = np.asarray(added)
    left = np.square(gaps - delta_x).sum(axis=1)
    names = jnp.asarray(chosen)
    return Edit(names, names, jnp.asarray(delta_x), jnp.asarray(left))


def behaviour_edit(
    directions: Directions,
    source: Features,
    target: Features,
    x: Activations,
    slope: Callable[[Array], Array],
    k: int,
) -> Edit:
    """The same moves chosen by what they do instead of by distance.

    - `x`: the source activation. `slope`: at edited activations, the gradient of what is to
      fall, taken anew every round; the move with the steepest descent is made.

    `left` is the squared distance from the target's reconstruction.

    >>> behaviour_edit(d.directions, f_s, f_t, a_s, lambda a: jax.grad(loss)(a), k=2).chosen
    """
    rows, moves = jnp.asarray(directions), jnp.asarray(target) - jnp.asarray(source)
    batch, now, chosen = jnp.arange(len(moves)), jnp.asarray(x), []
    for _ in range(k):
        now, moves, j = _steepest(rows, moves, now, slope(now), batch)
        chosen.append(j)
    names = jnp.stack(chosen, axis=1)
    moved = now - jnp.asarray(x)
    return Edit(names, names, moved, jnp.square(moves @ rows).sum(axis=1))


@jax.jit
def _steepest(rows, moves, now, slope, batch):
    gain = -moves * (slope @ rows.T)
    j = gain.argmax(axis=1)
    helps = jnp.take_along_axis(gain, j[:, None], 1)[:, 0] > 0
    size = jnp.where(helps, moves[batch, j], 0.0)
    now = now + size[:, None] * rows[j]
    return now, moves.at[batch, j].set(0.0), jnp.where(helps, j, NONE)


def labelled_edit(
    directions: Directions,
    source: Features,
    target: Features,
    ranks: Int[np.ndarray, "value feature"],
    old: Int[np.ndarray, "batch"],
    new: Int[np.ndarray, "batch"],
    k: int,
) -> Edit:
    """The interpretation-aware edit: take away the k features that best tell the old value, of
    those active in the source; add the k that best tell the new one, of those active in the target.

    - `ranks`: for every value of the attribute, features by falling F1 for it.

    `chosen` holds 2 k features: its budget is 2 k. `left` is the distance from the target's
    reconstruction.

    >>> labelled_edit(d.directions, d.encode(a_s), d.encode(a_t), order, old, new, k=1).delta
    """
    f, g = np.asarray(source), np.asarray(target)
    away, added = _first_active(f, ranks[old], k), _first_active(g, ranks[new], k)
    rows = np.asarray(directions)
    delta = _sum_of(g, added, rows) - _sum_of(f, away, rows)
    chosen = jnp.asarray(np.concatenate([away, added], axis=1))
    left = jnp.square(jnp.asarray((g - f) @ rows - delta)).sum(axis=1)
    return Edit(chosen, jnp.asarray(away), jnp.asarray(delta), left)


def _first_active(
    features: np.ndarray, order: Int[np.ndarray, "batch feature"], k: int
) -> Int[np.ndarray, "batch k"]:
    """The first k of an order that are active, `NONE` where there are fewer."""
    on = np.take_along_axis(features, order, axis=1) != 0
    first = np.argsort(~on, axis=1, kind="stable")[:, :k]
    names = np.take_along_axis(order, first, axis=1)
    return np.where(np.take_along_axis(on, first, axis=1), names, NONE)


def _sum_of(features: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    sizes = np.where(chosen == NONE, 0, np.take_along_axis(features, np.maximum(chosen, 0), 1))
    return np.einsum("bk,bkd->bd", sizes, rows[np.maximum(chosen, 0)])


def removed_weight(
    directions: Directions, source: Features, edit: Edit
) -> Float[np.ndarray, "batch"]:
    r"""The share of the source's reconstruction that an edit takes away.

    $$\sum_{j \in R} \frac{(\alpha_j d_j)^\top (\hat a - b)}{\|\hat a - b\|^2}$$

    over the features moved that were active in the source; over all active ones it is 1.

    >>> removed_weight(d.directions, d.encode(a_s), greedy_edit(...)).mean()
    """
    f, rows = np.asarray(source, np.float64), np.asarray(directions, np.float64)
    whole = f @ rows
    gone = _sum_of(f, np.asarray(edit.removed), rows)
    size = np.maximum(np.square(whole).sum(axis=1), 1e-20)
    return (gone * whole).sum(axis=1) / size
