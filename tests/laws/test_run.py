"""Laws of the run: 1 (empty edits), 2 (scan, loop and segments), 9 (adjointness), 10 (batching)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LENGTH, close, here, tiny, tokens

from jaxcirc.models import cast
from jaxcirc.taps import (
    Add,
    At,
    ByLayer,
    Chain,
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


@jax.jit
def step(model, layer, x, edits):
    """One block by itself."""
    positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    tap = Taps(edits)
    time = Timeline(positions, jnp.ones(positions.shape, bool), None)
    return model.block(layer, x, time, tap), tap.records


def loop(model, tokens, table):
    """The oracle: the same blocks in a plain Python loop. `table[layer]` holds a layer's edits."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    x, records = model.embedding(tokens, positions, Taps(Sites())), []
    for layer in range(model.n_layers):
        x, seen = step(model, jnp.asarray(layer), x, table.get(layer, Sites()))
        records.append(seen)
    return model.unembedding(x, Taps(Sites())), records


def nudged(model, nudge, **options):
    """Logits with something added to the stream before every block."""
    return run(model, tokens(), Sites(resid_pre=Add(nudge)), **options)[0]


def stream(model):
    """The shape of the stream before every block."""
    return (model.n_layers, *tokens().shape, model.config.d_model)


def test_reading_every_site_changes_nothing(model, seen):
    close(seen[0], run(model, tokens())[0])


def test_edits_of_no_cell_change_nothing(tiny_model):
    idle = Chain((Set(0.0, False), Add(1.0, False), Stop(), Stop(False), Read()))
    sites = here(tiny_model, ("resid_post", "z", "mlp_out"))
    logits, _ = run(tiny_model, tokens(), Sites(**{site: idle for site in sites}))
    close(logits, run(tiny_model, tokens())[0])


def test_scan_equals_loop(model, seen):
    reads = Sites(**{site: Read() for site, _ in seen[1].items()})
    logits, by_layer = loop(model, tokens(), {i: reads for i in range(model.n_layers)})
    close(seen[0], logits)
    for site, record in seen[1].items():
        close(record, jnp.stack([getattr(layer, site) for layer in by_layer]))


def test_a_lazy_set_equals_a_set(tiny_model):
    """Wherever it replaces a layer whole, in part, or not at all; and so do its gradients."""
    model, c = tiny_model, tiny_model.config
    which = jnp.arange(model.n_layers) % 3
    heads = jnp.arange(c.n_heads) < which[:, None] * (c.n_heads // 2)
    where = {"z": heads[:, None, None, :, None], "mlp_out": (which > 0)[:, None, None, None]}
    sites = here(model, ("z", "mlp_out"))

    def total(model, scale, lazy):
        table = Sites(
            **{s: Set(0.1 * scale * jnp.ones(where[s].shape), where[s], lazy) for s in sites}
        )
        logits, records = run(model, tokens(), table | Sites(resid_post=Read()))
        return logits[..., 0].sum(), (logits, records.resid_post)

    found = jax.jit(jax.value_and_grad(total, argnums=1, has_aux=True), static_argnums=2)
    plain, lazy = (found(model, jnp.ones(()), lazy) for lazy in (False, True))
    jax.tree.map(lambda x, y: close(x, y, 1e-4), plain, lazy)


def test_what_a_lazy_set_spares_reads_as_zero(tiny_model):
    which = jnp.arange(tiny_model.n_layers) == 1
    edits = Sites(q=Read(), z=Set(jnp.zeros(which.shape), which[:, None, None, None, None], True))
    q = run(tiny_model, tokens(), edits)[1].q
    assert not q[1].any() and q[0].any() and q[2].any()


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
    """Within one scan, and across the segments that another edit makes of it."""
    layers = jnp.array([2, 0])
    both = Chain((At(layers, Read()), Read()))
    for table in (Sites(z=both), Sites(z=both, resid_pre=ByLayer((Read(),), (1,)))):
        slots, everything = run(tiny_model, tokens(), table)[1].z
        np.testing.assert_array_equal(slots, everything[layers])


def test_jvp_and_vjp_are_adjoint(tiny_model):
    keys = jax.random.split(jax.random.key(1), 2)
    zero = jnp.zeros(stream(tiny_model))
    tangent = jax.random.normal(keys[0], zero.shape)
    cotangent = jax.random.normal(keys[1], (*tokens().shape, tiny_model.config.vocab))

    @jax.jit
    def both(model, tangent, cotangent):
        _, pushed = jax.jvp(lambda nudge: nudged(model, nudge), (zero,), (tangent,))
        _, pullback = jax.vjp(lambda nudge: nudged(model, nudge), zero)
        return pushed, pullback(cotangent)[0]

    pushed, pulled = both(tiny_model, tangent, cotangent)
    left, right = jnp.vdot(cotangent, pushed), jnp.vdot(pulled, tangent)
    assert abs(left - right) <= 1e-4 * jnp.linalg.norm(cotangent) * jnp.linalg.norm(pushed)


def test_remat_changes_no_gradient(tiny_model):
    @jax.jit
    def gradients(model, zero):
        def loss(nudge, remat):
            return nudged(model, nudge, remat=remat).max()

        return [jax.grad(loss)(zero, remat) for remat in ("none", "block", "dots")]

    plain, block, dots = gradients(tiny_model, jnp.zeros(stream(tiny_model)))
    assert np.abs(plain).max() > 0
    close(block, plain)
    close(dots, plain)


def test_vmap_equals_loop(tiny_model):
    values = jax.random.normal(jax.random.key(2), (3,))
    together = jax.jit(jax.vmap(nudged, (None, 0)))(tiny_model, values)
    close(together, jnp.stack([nudged(tiny_model, value) for value in values]))


def test_batched_equals_sequential(model):
    together, _ = run(model, tokens())
    close(together, jnp.concatenate([run(model, row[None])[0] for row in tokens()]))


@pytest.mark.parametrize("pad", [(3, 0), (0, 3)], ids=["left", "right"])
def test_padding_changes_nothing(model, pad):
    padded = jnp.pad(tokens(), ((0, 0), pad), constant_values=7)
    mask = jnp.pad(jnp.ones(tokens().shape, bool), ((0, 0), pad))
    logits, _ = run(model, padded, mask=mask)
    close(logits[:, pad[0] : pad[0] + LENGTH], run(model, tokens())[0])


def test_restart_equals_the_full_run(model, seen):
    logits, records = seen
    for layer in (0, 1, model.n_layers - 1):
        again, _ = run(model, tokens(), start=Start(records.resid_pre[layer], jnp.asarray(layer)))
        close(again, logits)


def test_cone_equals_the_full_run(model):
    whole, _ = run(model, tokens())
    suffix, _ = cone(model, tokens(), jnp.ones(tokens().shape, bool), 5).run(model)
    close(suffix, whole[:, 5:])


def test_restart_is_differentiable(tiny_model):
    _, records = run(tiny_model, tokens(), Sites(resid_pre=Read()))

    def from_layer(x, model):
        return run(model, tokens(), start=Start(x, jnp.asarray(1)))[0].max()

    def from_edit(x, model):
        return run(model, tokens(), Sites(resid_pre=At(jnp.array([1]), Set(x[None]))))[0].max()

    found, expected = (
        jax.jit(jax.grad(loss))(records.resid_pre[1], tiny_model)
        for loss in (from_layer, from_edit)
    )
    close(found, expected)


def test_logits_at_picks_columns(tiny_model):
    whole, _ = run(tiny_model, tokens())
    close(run(tiny_model, tokens(), logits_at=-1)[0], whole[:, -1])
    columns = jnp.array([[0, 3], [1, 4], [2, 7]])
    picked = jnp.take_along_axis(whole, columns[:, :, None], axis=1)
    close(run(tiny_model, tokens(), logits_at=columns)[0], picked)


def test_stopping_early_gives_the_same_stream(tiny_model):
    none, records = run(tiny_model, tokens(), Sites(resid_post=Read()), layers=2)
    _, whole = run(tiny_model, tokens(), Sites(resid_post=Read()))
    assert none is None
    close(records.resid_post, whole.resid_post[:2])


EDITED = Sites(resid_post=Add(0.4), v=Add(0.2), rot_k=Add(-0.1))


@pytest.mark.parametrize("edits, pads", [(Sites(), 0), (EDITED, 2)], ids=["plain", "edited"])
def test_generation_equals_recomputation(tiny_model, edits, pads):
    n = 3
    padded = jnp.pad(tokens(), ((0, 0), (pads, 0)))
    real = jnp.pad(jnp.ones(tokens().shape, bool), ((0, 0), (pads, 0)))
    new = generate(tiny_model, padded, edits, n, mask=real)
    grown = np.pad(tokens(), ((0, 0), (0, n)))
    for column in range(LENGTH, LENGTH + n):
        mask = jnp.broadcast_to(jnp.arange(LENGTH + n) < column, grown.shape)
        last = jnp.asarray(column - 1)
        logits, _ = run(tiny_model, jnp.asarray(grown), edits, mask=mask, logits_at=last)
        grown[:, column] = logits.argmax(axis=-1)
    np.testing.assert_array_equal(new, grown[:, LENGTH:])


def test_sampling_depends_on_the_key():
    model = tiny("grouped")
    draws = [
        generate(model, tokens(), Sites(), 8, jax.random.key(i), temperature=1.0) for i in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_stream_adds_up(model, seen):
    _, r = seen
    bias = model.blocks.attn.b_o
    if model.blocks.attn_post_norm is None or bias is None:
        bias = 0.0 if bias is None else bias[:, None, None]
        close(r.head_out.sum(axis=3) + bias, r.attn_out)
    writes = r.attn_out if r.mlp_out is None else r.attn_out + r.mlp_out
    close(r.resid_pre + writes, r.resid_post)
    if r.resid_mid is not None:
        close(r.resid_pre + r.attn_out, r.resid_mid, 1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_near_single_precision(dtype):
    model = tiny("grouped")
    with jax.numpy_dtype_promotion("standard"):  # JAX's own fused attention promotes
        logits, _ = run(cast(model, dtype), tokens())
    assert logits.dtype == dtype
    close(np.asarray(logits, np.float32), run(model, tokens())[0], 0.1)


@pytest.mark.parametrize("name", ["gemma", "learned"])
def test_reading_any_site_changes_neither_logits_nor_gradients(name):
    model = tiny(name)
    shape = (model.n_layers, *tokens().shape, model.config.d_model)

    def loss(nudge, edits):
        logits, _ = run(model, tokens(), Sites(resid_pre=Add(nudge)) | edits)
        return logits[:, -1, 3].sum(), logits

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    plain, expected = gradient(jnp.zeros(shape), Sites())
    for site in here(model, ("head_out", "scores", "k_at_head", "attn_out", "mlp_post")):
        found, logits = gradient(jnp.zeros(shape), Sites(**{site: Read()}))
        close(logits, expected)
        close(found, plain, 1e-4)


def test_an_edit_without_a_layer_axis_is_refused():
    with pytest.raises(ValueError, match="in front, one entry a layer"):
        run(tiny("grouped"), tokens(), Sites(resid_post=Add(jnp.ones(16))))


def test_an_edit_that_would_enlarge_its_site_is_refused():
    with pytest.raises(ValueError, match="would turn shape"):
        run(tiny("grouped"), tokens(), Sites(logits=Set(jnp.zeros((3, 8, 1)))), logits_at=-1)


def test_by_layer_out_of_range_is_refused():
    with pytest.raises(ValueError, match="out of range"):
        run(tiny("grouped"), tokens(), Sites(z=ByLayer((Read(),), (99,))))
