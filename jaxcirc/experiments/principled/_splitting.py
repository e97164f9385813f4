r"""Over-splitting where the truth is known: two clusters, and a rival that needs no training.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), appendix A.10: $x \sim \tfrac12 N(\mu, I) + \tfrac12
N(-\mu, I)$, 100 dimensions, $\|\mu\| = 2$. The ideal dictionary has the two directions $\pm\mu /
\|\mu\|$, coded by $\mathrm{relu}(\pm k\, \mu \cdot x - \gamma)$; the rival's encoders are a
thousand scaled draws of x itself. Below a penalty of about 6 the rival's loss $\|x - \hat x\|^2 +
\lambda \|f\|_1$ is the smaller one: many features of a few examples each are worth more than two
that mean something. No jaxcirc.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

DIMENSIONS, LENGTH = 100, 2.0
GAMMA = 2.35
"""The rival's bias."""


@dataclasses.dataclass(frozen=True)
class Rivals:
    """Losses at a penalty, on one sample, with the standard error of their difference.

    - `fires`: the share of examples on which one of the ideal features is active.
    """

    penalty: float
    ideal: float
    rival: float
    error: float
    fires: float


def sample(rng: np.random.Generator, n: int) -> Float[np.ndarray, "example d"]:
    """Draws of x, $\\mu$ along the first axis."""
    x = rng.normal(size=(n, DIMENSIONS))
    x[:, 0] += LENGTH * rng.choice((-1.0, 1.0), n)
    return x


def compare(
    penalties: Sequence[float], n: int = 4000, features: int = 1000, seed: int = 0
) -> list[Rivals]:
    """Both at their best at each penalty, on the same sample.

    >>> compare((2.0,))[0].rival
    """
    rng = np.random.default_rng(seed)
    x, encoders = sample(rng, n), sample(rng, features)
    rivals = _of_rival(x, encoders, penalties)
    return [_compared(x, p, r) for p, r in zip(penalties, rivals, strict=True)]


def _compared(x, penalty: float, rival: np.ndarray) -> Rivals:
    ideal, fires = ideal_losses(x, penalty)
    apart = ideal - rival
    error = float(apart.std(ddof=1) / np.sqrt(len(x)))
    return Rivals(penalty, float(ideal.mean()), float(rival.mean()), error, fires)


def ideal_losses(
    x: Float[np.ndarray, "example d"], penalty: float, grid: tuple[int, int] = (100, 20)
) -> tuple[Float[np.ndarray, "example"], float]:
    """The two-feature dictionary at the best of a grid of biases and encoder lengths."""
    t, rest = x[:, 0], np.square(x[:, 1:]).sum(axis=1)
    best: tuple[float, float, float] = (np.inf, 0.0, 0.0)
    for k in np.linspace(0, 2, grid[1]):
        for gamma in np.linspace(0, 5, grid[0]):
            best = min(best, (float(_along(t, k, gamma, penalty).mean()), k, gamma))
    _, k, gamma = best
    fires = float((k * LENGTH * np.abs(t) > gamma).mean())
    return rest + _along(t, k, gamma, penalty), fires


def _along(t: np.ndarray, k: float, gamma: float, penalty: float) -> np.ndarray:
    """What the two features leave and cost along the first axis, where all of it happens."""
    size = np.maximum(k * LENGTH * np.abs(t) - gamma, 0)
    return np.square(np.abs(t) - size) + penalty * size


def _of_rival(x, encoders, penalties: Sequence[float], scales: int = 21) -> list[np.ndarray]:
    """Losses of the rival at the best of its scales, for every penalty."""
    rows = encoders / np.linalg.norm(encoders, axis=1, keepdims=True)
    along = x @ encoders.T
    best = [(np.inf, np.zeros(0))] * len(penalties)
    for scale in np.linspace(0, 0.1, scales):
        f = np.maximum(scale * along - GAMMA, 0)
        error = np.square(x - f @ rows).sum(axis=1)
        for i, penalty in enumerate(penalties):
            loss = error + penalty * f.sum(axis=1)
            best[i] = min(best[i], (float(loss.mean()), loss), key=lambda pair: pair[0])
    return [loss for _, loss in best]
