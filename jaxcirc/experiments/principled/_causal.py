"""Test 3, what features do: whether those that mean something carry what the model computes.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4.3: features below a threshold of F1 are
taken out (sufficiency of the interpretable ones) or those above it (their necessity), and in
counterfactuals they alone are exchanged ("faithful") or all but they ("complete"). May import
`dictionaries`, `tasks`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...tasks import interval
from .._result import Row
from ._approximation import Approximation, cells
from ._bench import Bench, Others, Target, Values
from ._meaning import Meaning
from ._subjects import Subject, coded

THRESHOLDS = (0.2, 0.4, 0.6, 0.8)
"""Of F1."""


def without(
    bench: Bench, subject: Subject, gone: Sequence[Bool[np.ndarray, "feature"]]
) -> list[Float[Array, "example d"]]:
    """The activations with what some features add taken away."""
    found = []
    for dictionary, x, some in zip(subject.dictionaries, bench.values, gone, strict=True):
        (f,) = coded(dictionary, x)
        found.append(x - (f * jnp.asarray(some)) @ dictionary.directions)
    return found


def exchanged(
    bench: Bench,
    subject: Subject,
    others: Values,
    some: Sequence[Bool[np.ndarray, "feature"]],
) -> list[Float[Array, "example d"]]:
    """The activations with some features at their counterfactual coefficients."""
    found = []
    for dictionary, x, y, chosen in zip(
        subject.dictionaries, bench.values, others, some, strict=True
    ):
        f, g = coded(dictionary, x, y)
        found.append(x + ((g - f) * jnp.asarray(chosen)) @ dictionary.directions)
    return found


def causal_rows(
    bench: Bench, subject: Subject, meanings: Sequence[Meaning], attribute: str, means: Others
) -> list[Row]:
    """What interpretable features do, threshold by threshold.

    - `attribute`: the one in which counterfactuals differ. `means`: what mean ablation sets the
      components to, as in Test 1.
    """
    target, f1 = bench.target(attribute), [m.assigned[1] for m in meanings]
    clean, mean = (bench.difference(x) for x in (bench.clean, bench.logits(bench.means(means))))
    rows: list[Row] = []
    for threshold in THRESHOLDS:
        above = [x >= threshold for x in f1]
        kept, out = (
            bench.difference(bench.logits(without(bench, subject, side)))
            for side in ([~x for x in above], above)
        )
        test = Approximation(clean, mean, kept, out, bench.clusters)
        rows.append(
            {
                "section": "causal",
                "cross-section": bench.section.name,
                "dictionary": subject.kind,
                "threshold": threshold,
                "features": float(np.mean([x.mean() for x in above])),
                **cells(test.shares()),
                "attribute": attribute,
                **_swaps(bench, subject, target, above),
                "no intervention": target.none,
            }
        )
    return rows


def _swaps(bench: Bench, subject: Subject, target: Target, above) -> dict[str, float]:
    """How often the counterfactual answer comes when the interpretable features alone are
    exchanged, and how often the answer stays when all but they are."""
    before = bench.choice(bench.clean)
    some, rest = (
        bench.choice(bench.logits(exchanged(bench, subject, target.values, side)))
        for side in (above, [~x for x in above])
    )
    hits = {"faithful": some == target.truth, "complete": rest == before}
    return cells({name: interval(hit, bench.clusters) for name, hit in hits.items()})
