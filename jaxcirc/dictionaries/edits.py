r"""Editing an activation with few features: the best set, by behaviour, by labels.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.2; greedy choices are in `greedy`, whose
moves these share. May import `greedy`.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .greedy import NONE, Activations, Directions, Edit, Features


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
