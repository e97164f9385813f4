"""Which effects count: the two-standard-deviation rule, one for heavy tails, and false discoveries.

Zhang & Nanda 2023 (arXiv 2309.16042), section 2.3, whose threshold is 2 and never varied; Benjamini
& Hochberg 1995. May import `tasks`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from ._effects import Effects

Detector = Literal["sd", "mad", "fdr"]
_MAD = 1.4826  # makes the median absolute deviation of a normal distribution its standard deviation


@dataclasses.dataclass(frozen=True)
class Detected:
    """Cells whose mean effect stands out.

    - `found`: Bool[layer ...], and `score`, what the rule compared: distance from the other cells
      in deviations ("sd", "mad"), or the p-value ("fdr").
    - `mean`: Float[layer ...], the mean importance: negative cells are found too.
    """

    found: Bool[np.ndarray, "layer ..."]
    score: Float[np.ndarray, "layer ..."]
    mean: Float[np.ndarray, "layer ..."]

    def cells(self, sign: Literal["any", "positive", "negative"] = "any") -> list[tuple[int, ...]]:
        """The cells found, largest effect first; those that help ("positive") or hinder alone.

        >>> detect(effects).cells("negative")
        [(24, 4), (29, 0)]
        """
        kept = self.found
        if sign != "any":
            kept = kept & (self.mean > 0 if sign == "positive" else self.mean < 0)
        cells = [tuple(map(int, cell)) for cell in np.argwhere(kept)]
        return sorted(cells, key=lambda cell: -abs(self.mean[cell]))


def detect(
    effects: Effects, rule: Detector = "sd", threshold: float | None = None, floor: float = 0.0
) -> Detected:
    r"""Cells of a sweep whose effect stands out from the others, or from chance.

    - `rule`: "sd" asks for $|x - \bar x| \ge t\,\mathrm{sd}$ over cells (the paper's, t = 2); "mad"
      for $|x - \mathrm{median}| \ge t \cdot 1.4826\,\mathrm{mad}$, which a few large effects do
      not widen (t = 3.5); "fdr" tests every cell against zero by its spread over prompts, clustered
      by template, and keeps the share of false discoveries below t = 0.05 (Benjamini-Hochberg).
    - `floor`: the least size of a mean effect, in the metric's units.

    Returns `Detected`. Raises `ValueError` for another word, or for "fdr" with a single template.

    >>> detect(jaxcirc.patching.sweep(model, prompts)).cells()
    """
    mean = np.asarray(effects.importance, np.float64).mean(axis=0)
    defaults = {"sd": 2.0, "mad": 3.5, "fdr": 0.05}
    if rule not in defaults:
        raise ValueError(f"rule={rule!r}: use one of {', '.join(map(repr, defaults))}")
    threshold = defaults[rule] if threshold is None else threshold
    if rule == "fdr":
        score = _p_values(np.asarray(effects.importance, np.float64), np.asarray(effects.templates))
        found = _benjamini_hochberg(score.ravel(), threshold).reshape(score.shape)
    else:
        middle = mean.mean() if rule == "sd" else np.median(mean)
        width = mean.std() if rule == "sd" else _MAD * np.median(np.abs(mean - middle))
        score = np.abs(mean - middle) / max(width, np.finfo(float).tiny)
        found = (score >= threshold) & (mean != middle)
    return Detected(found & (np.abs(mean) >= floor), score, mean)


def _p_values(
    values: Float[np.ndarray, "example ..."], templates: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "..."]:
    """Two-sided, of the mean being zero: a t test on sums over templates."""
    clusters = np.unique(templates, return_inverse=True)[1]
    groups = clusters.max() + 1
    if groups < 2:
        raise ValueError('rule="fdr" needs prompts of at least two templates: use rule="mad"')
    sums = np.zeros((groups, *values.shape[1:]))
    np.add.at(sums, clusters, values - values.mean(axis=0))
    error = np.sqrt((sums**2).sum(axis=0) * groups / (groups - 1)) / len(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(values.mean(axis=0)) / error
    return np.where(values.any(axis=0), 2 * special.stdtr(groups - 1, -t), 1.0)


def _benjamini_hochberg(p: Float[np.ndarray, "cell"], level: float) -> Bool[np.ndarray, "cell"]:
    order = np.sort(p)
    passed = order <= level * np.arange(1, len(p) + 1) / len(p)
    return p <= (order[passed].max() if passed.any() else -1.0)


def jaccard(left: Sequence, right: Sequence) -> float:
    """How far two sets of cells agree: shared over all; 1 if both are empty.

    >>> jaccard(detect(by_probability).cells(), detect(by_logits).cells())
    """
    a, b = set(left), set(right)
    return len(a & b) / len(a | b) if a | b else 1.0
