"""Are negatives without the behaviour, and do codes tell on which text a head matters?

What O'Neill & Bui 2024 (arXiv 2405.12522) take for granted, measured. May import `patching`,
`tasks`.
"""

import jax
import numpy as np
from jaxtyping import Float

from ... import patching, tasks
from ...circuits.discrete import DiscreteScores
from ...taps import Node, run
from ...tasks import Contrast, Prompts, accuracy, interval_of
from .._claim import Claim


def absent_claim(model, task: str, prompts: Prompts) -> Claim:
    """Is the behaviour absent from the negatives? Not to be said (NaN) of a model that is no better
    than chance on the positives."""
    right = {end: _accuracy(model, prompts, end) for end in ("clean", "corrupt")}
    chance, clusters = chance_of(prompts), np.asarray(prompts.templates)

    def share(clean, corrupt, chance) -> float:
        return float((clean - corrupt) / (clean - chance)) if clean > chance else float("nan")

    return Claim(
        f"{task}: accuracy falls to chance ({chance.mean():.2f}) on the negatives"
        f" ({right['clean'].mean():.2f}, {right['corrupt'].mean():.2f})",
        "share of the way from the positives' accuracy to chance",
        interval_of(share, [right["clean"], right["corrupt"], chance], [clusters] * 3),
        floor=0.8,
    )


def chance_of(prompts: Prompts) -> Float[np.ndarray, "example"]:
    """How often the best answer scores above the best wrong where nothing tells them apart: the
    share of answers among both.

    >>> chance_of(ioi(tokenizer)).mean()
    0.5
    """
    right, wrong = (
        (np.asarray(weights) > 0).sum(axis=1)
        for weights in (prompts.answer_weights, prompts.wrong_weights)
    )
    return right / (right + wrong)


def _accuracy(model, prompts: Prompts, end: str) -> Float[np.ndarray, "example"]:
    """Whether the positives' answers win, on their own texts or on the negatives."""
    found = []
    with jax.default_matmul_precision("highest"):
        for rows in prompts.batches(32):
            some = prompts.take(rows).arrays()
            logits, _ = run(model, getattr(some, end), mask=some.mask, logits_at=-1)
            found.append(np.asarray(accuracy(logits, some)))
    return np.concatenate(found)[: len(prompts)]


def carried_claims(model, task, texts: Contrast, scores: DiscreteScores, prompts: Prompts, sizes):
    """Does a code that only positives have tell on which text its head matters?"""
    if not sizes.effects:
        return []
    carried, rows = carried_by(scores, texts, prompts, sizes.judged)
    best = np.argsort(-scores.importance, kind="stable")[: sizes.effects]
    n_heads = model.config.n_heads
    nodes = [Node("z", int(i) // n_heads, int(i) % n_heads) for i in best]
    some = prompts.take(rows)
    effects = np.abs(np.asarray(patching.patch(model, some, nodes).raw))
    return [
        Claim(
            f"{task}: heads matter more on texts whose code no negative has",
            f"correlation within {len(nodes)} heads over texts, with the size of exact effects",
            within_correlation(carried[:, best], effects, np.asarray(some.templates)),
            floor=0.2,
        )
    ]


def carried_by(
    scores: DiscreteScores, texts: Contrast, prompts: Prompts, n: int
) -> tuple[Float[np.ndarray, "prompt head"], list[int]]:
    """The share of dictionaries in which each clean prompt's code occurs on no negative, for the
    first n prompts; and which those are."""
    rows = list(range(min(n, len(prompts))))
    placed = {row: i for i, row in enumerate(texts.rows()) if texts.positive[i]}
    ids = Contrast.of(prompts).rows()
    at = [placed[ids[row]] for row in rows]
    return scores.carries[:, at].any(axis=2).mean(axis=0), rows


def within_correlation(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> tasks.Interval:
    """Correlation over examples of two tables [example head], every head about its own mean.

    >>> within_correlation(carried, effects, templates).value
    """

    def statistic(x, y, xy, xx, yy) -> float:
        shared = (xy - x * y).sum()
        return float(shared / max(np.sqrt((xx - x * x).sum() * (yy - y * y).sum()), 1e-12))

    return interval_of(statistic, [x, y, x * y, x * x, y * y], [clusters] * 5)
