"""Laws of the dial and of splicing: 3 (its ends), 4 (its slope), 6 (splice is the identity)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import dictionaries, here, tiny, tokens

from jaxcirc.taps import Add, ByLayer, Chain, Code, Mix, Read, Set, Sites, Splice, run

DIALS = ("resid_pre", "q", "v", "k_at_head", "pattern", "z", "mlp_pre", "mlp_out", "resid_post")


def dial(model, alpha, values: Sites):
    """Logits of the clean tokens with every given site moved by alpha towards its value."""
    edits = Sites(**{site: Mix(value, alpha) for site, value in values.items()})
    return run(model, tokens(0), edits)[0]


def test_alpha_0_is_the_clean_run_and_alpha_1_at_the_bottom_is_the_corrupt_run(model):
    _, corrupt = run(model, tokens(1), Sites(resid_pre=Read()))
    first = jnp.zeros(model.n_layers, model.dtype).at[0].set(1)
    ends = [dial(model, alpha, Sites(resid_pre=corrupt.resid_pre)) for alpha in (0 * first, first)]
    for found, expected in zip(
        ends, (run(model, tokens(0))[0], run(model, tokens(1))[0]), strict=True
    ):
        assert float(jnp.abs(found - expected).max()) <= 1e-5 * float(jnp.abs(expected).max())


def test_alpha_1_gives_the_value_to_the_bit():
    x, v = jax.random.normal(jax.random.key(0), (2, 10_000))
    moved, seen = Mix(v, jnp.asarray(1.0))(x)
    np.testing.assert_array_equal(moved, v)
    np.testing.assert_array_equal(seen, x)


@pytest.mark.parametrize("site", DIALS)
def test_the_slope_at_0_is_the_difference_times_the_gradient(tiny_model, site):
    if site not in tiny_model.sites():
        return
    _, there = run(tiny_model, tokens(1), Sites(**{site: Read()}))
    _, base = run(tiny_model, tokens(0), Sites(**{site: Read()}))
    value, zero = getattr(there, site), jnp.zeros(tiny_model.n_layers)

    def metric(logits):
        return logits[:, -1, 3].sum() - logits[:, -1, 5].sum()

    slope = jax.grad(lambda a: metric(dial(tiny_model, a, Sites(**{site: value}))))(zero)

    def nudged(nudge):
        return metric(run(tiny_model, tokens(0), Sites(**{site: Add(nudge)}))[0])

    gradient = jax.grad(nudged)(jnp.zeros_like(value))
    product = (value - getattr(base, site)) * gradient
    expected = product.sum(axis=tuple(range(1, product.ndim)))
    np.testing.assert_allclose(
        slope, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(slope).max() + 1)
    )


@pytest.mark.parametrize("name", ["relu", "topk"])
def test_splice_around_read_is_the_identity_in_value_and_gradient(tiny_model, name):
    dictionary = dictionaries(tiny_model.config.d_model)[name]
    sites = here(tiny_model, ("resid_mid", "mlp_out", "resid_post"))
    splice = ByLayer((Splice(dictionary, Read()),) * 2, layers=(0, 2))
    spliced = Sites(**{site: splice for site in sites})

    def loss(nudge, edits):
        start = Sites(resid_pre=Add(nudge))
        logits, _ = run(tiny_model, tokens(), start | edits)
        return jax.nn.log_softmax(logits)[:, -1, 3].sum(), logits

    shape = (tiny_model.n_layers, *tokens().shape, tiny_model.config.d_model)
    gradient = jax.grad(loss, has_aux=True)
    plain, logits = gradient(jnp.zeros(shape), Sites(resid_post=ByLayer((Read(),) * 2, (0, 2))))
    found, same = gradient(jnp.zeros(shape), spliced)
    np.testing.assert_allclose(same, logits, atol=2e-5 * float(jnp.abs(logits).max()))
    np.testing.assert_allclose(found, plain, atol=2e-5 * float(jnp.abs(plain).max()))


@pytest.mark.parametrize("name", ["relu", "topk"])
def test_splice_itself_is_bitwise_the_identity(name):
    x = 100 * jax.random.normal(jax.random.key(0), (5, 7, 16))
    same, code = Splice(dictionaries(16)[name], Read())(x)
    np.testing.assert_array_equal(same, x)
    assert float(jnp.abs(code.error).max()) > 1, "an exact dictionary would prove nothing"


def test_splice_edits_the_feature_that_it_is_told_to():
    x = jax.random.normal(jax.random.key(0), (5, 7, 16))
    dictionary = dictionaries(16)["relu"]
    off = jnp.arange(24) == 3
    edit = Set(Code(0.0, 0.0), Code(off, jnp.zeros(16, bool)))
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
