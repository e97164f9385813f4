"""The head lens: contributions that add up, patterns built by hand, copying by plain numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, pairs, tiny, tokens

from jaxcirc import attribution
from jaxcirc.models import toy
from jaxcirc.taps import Read, Sites, Taps, run
from jaxcirc.tasks import kl, logit_difference, probability


@pytest.mark.parametrize("name", ["grouped", "gemma", "attention"])
def test_contributions_add_up_to_a_linear_metric(name):
    """In models without biases: final norms are held, and post-norms belong to their heads."""
    found = attribution.direct(tiny(name), pairs(pads=2))
    parts = found.heads.sum(axis=(1, 2)) + found.mlps.sum(axis=1) + found.embed
    close(parts, found.total, 1e-4)


@pytest.mark.parametrize("metric", [logit_difference, probability])
@pytest.mark.parametrize("name", ["grouped", "learned"])
def test_the_lens_behind_the_last_layer_is_the_metric(name, metric):
    model, prompts = tiny(name), pairs(pads=2)
    found = attribution.direct(model, prompts, metric)
    logits, _ = run(model, prompts.clean, mask=prompts.mask, logits_at=-1)
    close(found.total, metric(logits, prompts), 1e-4)
    close(found.lens[:, -1], found.total, 1e-4)


def test_kl_is_flat_at_its_own_reference():
    found = attribution.direct(tiny("grouped"), pairs(), kl)
    np.testing.assert_allclose(found.heads, 0, atol=1e-4)


def by_position(shifts: tuple[int, ...]):
    """One layer whose head h attends exactly `shifts[h]` tokens back, where there is one."""
    n, width = len(shifts), 64
    shape = {"n_layers": 1, "d_model": width, "d_head": width, "n_heads": n, "n_kv_heads": n}
    model = toy(jax.random.key(0), **shape, d_mlp=None, norm=None, positions="learned")
    eye = np.eye(width, dtype=np.float32)
    ahead = np.stack([np.roll(eye, shift, axis=1) for shift in shifts], axis=1)
    made = (100 * np.stack([eye] * n, axis=1)[None], ahead[None], 0 * model.embed, eye)
    return eqx.tree_at(
        lambda m: (m.blocks.attn.w_q, m.blocks.attn.w_k, m.embed, m.pos_embed),
        model,
        tuple(map(jnp.asarray, made)),
    )


def test_heads_built_by_hand_have_the_scores_of_their_kind():
    found = attribution.head_scores(by_position((1, 24, 23)), jax.random.key(0), length=24)
    scores = np.stack([found.previous[0], found.duplicate[0], found.induction[0]])
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-3)
    assert (scores[~np.eye(3, dtype=bool)] < 0.2).all()


def test_scores_are_shares_of_attention():
    found = attribution.head_scores(tiny("grouped"), jax.random.key(0), n=2, length=8)
    for score in (found.previous, found.duplicate, found.induction):
        assert score.shape == (3, 4)
        assert (score > 0).all() and (score < 1).all()


def test_attention_between_spans_is_the_mean_of_the_pattern():
    model, prompts = tiny("gemma"), pairs(first=2, pads=1)
    dest = jnp.zeros(prompts.clean.shape, bool).at[:, -1].set(True).at[0, -2].set(True)
    src = jnp.stack([prompts.spans["changed"], prompts.mask])
    found = np.asarray(attribution.attention(model, prompts.arrays(), dest, src))
    _, records = run(model, prompts.clean, Sites(pattern=Read()), mask=prompts.mask)
    pattern = np.asarray(records.pattern)
    rows = [(b, d) for b, d in np.argwhere(np.asarray(dest))]
    expected = [
        np.mean([pattern[:, b, :, d][..., np.asarray(one)[b]].sum(-1) for b, d in rows], axis=0)
        for one in src
    ]
    close(found, np.stack(expected))
    close(found[1], np.ones((3, 4)))


@pytest.mark.parametrize("name", ["grouped", "learned"])
def test_copying_equals_one_head_and_token_at_a_time(name):
    model, ids = tiny(name), np.unique(tokens(5, 1, 12))
    attn, group = model.blocks.attn, 4 // model.config.n_kv_heads
    _, records = run(model, jnp.asarray(ids)[:, None], Sites(resid_post=Read()), layers=1)
    copies, suppresses = np.zeros((2, 3, 4))
    for layer, head in np.ndindex(3, 4):
        norm = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.blocks.attn_norm)
        x = np.asarray(norm(records.resid_post[0][:, 0], Taps(Sites()), "attn_norm_scale"))
        value = x @ np.asarray(attn.w_v)[layer, :, head // group]
        if attn.b_v is not None:
            value = value + np.asarray(attn.b_v)[layer, head // group]
        written = value @ np.asarray(attn.w_o)[layer, head]
        logits = np.asarray(model.unembedding(jnp.asarray(written)[None], Taps(Sites()))[0])
        order = np.argsort(-logits, axis=1)
        copies[layer, head] = np.mean([i in row[:5] for i, row in zip(ids, order, strict=True)])
        suppresses[layer, head] = np.mean(
            [i in row[-5:] for i, row in zip(ids, order, strict=True)]
        )
    found = attribution.copying(model, jnp.asarray(ids))
    np.testing.assert_allclose(found[0], copies, atol=1e-6)
    np.testing.assert_allclose(found[1], suppresses, atol=1e-6)


def test_an_identity_head_copies_everything():
    """Values and output that return the token's own direction, in a model of orthogonal tokens."""
    model = toy(jax.random.key(0), n_layers=1, d_model=50, n_heads=2, n_kv_heads=2, d_head=50)
    eye = jnp.stack([jnp.eye(50), -jnp.eye(50)])[None]
    model = eqx.tree_at(
        lambda m: (m.embed, m.blocks.attn.w_v, m.blocks.attn.w_o, m.blocks.mlp.w_out),
        model,
        (
            10 * jnp.eye(50),
            jnp.swapaxes(eye, 1, 2),
            jnp.stack([jnp.eye(50)] * 2)[None],
            0 * model.blocks.mlp.w_out,
        ),
    )
    model = eqx.tree_at(lambda m: m.final_norm.weight, model, jnp.ones(50))
    copies, suppresses = attribution.copying(model, jnp.arange(50), top=1)
    np.testing.assert_array_equal(copies[0], [1, 0])
    np.testing.assert_array_equal(suppresses[0], [0, 1])
