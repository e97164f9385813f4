"""`known`: the pairs that a model gets right both ways. May import `taps` and `tasks`.

Zhang & Nanda 2023 (arXiv 2309.16042) keep only facts that the model knows, each pair both ways:
where the behaviour is absent, there is nothing to patch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..taps import run
from ..tasks import Prompts, accuracy


def known(
    model, prompts: Prompts, *, batch: int = 64, precision: str = "highest"
) -> tuple[Prompts, int]:
    """The pairs whose clean prompt the model answers right, and whose corrupt prompt wrong.

    Right as for `accuracy`: the best answer above the best wrong. For corruptions that make a wrong
    answer right.

    - `batch`: pairs run at once.

    Returns (the pairs kept, how many were dropped). Raises `ValueError` if none is kept.

    >>> prompts, dropped = known(model, jaxcirc.tasks.facts(tokenizer))
    """
    kept = known_both_ways(prompts, *last_logits(model, prompts, batch, precision))
    if not kept.any():
        raise ValueError(
            f"{model.config.name} knows none of {len(prompts)} pairs of {prompts.name!r} both ways:"
            " use an easier task or a larger model"
        )
    return prompts.take(kept), int((~kept).sum())


def known_both_ways(
    prompts: Prompts, clean: Float[Array, "batch vocab"], corrupt: Float[Array, "batch vocab"]
) -> Bool[np.ndarray, "batch"]:
    """Which pairs are answered right clean, and with a wrong answer corrupt, from the logits."""
    right, flipped = accuracy(clean, prompts), accuracy(corrupt, prompts.swap())
    return np.asarray(right > 0) & np.asarray(flipped > 0)


def last_logits(
    model, prompts: Prompts, batch: int = 64, precision: str = "highest"
) -> tuple[Float[Array, "batch vocab"], Float[Array, "batch vocab"]]:
    """The logits behind every clean and every corrupt prompt, one compiled shape for all.

    >>> clean, corrupt = last_logits(model, prompts)
    """
    chunks, width = [], min(batch, len(prompts))
    with jax.default_matmul_precision(precision):
        for begin in range(0, len(prompts), width):
            rows = np.arange(begin, begin + width) % len(prompts)
            some = prompts.take(rows)
            both = jnp.concatenate([some.clean, some.corrupt])
            logits, _ = run(model, both, mask=jnp.tile(some.mask, (2, 1)), logits_at=-1)
            kept = min(width, len(prompts) - begin)
            chunks.append(jnp.split(logits.reshape(2 * width, -1), 2))
            chunks[-1] = [half[:kept] for half in chunks[-1]]
    clean, corrupt = (jnp.concatenate(halves) for halves in zip(*chunks, strict=True))
    return clean, corrupt
