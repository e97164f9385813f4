"""The head lens: what each component writes to the answer directly, and how each head attends.

Direct logit attribution and logit lens with the final norm's scale held; previous-token, duplicate
and induction scores on repeated random tokens (Olsson et al. 2022, arXiv 2209.11895); copying
scores (Wang et al. 2022, arXiv 2211.00593, section 3.1). May import `taps`, `tasks`.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..taps import Read, Set, Sites, Taps, cone, run, take_layer
from ..tasks import Metric, Prompts, ends, logit_difference, with_reference


class Direct(eqx.Module):
    """What every component adds to a metric straight through the unembedding, per example.

    `heads` (example, layer, head), `mlps` (example, layer), `embed` (example): for a metric linear
    in logits they sum to `total` up to biases. `lens` (example, layer): the metric read off the
    stream after each layer (logit lens).
    """

    heads: Float[Array, "example layer head"]
    mlps: Float[Array, "example layer"]
    embed: Float[Array, "example"]
    lens: Float[Array, "example layer"]
    total: Float[Array, "example"]


@partial(jax.jit, static_argnames=("metric",))
def _direct(model, prompts: Prompts, *, metric: Metric) -> Direct:
    length = prompts.clean.shape[1]
    last = jnp.full((model.n_layers, prompts.clean.shape[0], 1), length - 1)
    sites = ["resid_pre", "resid_post", "head_out"]
    sites += ["mlp_out"] if "mlp_out" in model.sites() else []
    held = [s for s in ("final_norm_scale",) if s in model.sites()]
    edits = Sites(**{s: Read(last) for s in sites}, **{s: Read() for s in held})
    logits, records = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
    prompts = with_reference(prompts, logits)
    scales = Sites(**{s: Set(getattr(records, s)) for s in held})

    def read_off(x: Float[Array, "batch d_model"], edits: Sites) -> Float[Array, "batch"]:
        return metric(model.unembedding(x[:, None], Taps(edits))[:, 0], prompts)

    final = records.resid_post[-1, :, 0]
    slope = jax.grad(lambda x: read_off(x, scales).sum())(final)
    heads = jnp.einsum("lbhd,bd->blh", records.head_out[:, :, 0], slope)
    mlps = jnp.zeros(heads.shape[:2])
    if "mlp_out" in sites:
        mlps = jnp.einsum("lbd,bd->bl", records.mlp_out[:, :, 0], slope)
    embed = jnp.einsum("bd,bd->b", records.resid_pre[0, :, 0], slope)
    lens = jax.lax.map(lambda x: read_off(x, Sites()), records.resid_post[:, :, 0])
    return Direct(heads, mlps, embed, lens.T, metric(logits, prompts))


def direct(model, prompts: Prompts, metric: Metric = logit_difference) -> Direct:
    """Direct logit attribution by head, MLP and embedding, and the logit lens, at the last
    position.

    - `metric`: its slope at the clean logits is what the components are projected on.

    Returns `Direct`.

    >>> direct(model, prompts).heads.mean(axis=0)                              # [layer head]
    """
    with jax.default_matmul_precision("highest"):
        return _direct(model, prompts.arrays(), metric=metric)


class HeadScores(eqx.Module):
    """How every head attends on twice-repeated random tokens, Float[layer head] each, from 0 to
    1."""

    previous: Float[Array, "layer head"]
    duplicate: Float[Array, "layer head"]
    induction: Float[Array, "layer head"]


@partial(jax.jit, static_argnames=("n", "length"))
def head_scores(model, key: PRNGKeyArray, *, n: int = 8, length: int = 24) -> HeadScores:
    """Attention to the previous token, to the token's earlier copy, and to what followed that copy.

    - `n` sequences of `length` random tokens, each said twice. The last two scores average over the
      second half.

    >>> head_scores(model, jax.random.key(0)).induction                        # [layer head]
    """
    half = jax.random.randint(key, (n, length), 0, model.config.vocab)
    tokens = jnp.concatenate([half, half], axis=1)
    _, records = run(model, tokens, Sites(pattern=Read()), layers=model.n_layers)
    pattern = records.pattern.mean(axis=1)

    def diagonal(back: int, begin: int) -> Float[Array, "layer head"]:
        dest = jnp.arange(begin, 2 * length)
        return pattern[:, :, dest, dest - back].mean(axis=-1)

    return HeadScores(diagonal(1, 1), diagonal(length, length), diagonal(length - 1, length))


@partial(jax.jit, static_argnames=("corrupt",))
def attention(
    model,
    prompts: Prompts,
    dest: Bool[Array, "batch pos"],
    src: Bool[Array, "span batch pos"],
    corrupt: bool = False,
) -> Float[Array, "span layer head"]:
    """Mean attention from one span to others, of every head, on the clean or corrupt prompts.

    - `dest`: Bool[batch pos]; `src`: Bool[span batch pos]. Attention is summed over sources and
      averaged over destinations and prompts.
    """
    end = ends(prompts, "noise")[corrupt]
    whole = cone(model, end.tokens, prompts.mask, 0, end.added)
    _, records = whole.run(model, Sites(pattern=Read()), layers=model.n_layers)
    mass = jnp.einsum("lbhds,bd,nbs->nlh", records.pattern, dest * 1.0, src * 1.0)
    return mass / jnp.maximum(dest.sum(), 1)


@partial(jax.jit, static_argnames=("top",))
def copying(
    model, tokens: Int[Array, "token"], *, top: int = 5
) -> tuple[Float[Array, "layer head"], Float[Array, "layer head"]]:
    """How often a head's OV circuit raises, or lowers, the very token it reads.

    Each token's stream after the first block (alone in its context) goes through the head's values
    and output and the unembedding: the share of tokens among the `top` logits, and among the
    bottom ones.

    >>> copies, suppresses = copying(model, name_ids)
    """
    _, records = run(model, tokens[:, None], Sites(resid_post=Read()), layers=1)
    stream = records.resid_post[0]

    def layer(index):
        block = take_layer(model.blocks, index)
        written = _ov(block, stream)
        logits = model.unembedding(written[None], Taps(Sites()))[0]
        own = jnp.take_along_axis(
            logits, jnp.tile(tokens, written.shape[0] // len(tokens))[:, None], 1
        )
        shape = (-1, len(tokens))
        above = (logits > own).sum(axis=1).reshape(shape)
        below = (logits < own).sum(axis=1).reshape(shape)
        return (above < top).mean(axis=1), (below < top).mean(axis=1)

    return jax.lax.map(layer, jnp.arange(model.n_layers))


def _ov(block, stream: Float[Array, "token one d_model"]) -> Float[Array, "rows d_model"]:
    """What every head writes if it attends to the token alone: rows are head by token."""
    attn = block.attn
    x = (
        stream
        if block.attn_norm is None
        else block.attn_norm(stream, Taps(Sites()), "attn_norm_scale")
    )
    v = jnp.einsum("tpd,dke->tke", x, attn.w_v) + (0 if attn.b_v is None else attn.b_v)
    v = jnp.repeat(v, attn.w_o.shape[0] // v.shape[1], axis=1)
    return jnp.einsum("the,hed->htd", v, attn.w_o).reshape(-1, x.shape[-1])
