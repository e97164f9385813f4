"""Laws of the run: 1 (empty edits), 2 (scan, loop and segments), 9 (adjointness), 10 (batching)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LENGTH, here, tiny, tokens

from jaxcirc.taps import (
    Add,
    At,
    ByLayer,
    Chain,
    Mix,
    Read,
    Set,
    Sites,
    Start,
    Stop,
    Taps,
    Timeline,
    cone,
    generate,
    run,
)

ROUNDING = 1e-5


def close(a, b, tolerance=ROUNDING):
    """Equal to rounding, relative to the largest entry."""
    scale = max(float(jnp.abs(b).max()), 1e-6)
    assert float(jnp.abs(a - b).max()) <= tolerance * scale


def loop(model, tokens, table=None):
    """The oracle: the same blocks in a plain Python loop. `table[layer]` holds a layer's edits."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    time = Timeline(positions, jnp.ones(tokens.shape, bool), None)
    x, records = model.embedding(tokens, positions, Taps(Sites())), []
    for layer in range(model.n_layers):
        tap = Taps((table or {}).get(layer, Sites()))
        x = model.block(jnp.asarray(layer), x, time, tap)
        records.append(tap.records)
    return model.unembedding(x, Taps(Sites())), records


def test_empty_edits_change_nothing_bitwise(model):
    t = tokens()
    dial = jax.jit(lambda model, v, a: run(model, t, Sites(resid_pre=Mix(v, a)))[0])
    shape = (model.n_layers, *t.shape, model.config.d_model)
    values = [jax.random.normal(jax.random.key(i), shape, model.dtype) for i in range(2)]
    at_rest = [dial(model, value, jnp.zeros(model.n_layers)) for value in values]
    np.testing.assert_array_equal(*at_rest)
    close(at_rest[0], run(model, t)[0])


@pytest.mark.parametrize("make", [lambda: Set(0.0, False), lambda: Add(1.0, False), Stop, Read])
def test_edits_of_no_cell_change_nothing(tiny_model, make):
    plain, _ = run(tiny_model, tokens())
    for site in here(tiny_model, ("resid_post", "z", "mlp_out")):
        close(run(tiny_model, tokens(), Sites(**{site: make()}))[0], plain)


def test_scan_equals_loop(model):
    sites = here(model, ("z", "pattern", "mlp_out", "resid_post"))
    reads = Sites(**{site: Read() for site in sites})
    logits, records = run(model, tokens(), reads)
    expected, by_layer = loop(model, tokens(), {i: reads for i in range(model.n_layers)})
    close(logits, expected)
    for site in sites:
        stacked = jnp.stack([getattr(record, site) for record in by_layer])
        close(getattr(records, site), stacked)


def test_segments_equal_loop(tiny_model):
    edit = {1: Sites(resid_pre=Add(jnp.asarray(0.3)), z=Read())}
    expected, by_layer = loop(tiny_model, tokens(), edit)
    table = Sites(
        resid_pre=ByLayer((Add(0.3),), (1,)), z=ByLayer((Read(),), (1,)), resid_post=Read()
    )
    logits, records = run(tiny_model, tokens(), table)
    close(logits, expected)
    close(records.z[1], by_layer[1].z)
    assert records.resid_post.shape[0] == tiny_model.n_layers


def test_slots_read_what_a_full_read_reads(tiny_model):
    layers = jnp.array([2, 0])
    both = Chain((At(layers, Read()), Read()))
    _, records = run(tiny_model, tokens(), Sites(z=both))
    slots, everything = records.z
    np.testing.assert_array_equal(slots, everything[layers])


def test_slots_and_segments_agree(tiny_model):
    table = Sites(z=At(jnp.array([2, 0]), Read()), resid_pre=ByLayer((Read(),), (1,)))
    _, split = run(tiny_model, tokens(), table)
    _, whole = run(tiny_model, tokens(), Sites(z=Read()))
    close(split.z, whole.z[jnp.array([2, 0])])


def test_jvp_and_vjp_are_adjoint(tiny_model):
    shape = (tiny_model.n_layers, *tokens().shape, tiny_model.config.d_model)
    keys = jax.random.split(jax.random.key(1), 2)

    def f(nudge):
        return run(tiny_model, tokens(), Sites(resid_pre=Add(nudge)))[0]

    zero, tangent = jnp.zeros(shape), jax.random.normal(keys[0], shape)
    value, pushed = jax.jvp(f, (zero,), (tangent,))
    cotangent = jax.random.normal(keys[1], value.shape)
    _, pullback = jax.vjp(f, zero)
    left, right = jnp.vdot(cotangent, pushed), jnp.vdot(pullback(cotangent)[0], tangent)
    assert abs(left - right) <= 1e-4 * jnp.linalg.norm(cotangent) * jnp.linalg.norm(pushed)


@pytest.mark.parametrize("remat", ["block", "dots"])
def test_remat_changes_no_gradient(tiny_model, remat):
    shape = (tiny_model.n_layers, *tokens().shape, tiny_model.config.d_model)

    def loss(nudge, remat):
        return run(tiny_model, tokens(), Sites(resid_pre=Add(nudge)), remat=remat)[0].max()

    plain, again = (jax.grad(loss)(jnp.zeros(shape), remat) for remat in ("none", remat))
    close(again, plain)


def test_vmap_equals_loop(tiny_model):
    values = jax.random.normal(jax.random.key(2), (4,))

    def f(value):
        return run(tiny_model, tokens(), Sites(resid_post=Add(value)))[0]

    close(jax.vmap(f)(values), jnp.stack([f(value) for value in values]))


def test_batched_equals_sequential(model):
    together, _ = run(model, tokens())
    apart = jnp.concatenate([run(model, row[None])[0] for row in tokens()])
    close(together, apart)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, side):
    pad = (3, 0) if side == "left" else (0, 3)
    padded = jnp.pad(tokens(), ((0, 0), pad), constant_values=7)
    mask = jnp.pad(jnp.ones(tokens().shape, bool), ((0, 0), pad))
    begin = pad[0]
    logits, _ = run(model, padded, mask=mask)
    close(logits[:, begin : begin + LENGTH], run(model, tokens())[0])


def test_restart_equals_the_full_run(model):
    logits, records = run(model, tokens(), Sites(resid_pre=Read()))
    for layer in (0, 1, model.n_layers - 1):
        again, _ = run(model, tokens(), start=Start(records.resid_pre[layer], jnp.asarray(layer)))
        close(again, logits)


def test_cone_equals_the_full_run(model):
    whole, _ = run(model, tokens())
    mask = jnp.ones(tokens().shape, bool)
    suffix, _ = cone(model, tokens(), mask, 5).run(model)
    close(suffix, whole[:, 5:])


def test_restart_is_differentiable(tiny_model):
    _, records = run(tiny_model, tokens(), Sites(resid_pre=Read()))

    def from_layer(x, differentiable):
        start = Start(x, jnp.asarray(1), differentiable)
        return run(tiny_model, tokens(), start=start)[0].max()

    def from_nudge(x):
        nudge = At(jnp.array([1]), Set(x[None]))
        return run(tiny_model, tokens(), Sites(resid_pre=nudge))[0].max()

    x = records.resid_pre[1]
    close(jax.grad(from_layer)(x, True), jax.grad(from_nudge)(x))


def test_logits_at_picks_columns(model):
    whole, _ = run(model, tokens())
    close(run(model, tokens(), logits_at=-1)[0], whole[:, -1])
    columns = jnp.array([[0, 3], [1, 4], [2, 7]])
    picked = jnp.take_along_axis(whole, columns[:, :, None], axis=1)
    close(run(model, tokens(), logits_at=columns)[0], picked)


def test_stopping_early_gives_the_same_stream(tiny_model):
    none, records = run(tiny_model, tokens(), Sites(resid_post=Read()), layers=2)
    _, whole = run(tiny_model, tokens(), Sites(resid_post=Read()))
    assert none is None
    close(records.resid_post, whole.resid_post[:2])


def test_generation_equals_recomputation(tiny_model):
    new = generate(tiny_model, tokens(), n=4)
    grown = tokens()
    for _ in range(4):
        best = run(tiny_model, grown)[0][:, -1:].argmax(axis=-1)
        grown = jnp.concatenate([grown, best], axis=1)
    np.testing.assert_array_equal(new, grown[:, LENGTH:])


def test_generation_with_edits_and_padding_equals_recomputation(tiny_model):
    edits = Sites(resid_post=Add(0.4), v=Add(0.2), rot_k=Add(-0.1))
    padded = jnp.pad(tokens(), ((0, 0), (2, 0)))
    mask = jnp.pad(jnp.ones(tokens().shape, bool), ((0, 0), (2, 0)))
    new = generate(tiny_model, padded, edits, n=4, mask=mask)
    grown = tokens()
    for _ in range(4):
        best = run(tiny_model, grown, edits)[0][:, -1:].argmax(axis=-1)
        grown = jnp.concatenate([grown, best], axis=1)
    np.testing.assert_array_equal(new, grown[:, LENGTH:])


def test_sampling_depends_on_the_key():
    model = tiny("grouped")
    draws = [
        generate(model, tokens(), Sites(), 8, jax.random.key(i), temperature=1.0) for i in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_stream_adds_up(model):
    sites = here(model, ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "head_out"))
    _, r = run(model, tokens(), Sites(**{site: Read() for site in sites}))
    attn_bias = model.blocks.attn.b_o
    if attn_bias is None:
        close(r.head_out.sum(axis=3), r.attn_out)
    elif model.blocks.attn_post_norm is None:
        close(r.head_out.sum(axis=3) + attn_bias[:, None, None], r.attn_out)
    if r.resid_mid is None:
        close(r.resid_pre + r.attn_out + r.mlp_out, r.resid_post)
        return
    close(r.resid_pre + r.attn_out, r.resid_mid, 1e-6)
    if r.mlp_out is not None:
        close(r.resid_mid + r.mlp_out, r.resid_post, 1e-6)
