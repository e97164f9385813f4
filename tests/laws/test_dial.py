"""Laws of the dial and of splicing: 3 (its ends), 4 (its slope), 6 (splice is the identity)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SHAPES, close, dictionaries, here, slow_at, tiny, tokens

from jaxcirc.taps import Add, ByLayer, Chain, Code, Mix, Read, Set, Sites, Splice, run

DIALS = ("resid_pre", "q", "v", "k_at_head", "pattern", "z", "mlp_pre", "mlp_out", "resid_post")


def dial(model, alphas: dict, values: Sites):
    """Logits of the clean tokens with every given site moved by its alpha towards its value."""
    edits = Sites(**{site: Mix(value, alphas[site]) for site, value in values.items()})
    return run(model, tokens(0), edits)[0]


def test_a_dial_at_rest_is_the_clean_run_bitwise(model):
    alpha = {"resid_pre": jnp.zeros(model.n_layers)}
    shape = (model.n_layers, *tokens().shape, model.config.d_model)
    values = [jax.random.normal(jax.random.key(i), shape, model.dtype) for i in range(2)]
    at_rest = [dial(model, alpha, Sites(resid_pre=value)) for value in values]
    np.testing.assert_array_equal(*at_rest)
    close(at_rest[0], run(model, tokens(0))[0])


def test_a_dial_turned_at_the_bottom_is_the_corrupt_run(model):
    logits, corrupt = run(model, tokens(1), Sites(resid_pre=Read()))
    first = jnp.zeros(model.n_layers).at[0].set(1)
    close(dial(model, {"resid_pre": first}, Sites(resid_pre=corrupt.resid_pre)), logits)


def test_alpha_1_gives_the_value_to_the_bit():
    x, v = jax.random.normal(jax.random.key(0), (2, 10_000))
    moved, seen = Mix(v, jnp.asarray(1.0))(x)
    np.testing.assert_array_equal(moved, v)
    np.testing.assert_array_equal(seen, x)


@pytest.mark.parametrize("name", slow_at(SHAPES, "grouped", "parallel", "attention"))
def test_the_slope_at_0_is_the_difference_times_the_gradient(name):
    """At every site at once: a dial at rest leaves the others' slopes alone."""
    model = tiny(name)
    reads = Sites(**{site: Read() for site in here(model, DIALS)})
    base, there = (run(model, tokens(key), reads)[1] for key in (0, 1))

    def metric(logits):
        return logits[:, -1, 3].sum() - logits[:, -1, 5].sum()

    @jax.jit
    def slopes(model, there):
        rest = {site: jnp.zeros(model.n_layers) for site, _ in there.items()}
        return jax.grad(lambda alphas: metric(dial(model, alphas, there)))(rest)

    @jax.jit
    def gradients(model, zeros):
        def nudged(nudges):
            edits = Sites(**{site: Add(nudge) for site, nudge in nudges.items()})
            return metric(run(model, tokens(0), edits)[0])

        return jax.grad(nudged)(zeros)

    found = slopes(model, there)
    gradient = gradients(model, jax.tree.map(jnp.zeros_like, there))
    for site, value in there.items():
        product = (value - getattr(base, site)) * getattr(gradient, site)
        close(found[site], product.sum(axis=tuple(range(1, product.ndim))), 1e-4)


def test_splice_around_read_is_the_identity_in_value_and_gradient(tiny_model):
    """Two sites at once, by a ReLU dictionary at one layer and TopK at another."""
    sites = here(tiny_model, ("attn_out", "resid_post"))

    @jax.jit
    def gradient(model, nudge, edits):
        def loss(nudge):
            table = Sites(**{site: ByLayer(edits, layers=(0, 2)) for site in sites})
            logits, _ = run(model, tokens(), Sites(resid_pre=Add(nudge)) | table)
            return jax.nn.log_softmax(logits)[:, -1, 3].sum(), logits

        return jax.grad(loss, has_aux=True)(nudge)

    nudge = jnp.zeros((tiny_model.n_layers, *tokens().shape, tiny_model.config.d_model))
    made = dictionaries(tiny_model.config.d_model)
    spliced = tuple(Splice(made[name], Read()) for name in ("relu", "topk"))
    found, same = gradient(tiny_model, nudge, spliced)
    plain, logits = gradient(tiny_model, nudge, (Read(), Read()))
    close(same, logits, 2e-5)
    close(found, plain, 2e-5)


@pytest.mark.parametrize("name", ["relu", "topk"])
def test_splice_itself_is_bitwise_the_identity(name):
    x = 100 * jax.random.normal(jax.random.key(0), (5, 7, 16))
    same, code = Splice(dictionaries(16)[name], Read())(x)
    np.testing.assert_array_equal(same, x)
    assert float(jnp.abs(code.error).max()) > 1, "an exact dictionary would prove nothing"


def test_splice_edits_the_feature_that_it_is_told_to():
    x = jax.random.normal(jax.random.key(0), (5, 7, 16))
    dictionary = dictionaries(16)["relu"]
    edit = Set(0.0, Code(jnp.arange(24) == 3, jnp.zeros(16, bool)))
    moved, _ = Splice(dictionary, edit)(x)
    feature = dictionary.encode(x)[..., 3:4]
    np.testing.assert_allclose(moved, x - feature * dictionary.w.T[3] * 0.1, atol=1e-5)


def test_stopped_errors_change_upstream_gradients():
    """The known trap: detached errors give the right value and the wrong slope."""
    dictionary = dictionaries(16)["relu"]
    x = jax.random.normal(jax.random.key(1), (16,))

    def slope(mode):
        return jax.grad(lambda x: Splice(dictionary, Read(), mode)(x)[0].sum())(x)

    np.testing.assert_array_equal(slope("exact"), jnp.ones(16))
    assert float(jnp.abs(slope("stopped") - 1).max()) > 0.1


def test_edits_of_one_site_compose_in_order():
    model = tiny("grouped")
    table = Sites(z=Set(2.0)) | Sites(z=Add(1.0)) | Sites(z=Read())
    assert isinstance(table.z, Chain)
    _, records = run(model, tokens(), table)
    np.testing.assert_array_equal(records.z[-1], jnp.full_like(records.z[-1], 3.0))
