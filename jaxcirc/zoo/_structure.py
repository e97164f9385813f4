"""Edges of a compiled program, read off its weights. May import `taps` and `models`.

Every direction of the residual stream of a compiled program holds one variable, so who writes it
and who reads it says which edges there are (Lindner et al. 2023, arXiv 2301.05062, section 3).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Resid, Tokens
from ..models import LM
from ..taps import Add, At, Read, Sites, Wiring, run


def structural(model: LM, wiring: Wiring) -> Bool[np.ndarray, "edge"]:
    r"""The edges along which a direction is written and read, on a way to the output.

    $$u \to v \iff W(u) \cap R(v) \neq \emptyset$$

    W are the nonzero columns of what a source writes (embeddings, $W_V W_O$ of a head, $W_{out}$
    and its bias), R the nonzero rows of what a reader applies ($W_Q$, $W_K$, $W_V W_O$, $W_{in}$,
    the unembedding). Kept are edges from which the output can be reached.

    - `model`: a compiled program. `wiring`: of the model, with `split=True`.

    >>> structural(model, Wiring.of(model, split=True)).sum()
    """
    writes, reads = _writes(model, wiring), _reads(model, wiring)
    meets = np.any(writes[wiring.source] & reads[wiring.reader], axis=1)
    return meets & _reaching(wiring, meets)


def shown(
    model: LM, wiring: Wiring, tokens: Tokens, edges: Bool[np.ndarray, "edge"], shuffles: int = 4
) -> tuple[Bool[np.ndarray, "edge"], Bool[np.ndarray, "edge"]]:
    """Which edges show at the last position: when what they carry is exchanged between inputs, and
    when it is set to zero, all else as it was.

    - `tokens`: Int[batch pos], all inputs or many of them. `edges`: those to try.
    - `shuffles`: random exchanges of all inputs at once.

    Returns (by exchange, by zeroing), Bool[edge] each, False for edges not tried.
    """
    writes, logits = messages(model, wiring, tokens)
    rng = np.random.default_rng(0)
    orders = [jnp.asarray(rng.permutation(len(tokens))) for _ in range(shuffles)]
    exchange, zero = np.zeros(wiring.n_edges, bool), np.zeros(wiring.n_edges, bool)

    def moves(edge: int, change: Resid) -> float:
        return float(jnp.abs(told(model, wiring, tokens, edge, change) - logits).max())

    for edge in np.flatnonzero(edges).tolist():
        sent = writes[wiring.source[edge]]
        zero[edge] = moves(edge, -sent) > 1e-3
        exchange[edge] = max(moves(edge, sent[order] - sent) for order in orders) > 1e-3
    return exchange, zero


def told(
    model: LM, wiring: Wiring, tokens: Tokens, edge: int, change: Resid
) -> Float[Array, "batch vocab"]:
    """The last logits when the reader of an edge reads `change` (Float[batch pos d_model]) more,
    all else as it was."""
    reader = wiring.edge(edge)[1]
    place = jnp.asarray(reader.layer), jnp.asarray(reader.index or 0)
    return _told(model, change, tokens, *place, site=reader.site)


@partial(jax.jit, static_argnames="site")
def _told(model: LM, change: Resid, tokens: Tokens, layer, index, *, site: str):
    if site == "final_resid":
        edits = Sites(final_resid=Add(change))
    else:
        heads = None if site == "mlp_in" else jnp.arange(model.config.n_heads)[:, None] == index
        there = change if heads is None else jnp.where(heads, change[:, :, None], 0.0)
        edits = Sites(**{site: At(layer[None], Add(there[None]))})
    return run(model, tokens, edits, logits_at=-1)[0]


def messages(
    model: LM, wiring: Wiring, tokens: Tokens
) -> tuple[Float[Array, "source batch pos d_model"], Float[Array, "batch vocab"]]:
    """What every source writes, and the last logits."""
    logits, records = run(model, tokens, Sites(z=Read(), mlp_out=Read()), logits_at=-1)
    heads = jnp.einsum("lbphe,lhed->lhbpd", records.z, model.blocks.attn.w_o)
    embed = model.embed[tokens]
    writes = [embed]
    if wiring.split:
        assert model.pos_embed is not None
        writes.append(jnp.broadcast_to(model.pos_embed[: tokens.shape[1]], embed.shape))
    for layer in range(model.n_layers):
        writes += [*heads[layer], records.mlp_out[layer]]
    return jnp.stack(writes), logits


def owner(wiring: Wiring) -> np.ndarray:
    """The source that each reader's component is, by reader; the number of sources for the
    logits."""
    found = []
    for node in wiring.readers[:-1]:
        index = wiring.n_heads if node.index is None else node.index
        found.append(wiring.first + node.layer * wiring.width + index)
    return np.asarray([*found, wiring.n_sources])


def _reaching(wiring: Wiring, meets: Bool[np.ndarray, "edge"]) -> Bool[np.ndarray, "edge"]:
    """The edges into components from which the logits can be reached."""
    live = np.zeros(wiring.n_sources + 1, bool)
    live[-1] = True
    head = owner(wiring)[wiring.reader]
    for _ in range(wiring.n_sources):
        live[wiring.source[meets & live[head]]] = True
    return live[head]


def _writes(model: LM, wiring: Wiring) -> Bool[np.ndarray, "source d_model"]:
    attn, mlp = model.blocks.attn, model.blocks.mlp
    assert mlp is not None and model.pos_embed is not None
    through = np.asarray(jnp.einsum("ldhe,lhec->lhdc", attn.w_v, attn.w_o))
    rows = [_used(model.embed, 0), _used(model.pos_embed, 0)]
    for layer in range(wiring.n_layers):
        rows += [_used(head, 0) for head in through[layer]]
        rows.append(_used(mlp.w_out[layer], 0) | _bias(mlp.b_out, layer))
    return np.stack(rows)


def _reads(model: LM, wiring: Wiring) -> Bool[np.ndarray, "reader d_model"]:
    attn, mlp = model.blocks.attn, model.blocks.mlp
    assert mlp is not None and model.unembed is not None
    through = np.asarray(jnp.einsum("ldhe,lhec->lhdc", attn.w_v, attn.w_o))
    rows = []
    for layer in range(wiring.n_layers):
        for weight in (attn.w_q[layer], attn.w_k[layer]):
            rows += [_used(weight[:, head], 1) for head in range(wiring.n_heads)]
        rows += [_used(head, 1) for head in through[layer]]
        rows.append(_used(mlp.w_in[layer], 1))
    return np.stack([*rows, _used(model.unembed, 1)])


def _used(weight, axis: int) -> Bool[np.ndarray, "d_model"]:
    return np.any(np.abs(np.asarray(weight)) > 1e-6, axis=axis)


def _bias(bias, layer: int) -> Bool[np.ndarray, "..."]:
    return np.asarray(False) if bias is None else np.abs(np.asarray(bias[layer])) > 1e-6
