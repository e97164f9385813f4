"""Behaviours of any model: tokens of text that it predicts well, each a task with pairs of prompts.

After the samples of Marks et al. 2024 (arXiv 2403.19647), section 5: a behaviour is one answer
behind many windows of text. The corrupt prompt has one token before the last replaced by the one,
of some drawn from the text, after which the model believes least in the answer; wrong is what it
then says. May import `taps`, `tasks`, `dictionaries`.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Tokens
from ...dictionaries.train import Contexts
from ...taps import run
from ...tasks import Prompts
from ._prompts import Split

REACH = 6
"""How far before the answer a token is replaced, at most."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of text with the token behind each, predicted with at least a probability."""

    tokens: Int[np.ndarray, "window pos"]
    answer: Int[np.ndarray, "window"]

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, chosen: np.ndarray) -> "Windows":
        """Some of them."""
        return Windows(self.tokens[chosen], self.answer[chosen])


def next_tokens(
    model,
    tokenizer,
    contexts: Contexts,
    n: int,
    *,
    window: int = 12,
    behaviours: int = 3,
    least: float = 0.5,
    candidates: int = 24,
    seed: int = 0,
    batch: int = 256,
) -> list[Split]:
    """Behaviours that a model has: the answers that it predicts well most often.

    - `n`: prompts of each split, which share no last token; intervals resample last tokens.
      `window`: tokens of a prompt; `least`: the probability of the answer behind a clean prompt;
      `candidates`: replacements tried for each prompt.

    Returns at most `behaviours` splits, the commonest answers first. Raises `ValueError` if there
    is none.

    >>> next_tokens(model, tokenizer, contexts, 24)[0].name
    """
    rng = np.random.default_rng(seed)
    windows = well_predicted(model, contexts, window, least, batch)
    found = []
    for answer in _common(windows.answer):
        own = windows.take(np.flatnonzero(windows.answer == answer))
        halves = _halves(own, n, rng)
        if halves is None:
            continue
        pairs = [_pairs(model, tokenizer, half, contexts, n, candidates, rng) for half in halves]
        if min(map(len, pairs)) >= max(4, n // 2):
            name = f"next {tokenizer.decode([int(answer)])!r}"
            named = [dataclasses.replace(pair, name=name) for pair in pairs]
            found.append(Split(name, *named, told=f"{name}: {len(own)} windows of text"))
        if len(found) == behaviours:
            break
    if not found:
        raise ValueError(
            f"no token is predicted well behind {2 * n} unlike windows of {len(contexts)} contexts:"
            " give more text, or a smaller n"
        )
    return found


def well_predicted(model, contexts: Contexts, window: int, least: float, batch: int) -> Windows:
    """All different windows whose next token has at least a probability, the window alone read."""
    rows = np.lib.stride_tricks.sliding_window_view(contexts.tokens, window + 1, axis=1)
    real = np.lib.stride_tricks.sliding_window_view(contexts.mask, window + 1, axis=1).all(axis=-1)
    every = np.unique(rows[real], axis=0)
    chance = np.concatenate(
        [np.asarray(_chance(model, x, y))[:new] for x, y, new in _batches(every, batch)]
    )
    kept = every[chance >= least]
    return Windows(kept[:, :-1], kept[:, -1])


def _batches(rows: np.ndarray, batch: int) -> Iterator[tuple[Array, Array, int]]:
    """Windows and their next tokens in batches of one shape, and how many are new in each."""
    for begin in range(0, len(rows), batch):
        some = np.arange(begin, begin + min(batch, len(rows))) % len(rows)
        new = min(len(some), len(rows) - begin)
        yield jnp.asarray(rows[some, :-1]), jnp.asarray(rows[some, -1]), new


@jax.jit
def _chance(model, tokens: Tokens, answer: Int[Array, "batch"]) -> Float[Array, "batch"]:
    logits, _ = run(model, tokens, logits_at=-1)
    assert logits is not None
    return jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), answer[:, None], axis=-1)[:, 0]


@jax.jit
def _after(
    model, tokens: Tokens, answer: Int[Array, "batch"]
) -> tuple[Float[Array, "batch"], Int[Array, "batch"]]:
    """By how much the answer's logit lies above the best other one, and which that is."""
    logits, _ = run(model, tokens, logits_at=-1)
    assert logits is not None
    others = logits.at[jnp.arange(len(answer)), answer].set(-jnp.inf)
    own = jnp.take_along_axis(logits, answer[:, None], axis=-1)[:, 0]
    return own - others.max(axis=-1), others.argmax(axis=-1)


def _common(answers: Int[np.ndarray, "window"]) -> Int[np.ndarray, "answer"]:
    """The answers, the commonest first."""
    values, counts = np.unique(answers, return_counts=True)
    return values[np.argsort(-counts, kind="stable")]


def _halves(windows: Windows, n: int, rng) -> tuple[Windows, Windows] | None:
    """Windows of disjoint last tokens, n or more in each and few of one; None for no such."""
    windows = _few_alike(windows, max(2, n // 4), rng)
    last = windows.tokens[:, -1]
    values, counts = np.unique(last, return_counts=True)
    if len(values) < 8 or len(last) < 2 * n:
        return None
    sides: list[list[int]] = [[], []]
    sizes = [0, 0]
    for i in np.argsort(-counts, kind="stable"):
        side = int(sizes[1] < sizes[0])
        sides[side].append(int(values[i]))
        sizes[side] += int(counts[i])
    if min(sizes) < n:
        return None
    chosen = [rng.permutation(np.flatnonzero(np.isin(last, side))) for side in sides]
    return windows.take(chosen[0]), windows.take(chosen[1])


def _few_alike(windows: Windows, most: int, rng) -> Windows:
    """At most so many windows of each last token."""
    order = rng.permutation(len(windows))
    seen: dict[int, int] = {}
    kept = []
    for i, last in zip(order.tolist(), windows.tokens[order, -1].tolist(), strict=True):
        seen[last] = seen.get(last, 0) + 1
        if seen[last] <= most:
            kept.append(i)
    return windows.take(np.asarray(kept, int))


def _pairs(
    model, tokenizer, windows: Windows, contexts: Contexts, n: int, candidates: int, rng
) -> Prompts:
    """Up to n pairs whose corrupt prompt the model no longer answers so."""
    some = windows.take(np.arange(min(4 * n, len(windows))))
    corrupt, wrong, margin = _corrupted(model, some, contexts, candidates, rng)
    kept = np.flatnonzero(margin < 0)[:n]
    tokens = some.tokens[kept]
    one = jnp.ones((len(kept), 1))
    ids = np.stack([tokens, corrupt[kept]], axis=1)
    return Prompts(
        clean=jnp.asarray(tokens),
        corrupt=jnp.asarray(corrupt[kept]),
        mask=jnp.ones(tokens.shape, bool),
        answers=jnp.asarray(some.answer[kept, None]),
        answer_weights=one,
        wrongs=jnp.asarray(wrong[kept, None]),
        wrong_weights=one,
        spans={"end": jnp.zeros(tokens.shape, bool).at[:, -1].set(True)},
        templates=jnp.asarray(tokens[:, -1]),
        texts=tuple((tokenizer.decode(a.tolist()), tokenizer.decode(b.tolist())) for a, b in ids),
        name="next",
    )


def _corrupted(
    model, windows: Windows, contexts: Contexts, candidates: int, rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each window with the replacement that hurts most; what is then said, and the margin left."""
    text = contexts.tokens[contexts.mask]
    count, length = windows.tokens.shape
    best = windows.tokens.copy()
    wrong, margin = np.zeros(count, int), np.full(count, np.inf)
    for _ in range(candidates):
        tried = windows.tokens.copy()
        at = rng.integers(max(1, length - REACH), length - 1, count)
        tried[np.arange(count), at] = rng.choice(text, count)
        found = _after(model, jnp.asarray(tried), jnp.asarray(windows.answer))
        left, said = (np.asarray(x) for x in found)
        left = np.where((tried != windows.tokens).any(axis=1), left, np.inf)
        better = left < margin
        best[better], wrong[better], margin[better] = tried[better], said[better], left[better]
    return best, wrong, margin
