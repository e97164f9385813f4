"""Noise and denoise (Heimersheim & Nanda 2024, arXiv 2404.15255): which run is patched into which.

Imports `prompt` and `metric`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Direction, Tokens
from .metric import Metric
from .prompt import Prompts

_SIGN = {"noise": -1.0, "denoise": 1.0}


class End(NamedTuple):
    """One run of a pair: its tokens, and what is added to their embeddings (None: nothing)."""

    tokens: Tokens
    added: Float[Array, "batch pos d_model"] | None = None


def sign(direction: Direction, metric: Metric | None = None) -> float:
    """`importance = sign(direction, metric) * raw`, so that positive helps the behaviour.

    -1 when noising (patching a helpful part lowers the metric), +1 when denoising; the reverse for
    metrics marked `less_is_better` (`kl`). Raises `ValueError` for any other word.

    >>> sign("noise"), sign("noise", kl)
    (-1.0, 1.0)
    """
    _check(direction)
    return _SIGN[direction] * (-1.0 if getattr(metric, "less_is_better", False) else 1.0)


def ends(prompts: Prompts, direction: Direction) -> tuple[End, End]:
    """(base, source): noise patches corrupt into clean, denoise clean into corrupt.

    Takes `Prompts`, returns two `End`s. Raises `ValueError` for any other word.

    >>> base, source = ends(prompts, "noise")
    """
    _check(direction)
    still = None if prompts.noise is None else jnp.zeros_like(prompts.noise)
    clean, corrupt = End(prompts.clean, still), End(prompts.corrupt, prompts.noise)
    return (clean, corrupt) if direction == "noise" else (corrupt, clean)


def _check(direction: str) -> None:
    if direction not in _SIGN:
        raise ValueError(f'direction={direction!r}: use direction="noise" or direction="denoise"')
