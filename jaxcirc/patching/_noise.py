"""Gaussian noise on the embeddings of a span, the corruption of causal tracing.

Meng et al. 2022 (arXiv 2202.05262), section 2.1; Zhang & Nanda 2023 (arXiv 2309.16042), section
2.1, who find that it takes a model off its distribution. May import `taps`, `tasks`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..taps import Read, Sites, run
from ..tasks import Prompts


def noised(
    model,
    prompts: Prompts,
    span: str | None = None,
    *,
    scale: float = 3.0,
    draws: int = 10,
    seed: int = 0,
) -> Prompts:
    r"""The prompts with Gaussian noise on a span's embeddings as their corruption.

    $$e^* = e + \epsilon, \quad \epsilon \sim N(0, (\mathrm{scale} \cdot \sigma)^2)$$

    with sigma the standard deviation of all entries of the span's embeddings, after the model's
    embedding scale (Gemma's) and before learned positions.

    - `span`: which tokens, as in "subject" or "S2". `draws`: of noise for each prompt: the rows of
      prompt i are i * draws to (i + 1) * draws. Every patch of a row meets the same noise.

    Returns `Prompts` with `noise` and len(prompts) * draws rows. Raises `ValueError` without a
    span, for one that a prompt lacks, or for fewer than one draw.

    >>> jaxcirc.patching.sweep(model, noised(model, prompts, "subject"), direction="denoise")
    """
    if span is None:
        known = ", ".join(map(repr, prompts.spans)) or "none"
        raise ValueError(
            f"noise needs a span: noised(model, prompts, span=...); these prompts have {known}"
        )
    where = np.asarray(prompts.span(span)) & np.asarray(prompts.mask)
    if not where.any(axis=1).all():
        raise ValueError(f"prompt {int(where.any(axis=1).argmin())} has no token in {span!r}")
    if draws < 1:
        raise ValueError(f"draws={draws}: noised(model, prompts, {span!r}, draws=10)")
    embeddings = np.asarray(_embedded(model, prompts.arrays()), np.float64)
    rows = np.repeat(np.arange(len(prompts)), draws)
    shape = (len(rows), *where.shape[1:], embeddings.shape[-1])
    unit = jax.random.normal(jax.random.key(seed), shape, model.dtype)
    size = jnp.asarray(scale * embeddings[where].std(), model.dtype)
    taken = prompts.take(rows)
    noise = unit * size * jnp.asarray(where[rows])[:, :, None]
    return dataclasses.replace(taken, corrupt=taken.clean, noise=noise, reference=None)


@partial(jax.jit)
def _embedded(model, prompts: Prompts) -> Float[Array, "batch pos d_model"]:
    return run(model, prompts.clean, Sites(embed=Read()), mask=prompts.mask, layers=0)[1].embed
