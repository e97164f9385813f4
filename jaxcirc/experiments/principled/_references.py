"""What edits by a dictionary stand beside: neurons, principal and random directions, a learned
subspace.

Chaudhary & Geiger 2024 (arXiv 2409.04478) found dictionaries to struggle against neurons, and none
to approach distributed alignment search (Geiger et al. 2023, arXiv 2303.02536); Korznikov et al.
2026 (arXiv 2602.14111) found random directions to edit as well as learned ones. All belong in the
plane. May import `dictionaries`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ...dictionaries import PCA, pca, random_directions
from ._bench import Bench, Values
from ._control import surprise
from ._subjects import Subject, coded

MOST = 128
"""Principal directions, at most."""

RANDOM = "random directions"
ACTIVE = 64
"""Of random directions, at most."""


def neurons(values: Values) -> Subject:
    """Every coordinate a feature, around the mean."""
    own = tuple(PCA(x.mean(axis=0), jnp.eye(x.shape[1])) for x in values)
    return Subject("neurons", "", 0, own)


def principal(values: Values) -> Subject:
    """Principal directions, as features with signs."""
    return Subject("PCA", "", 0, tuple(pca(x, min(MOST, *x.shape)) for x in values))


def undirected(subject: Subject, values: Values) -> Subject:
    """As many random directions, as many of them active, coded by pursuit."""
    own, key = [], jax.random.key(0)
    for dictionary, x in zip(subject.dictionaries, values, strict=True):
        (codes,) = coded(dictionary, x)
        k = int(np.clip(round(float((codes != 0).sum(axis=1).mean())), 1, ACTIVE))
        own.append(random_directions(key, x.shape[1], dictionary.d_dict, k, x.mean(axis=0)))
    return Subject(RANDOM, "", 0, tuple(own))


def aligned(
    bench: Bench, attribute: str, size: int, steps: int, learning_rate: float = 1e-3
) -> list[Float[Array, "d k"]]:
    """A subspace for every component whose interchange makes the model choose what it does with the
    whole counterfactual patched in: DAS, begun at the principal directions of what differs.

    Every other prompt is learned from; of all steps, the start among them, the one is kept at which
    the rest surprise least.

    - `bench`: prompts to learn from, apart from those that are judged.
    """
    target = bench.target(attribute)
    gaps = [y - x for x, y in zip(bench.values, target.values, strict=True)]
    raw: Any = [_spanning(gap, size) for gap in gaps]
    truth, groups = jnp.asarray(target.truth), jnp.asarray(bench.source.groups)

    def losses(raw: Sequence[Array]) -> tuple[Array, Array]:
        edited = moved(bench.values, gaps, [jnp.linalg.qr(r)[0] for r in raw])
        logits = bench.ends.logits(bench.narrow, bench.components, edited)
        each = surprise(logits, groups, truth)
        return each[::2].mean(), each[1::2].mean()

    adam, slope = optax.adam(learning_rate), jax.value_and_grad(losses, has_aux=True)
    state, best, least = adam.init(raw), raw, np.inf
    for _ in range(steps + 1):
        (_, rest), slopes = slope(raw)
        if float(rest) < least:
            best, least = raw, float(rest)
        update, state = adam.update(slopes, state)
        raw = optax.apply_updates(raw, update)
    return [jnp.linalg.qr(r)[0] for r in best]


def _spanning(gap: Float[Array, "example d"], size: int) -> Float[Array, "d k"]:
    rows = np.linalg.svd(np.asarray(gap), full_matrices=False)[2][:size]
    return jnp.asarray(rows.T)


def moved(
    values: Values, gaps: Values, bases: Sequence[Float[Array, "d k"]]
) -> list[Float[Array, "example d"]]:
    """Activations with their part in a subspace taken from the counterfactual."""
    return [x + (gap @ basis) @ basis.T for x, gap, basis in zip(values, gaps, bases, strict=True)]
