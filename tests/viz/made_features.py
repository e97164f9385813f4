"""Made-up features with their text, for tests and for looking at pages."""

from dataclasses import replace

import numpy as np

from jaxcirc.experiments.dictionaries import Example, Feature, FeaturePage

WORDS = ("the", " days", " Monday", " of", " <b>", "\n", " and", " week", " </script>", " 7")


def features_found(n: int = 120, note: str = "days of the week", **facts) -> FeaturePage:
    """A page of n features; the second is dead, the third has a note."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, len(WORDS), (12, 20))
    features = tuple(_feature(i, rng, note if i == 2 else "") for i in range(n))
    features = tuple(replace(f, by="n-gram rules", score=0.9) if f.note else f for f in features)
    known = {"model": "smollm2-135m", "tokens": 130_000}
    return FeaturePage("resid_post.12", tokens, dict(enumerate(WORDS)), features, known | facts)


def _feature(i: int, rng, note: str) -> Feature:
    logits = tuple((WORDS[(i + k) % len(WORDS)], 3.0 - k) for k in range(4))
    if i == 1:
        return Feature(i, 0.0, 0.0, (), logits, logits, (0,) * 20, note)
    largest = float(rng.gamma(3, 2)) + 1
    groups = []
    for name, size in (("Top activations", 3), ("Quantile 50–100 %", 2)):
        examples = [_example(rng, largest * 0.9**k) for k in range(size)]
        groups.append((name, tuple(examples)))
    counts = tuple(rng.integers(0, 50, 20).tolist())
    return Feature(
        i, float(rng.beta(1, 60)), largest, tuple(groups), logits, logits[::-1], counts, note
    )


def _example(rng, peak: float) -> Example:
    start, length = int(rng.integers(0, 6)), int(rng.integers(6, 14))
    values = np.where(rng.random(length) < 0.2, rng.random(length) * peak, 0).astype(np.float32)
    at = int(rng.integers(0, length))
    values[at] = peak
    return Example(int(rng.integers(0, 12)), start, at, values)
