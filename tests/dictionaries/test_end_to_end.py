"""Dictionaries trained by what the model says: values, gradients, what passes, what it helps."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import tokens

from jaxcirc.dictionaries import L1, Config, Stage, fit_end_to_end, init_coder
from jaxcirc.dictionaries.train import EndToEnd
from jaxcirc.models import toy
from jaxcirc.taps import Add, ByLayer, Read, Set, Sites, run

F, LAYER, LAYERS = 24, 1, 4
AT = "resid_post", LAYER
ITSELF = {"resid_pre": LAYER, "attn_out": None, "mlp_out": None, "resid_post": LAYER + 1}
"""Sites, and the layer on whose entry stands what is spliced there."""


def model(dtype=jnp.float32):
    return toy(jax.random.key(7), n_layers=LAYERS, dtype=dtype)


def dictionary(dtype=jnp.float32):
    coder = init_coder(jax.random.key(0), 16, F, dtype=dtype)
    return L1(dataclasses.replace(coder, b_enc=0.1 * jnp.ones(F, dtype)))


def stage(dtype=jnp.float32):
    one = jnp.ones((), dtype)
    return Stage(0.3 * one, jnp.asarray(4), one, jnp.zeros(F, bool))


def words():
    """Tokens, the mask of padding, and what counts."""
    mask = jnp.ones((3, 8), bool).at[0, :2].set(False)
    return tokens(), mask, mask & (jnp.cumsum(mask, axis=1) > 1)


@eqx.filter_jit
def value(loss, *given):
    return loss(dictionary(), stage(), *given)


@pytest.fixture(scope="module")
def streams():
    """Logits, and the stream on entry to every layer."""
    text, mask, _ = words()
    logits, records = run(model(), text, Sites(resid_pre=Read()), mask=mask)
    return logits, records.resid_pre


@pytest.fixture(scope="module")
def spliced():
    return value(EndToEnd(model(), *AT, downstream=2.0), *words())


def test_the_loss_is_divergence_error_behind_and_sparsity(spliced, streams):
    total, (seen, said) = spliced
    (text, mask, counts), (base, before) = words(), streams
    x, found = before[LAYER + 1], dictionary()
    code = found.encode(x)
    instead = Set(jnp.where(counts[..., None], found.decode(code), x))
    edit = Sites(resid_post=ByLayer((instead,), (LAYER,)), resid_pre=Read())
    logits, after = run(model(), text, edit, mask=mask)
    old, new = jax.nn.log_softmax(base), jax.nn.log_softmax(logits)
    kl = (jnp.exp(old) * (old - new)).sum(axis=-1)[mask].mean()
    error = np.square(np.asarray(after.resid_pre - before))[LAYER + 2 :, mask].mean()
    assert kl > 0.01 and error > 0.01
    np.testing.assert_allclose([said.kl, said.downstream], [kl, error], rtol=1e-4)
    np.testing.assert_allclose(seen.l0, (code[counts] > 0).sum(axis=-1).mean(), rtol=0.1)
    np.testing.assert_allclose(total, kl + 2 * error + 0.3 * seen.sparsity, rtol=1e-5)


def test_one_stream_by_two_names_has_one_loss(spliced):
    """What leaves a layer enters the next."""
    other = value(EndToEnd(model(), "resid_pre", LAYER + 1, downstream=2.0), *words())
    for a, b in zip(jax.tree.leaves(spliced), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@eqx.filter_jit
def entries(moved: dict):
    edits = {site: ByLayer((Add(by),), (LAYER,)) for site, by in moved.items()}
    return run(model(), tokens(), Sites(attn_in=Read(), **edits))[1].attn_in


def test_the_first_compared_is_the_first_behind_the_splice():
    still = {site: jnp.zeros(()) for site in ITSELF}
    before = entries(still)
    for site, itself in ITSELF.items():
        differ = (entries(still | {site: jnp.ones(())}) != before).any(axis=(1, 2, 3))
        behind = [int(k) for k in np.flatnonzero(differ) if k != itself]
        first = EndToEnd(model(), site, LAYER, downstream=1.0).first
        assert behind == list(range(first, LAYERS))


def test_sinks_pass_as_tokens_do_that_do_not_count(spliced, streams):
    text, mask, counts = words()
    norms = jnp.linalg.norm(streams[1][LAYER + 1], axis=-1)
    level = jnp.sort(norms[counts])[-4:-2].mean()
    loss = EndToEnd(model(), *AT, downstream=2.0)
    found = value(dataclasses.replace(loss, sink_norm=level), text, mask, counts)
    without = value(loss, text, mask, counts & (norms <= level))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, without)
    assert abs(found[0] - spliced[0]) > 1e-3


def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        found, at = dictionary(jnp.float64), stage(jnp.float64)
        loss = EndToEnd(model(jnp.float64), *AT, 0.7, jnp.asarray(0.8))

        @eqx.filter_jit
        def both(found):
            return eqx.filter_value_and_grad(lambda d: loss(d, at, *words())[0])(found)

        leaves, tree = jax.tree.flatten(found)
        slopes = jax.tree.leaves(both(found)[1])
        for i, (leaf, slope) in enumerate(zip(leaves, slopes, strict=True)):
            way = 1e-6 * np.random.default_rng(i).normal(size=leaf.shape)
            ends = [
                both(tree.unflatten([*leaves[:i], leaf + sign * way, *leaves[i + 1 :]]))[0]
                for sign in (1, -1)
            ]
            numeric = (ends[0] - ends[1]) / 2
            np.testing.assert_allclose((slope * way).sum(), numeric, rtol=1e-5, atol=1e-13)


CONFIG = Config("batchtopk", d_dict=F, k=4, batch=32, tokens=32 * 60, learning_rate=0.01)


def texts(first: int, end: int):
    for i in range(first, end):
        yield tokens(i, batch=4), jnp.ones((4, 8), bool)


def trained(first: int, end: int, **more):
    return fit_end_to_end(CONFIG, model(), texts(first, end), *AT, downstream=0.5, **more)


def test_training_lowers_the_divergence_and_goes_on_where_it_was(streams):
    whole, part = trained(0, 41), trained(0, 40)
    assert len(whole.kl) == 41 and np.mean(whole.kl[-5:]) < 0.75 * np.mean(whole.kl[:3])
    # What comes back is in the model's units: from there, another unit finds the same divergence.
    again = trained(40, 41, start=part.dictionary)
    np.testing.assert_allclose(again.kl, whole.kl[40:], rtol=1e-3)
    median = float(jnp.median(jnp.linalg.norm(streams[1][LAYER + 1], axis=-1)))
    fewer = trained(40, 41, start=part.dictionary, sink_norm=median)
    assert 0 < fewer.kl[0] < 0.95 * again.kl[0]


def test_what_it_cannot_do_is_one_line():
    wide = dataclasses.replace(CONFIG, architecture="matryoshka")
    for wrong, said in (
        (lambda: fit_end_to_end(wide, model(), texts(0, 1), *AT), "no end-to-end loss"),
        (lambda: trained(0, 0), "no texts"),
        (lambda: trained(0, 1, sink_norm=0.0), "give a larger sink_norm"),
        (lambda: EndToEnd(model(), "resid_post", 99), "give 0..3"),
        (lambda: EndToEnd(model(), "resid_post", 2, downstream=1.0), "give downstream=0"),
        (lambda: EndToEnd(model(), "resid_pre", 3, downstream=1.0), "give downstream=0"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            wrong()
        assert "\n" not in str(caught.value)
