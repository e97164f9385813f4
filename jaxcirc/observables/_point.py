"""Where a path is linearised: one prompt's streams, and segments between two examples.

May import `taps`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..taps import Read, Sites, run

LAYERED = ("attn_in", "mlp_in", "attn_post_scale", "mlp_normed", "mlp_post_scale")


class Point(eqx.Module):
    """What one prompt's run holds along a path.

    `seen`: attn_in, mlp_in, mlp_normed and the post-norms' scales, [layer pos ...], and final_resid
    [pos d_model]. `logits`: at every position.

    >>> propagate(model, observable, "26.2", norms="frozen", point=point_of(model, tokens))
    """

    tokens: Int[Array, "pos"]
    seen: Sites
    logits: Float[Array, "pos vocab"]


def point_of(model, tokens: Int[Array, "pos"]) -> Point:
    """The point of one prompt, without padding.

    Raises `ValueError` for several prompts at once.

    >>> point_of(model, jnp.asarray(tokenizer.encode("My friend Mary said that")))
    """
    if jnp.ndim(tokens) != 1:
        raise ValueError(
            f"a point is one prompt, not {jnp.shape(tokens)}: point_of(model, rows[0])"
        )
    with jax.default_matmul_precision("highest"):
        sites = [site for site in LAYERED if site in model.sites()]
        reads = Sites(**{site: Read() for site in (*sites, "final_resid")})
        logits, seen = run(model, tokens[None], reads)
    assert logits is not None
    kept = {site: getattr(seen, site)[:, 0] for site in sites}
    return Point(tokens, Sites(**kept, final_resid=seen.final_resid[0]), logits[0])


class Segment(eqx.Module):
    """What the MLPs read, normed, on two examples; `propagate` looks for the zero between them.

    >>> propagate(model, observable, "mlp 16", mlp_point=segment_of(model, she, he))
    """

    low: Float[Array, "layer d_model"]
    high: Float[Array, "layer d_model"]


def segment_of(
    model, positive: Int[Array, "pos"], negative: Int[Array, "pos"], pos: int = -1
) -> Segment:
    """The segment between two prompts on which an observable differs in sign.

    - `pos`: the column whose inputs of MLPs are the ends.

    >>> segment_of(model, tokens_of_a_woman, tokens_of_a_man)
    """
    ends = [_normed(model, tokens)[:, pos] for tokens in (negative, positive)]
    return Segment(*ends)


def _normed(model, tokens: Int[Array, "pos"]) -> Float[Array, "layer pos d_model"]:
    with jax.default_matmul_precision("highest"):
        _, seen = run(model, tokens[None], Sites(mlp_normed=Read()), layers=model.n_layers)
    return seen.mlp_normed[:, 0]
