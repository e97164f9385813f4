"""Attention and blocks against numpy, over masks, windows, caps and readers taken apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, tiny, tokens

from jaxcirc.models import toy
from jaxcirc.nn import MLP
from jaxcirc.nn.attention import visible
from jaxcirc.taps import Add, Read, Set, Sites, Taps, run

LENGTH = 7


def attend(q, k, v, scale, soft_cap, window):
    """The textbook: loops over prompts, heads and destinations."""
    z = np.zeros_like(q)
    for b, h, d in np.ndindex(q.shape[0], q.shape[2], q.shape[1]):
        first = 0 if window is None else max(0, d - window + 1)
        group = h // (q.shape[2] // k.shape[2])
        scores = k[b, first : d + 1, group] @ q[b, d, h] * scale
        scores = scores if soft_cap is None else np.tanh(scores / soft_cap) * soft_cap
        weights = np.exp(scores - scores.max())
        z[b, d, h] = weights / weights.sum() @ v[b, first : d + 1, group]
    return z


CASES = {
    "plain": {},
    "window": {"window": 3},
    "soft cap": {"soft_cap": 0.7},
    "everything": {"window": 2, "soft_cap": 0.7, "n_kv_heads": 1, "biases": True},
}


@pytest.mark.parametrize("shape", CASES.values(), ids=CASES)
@pytest.mark.parametrize("also", [(), ("pattern",)], ids=["fused", "explicit"])
def test_heads_equal_the_textbook(shape, also):
    model = toy(jax.random.key(0), n_layers=2, **shape)
    sites = ("rot_q", "rot_k", "v", "z", *also)
    _, r = run(model, tokens(0, 2, LENGTH), Sites(**{site: Read() for site in sites}))
    for layer in range(2):
        window = shape.get("window") if layer == 0 else None
        made = [np.asarray(getattr(r, site)[layer]) for site in ("rot_q", "rot_k", "v")]
        close(r.z[layer], attend(*made, 0.5, shape.get("soft_cap"), window))


def test_patterns_are_distributions_over_what_may_be_seen():
    model = toy(jax.random.key(0), n_layers=2, window=3)
    mask = jnp.ones((2, LENGTH), bool).at[0, :2].set(False)
    _, r = run(model, tokens(0, 2, LENGTH), Sites(pattern=Read()), mask=mask)
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    seen = visible(positions, mask, None, True, jnp.asarray(3))
    by_row = np.moveaxis(np.asarray(r.pattern[0]), 2, 1)[np.asarray(mask)]  # [row head src]
    np.testing.assert_allclose(by_row.sum(-1), 1, atol=1e-5)
    hidden = ~np.asarray(seen)[:, 0][np.asarray(mask)]
    assert hidden.any() and (by_row.sum(1)[hidden] == 0).all()


def test_a_model_that_is_not_causal_sees_later_tokens():
    sees = [toy(jax.random.key(0), n_layers=1, causal=causal) for causal in (True, False)]
    changed = tokens(0, 1, LENGTH).at[0, -1].add(1) % 50
    for model, moved in zip(sees, (False, True), strict=True):
        before, after = (run(model, t)[0][:, 0] for t in (tokens(0, 1, LENGTH), changed))
        assert bool(jnp.abs(before - after).max() > 1e-4) == moved


def test_scores_are_edited_before_the_mask():
    """A constant added to all scores changes nothing: what is masked stays masked, and no NaN."""
    model = tiny("grouped")
    raised, _ = run(model, tokens(), Sites(scores=Add(5.0)))
    close(raised, run(model, tokens())[0])


@pytest.mark.parametrize("name", ["grouped", "parallel"])
def test_readers_apart_read_the_same_as_together(name):
    model = tiny(name)
    apart = Sites(**{site: Add(0.0) for site in ("q_in", "k_in", "v_in")})
    close(run(model, tokens(), apart)[0], run(model, tokens())[0])


@pytest.mark.parametrize("reader, moves", [("q_in", "q"), ("k_in", "k"), ("v_in", "v")])
def test_each_reader_moves_its_own_projection_alone(reader, moves):
    model = tiny("grouped")
    reads = {site: Read() for site in ("q", "k", "v")}
    still = {site: Add(0.0) for site in ("q_in", "k_in", "v_in")}
    moved = still | {reader: Set(jnp.ones((3, 1, 1, 16)))}
    _, before = run(model, tokens(), Sites(**reads, **still))
    _, after = run(model, tokens(), Sites(**reads, **moved))
    for site in ("q", "k", "v"):
        distance = jnp.abs(getattr(after, site)[0] - getattr(before, site)[0]).max()
        assert (float(distance) > 0.1) == (site == moves)


@pytest.mark.parametrize("gated", [True, False])
def test_an_mlp_equals_its_formula(gated):
    rng = np.random.default_rng(0)
    w_in, w_gate = rng.standard_normal((2, 4, 6)).astype(np.float32)
    w_out = rng.standard_normal((6, 4)).astype(np.float32)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    mlp = MLP(*map(jnp.asarray, (w_in, w_out)), jnp.asarray(w_gate) if gated else None)
    pre = x @ (w_gate if gated else w_in)
    post = pre / (1 + np.exp(-pre)) * (x @ w_in if gated else 1)
    close(mlp(jnp.asarray(x), Taps(Sites())), post @ w_out)
