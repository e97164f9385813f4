"""Directions learned from labels, to set beside features that need none. Imports nothing of
jaxcirc.

Ridge regression on the outputs, logistic regression and the difference of means on the labels, and
a random direction, by scikit-learn.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score

DIRECTIONS = ("ridge", "ridge on labels", "logistic", "mean difference", "random")
"""What `learn` knows."""

ALPHAS = np.logspace(-1, 5, 13)
"""Penalties among which ridge regression chooses by leaving one example out."""


def learn(
    kind: str, x: Any, outputs: Any, labels: Any, seed: int = 0
) -> Float[np.ndarray, "d_model"]:
    """A direction from labelled examples.

    - `x`: Float[example d_model], what is read. `outputs`: Float[example], the observable's value,
      on which ridge regression is fitted; `labels`: Bool[example], for the others.

    Raises `ValueError` for another kind, or labels of one class.

    >>> learn("ridge", inputs[train], outputs[train], labels[train])
    """
    x, labels = np.asarray(x, np.float64), np.asarray(labels, bool)
    if kind == "random":
        return np.random.default_rng(seed).normal(size=x.shape[1])
    if labels.all() or not labels.any():
        raise ValueError("labels of one class: learn(...) needs examples of both")
    if kind == "ridge":
        return np.asarray(RidgeCV(ALPHAS).fit(x, np.asarray(outputs, np.float64)).coef_)
    if kind == "ridge on labels":
        return np.asarray(RidgeCV(ALPHAS).fit(x, np.where(labels, 1.0, -1.0)).coef_)
    if kind == "logistic":
        return LogisticRegression(max_iter=2000).fit(x, labels).coef_[0]
    if kind == "mean difference":
        return x[labels].mean(axis=0) - x[~labels].mean(axis=0)
    raise ValueError(f"unknown kind {kind!r}: learn({DIRECTIONS[0]!r}, ...) or another of them")


def auc(readings: Any, labels: Any) -> float:
    """How often a positive example reads higher than a negative one.

    >>> auc([0.1, 0.4, 0.3], [False, True, False])
    1.0
    """
    return float(roc_auc_score(np.asarray(labels, bool), np.asarray(readings, np.float64)))
