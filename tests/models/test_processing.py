"""Processing changes coordinates and nothing else: log-probabilities stay, each site's relation to
the raw model holds, and the weights are what the mode promises."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from cases import slow_at

from jaxcirc import run
from jaxcirc.models import cast, process, require_processing, toy
from jaxcirc.nn import LayerNorm
from jaxcirc.taps import Read, Sites

SHAPES = {
    "grouped": {},
    "gemma": {"qk_norm": True, "post_norm": True, "window": 3, "n_kv_heads": 1},
    "capped": {"soft_cap": 5.0, "window": 4, "biases": True},
    "bare": {"d_mlp": None, "norm": None, "positions": "learned", "n_kv_heads": 4, "biases": True},
    "gpt2": {
        "norm": "layer",
        "positions": "learned",
        "gated": False,
        "biases": True,
        "n_kv_heads": 4,
    },
    "parallel": {"parallel": True, "norm": "layer", "biases": True, "tied": False},
    "shared": {"parallel": True, "norm": "layer"},
    "attention": {"d_mlp": None, "norm": "layer", "biases": True},
}
ALIKE = (("grouped", "tl"), ("shared", "tl"), ("bare", "tl"))
LAYERNORM = ("gpt2", "parallel", "shared", "attention")
CENTRED = ("embed", "resid_post", "attn_out", "head_out", "mlp_out", "final_resid")
SAME = ("rot_q", "rot_k", "scores", "pattern", "mlp_pre", "mlp_up", "mlp_post")
TOKENS = jax.random.randint(jax.random.key(9), (3, 8), 0, 50)
VALID = [(name, "tl") for name in SHAPES] + [(name, "centred") for name in LAYERNORM]


@functools.cache
def made(name: str):
    """A random model; "shared" has one norm for both halves of its blocks, as GPT-J has."""
    model = toy(jax.random.key(len(name)), n_layers=2, **SHAPES[name])
    bias = 0.3 * jax.random.normal(jax.random.key(1), (50,))
    model = dataclasses.replace(model, unembed_bias=bias if name == "parallel" else None)
    if name != "shared":
        return model
    return eqx.tree_at(lambda m: m.blocks.mlp_norm, model, None)


@functools.cache
def ran(name: str, mode: str):
    """(model, logits, records of the sites) of a processed model."""
    model = process(made(name), mode)
    sites = [site for site in CENTRED + SAME + ("v",) if site in model.sites()]
    return model, *run(model, TOKENS, Sites(**{site: Read() for site in sites}))


def close(left, right, tolerance=1e-5):
    """The largest difference, as a share of the largest value."""
    return jnp.abs(left - right).max() <= tolerance * jnp.abs(right).max()


def centred(x):
    return x - x.mean(-1, keepdims=True)


def means_vanish(weight, axis=-1):
    return jnp.abs(weight.mean(axis)).max() <= 1e-6 * jnp.abs(weight).max()


@pytest.mark.parametrize("name, mode", slow_at(VALID, *ALIKE))
def test_log_probabilities_stay(name, mode):
    raw, done = (jax.nn.log_softmax(ran(name, m)[1]) for m in ("raw", mode))
    assert close(done, raw)


@pytest.mark.parametrize("name, mode", slow_at(VALID, *ALIKE))
def test_what_is_read_stays(name, mode):
    raw, done = ran(name, "raw")[2], ran(name, mode)[2]
    here = [site for site in SAME if getattr(raw, site) is not None]
    assert len(here) >= 4
    assert all(close(getattr(done, site), getattr(raw, site)) for site in here)


@pytest.mark.parametrize("name", LAYERNORM)
def test_centred_stream_is_the_raw_one_minus_its_mean(name):
    _, raw_logits, raw = ran(name, "raw")
    _, logits, done = ran(name, "centred")
    for site in CENTRED:
        if getattr(raw, site) is not None:
            assert close(getattr(done, site), centred(getattr(raw, site)))
    assert close(done.v, raw.v)
    assert close(logits, centred(raw_logits))


@pytest.mark.parametrize("name", SHAPES)
def test_tl_stream_and_values(name):
    model, logits, done = ran(name, "tl")
    _, raw_logits, raw = ran(name, "raw")
    for site in CENTRED:
        value = getattr(raw, site)
        if value is None or site == "head_out":  # its value bias has moved into b_o
            continue
        assert close(getattr(done, site), centred(value) if name in LAYERNORM else value)
    assert close(logits, centred(raw_logits))
    assert model.blocks.attn.b_v is None
    bias = (raw.v - done.v)[:, :1, :1]  # the same at every position
    assert close(done.v + bias, raw.v)


@pytest.mark.parametrize("name", SHAPES)
def test_tl_weights(name):
    model = ran(name, "tl")[0]
    attn, mlp = model.blocks.attn, model.blocks.mlp
    for norm in (model.blocks.attn_norm, model.blocks.mlp_norm, model.final_norm):
        if norm is not None:
            assert jnp.all(norm.weight == 1) and getattr(norm, "offset", 0) == 0
            assert getattr(norm, "bias", None) is None
    assert means_vanish(model.unembed)
    if name in LAYERNORM:
        writes = [model.embed, attn.w_o, attn.b_o] + ([] if mlp is None else [mlp.w_out])
        assert all(means_vanish(w) for w in writes if w is not None)
        reads = [attn.w_q, attn.w_k, attn.w_v] + ([] if mlp is None else [mlp.w_in])
        assert all(means_vanish(w, 1) for w in reads)
        assert means_vanish(model.unembed, 0)


def test_a_soft_cap_on_logits_forbids_centring_them():
    model = dataclasses.replace(made("gpt2"), logit_soft_cap=3.0)
    done = process(model, "centred")
    assert close(run(done, TOKENS)[0], run(model, TOKENS)[0])
    assert not means_vanish(done.unembed)


def test_the_model_given_stays_raw_and_tied():
    model = made("gpt2")
    done = process(model, "tl")
    assert model.unembed is None and done.unembed.shape == (16, 50)
    assert (model.config.processing, done.config.processing) == ("raw", "tl")
    assert process(model, "raw") is model


def test_dtype_of_the_weights_is_kept():
    done = process(cast(made("gpt2"), jnp.bfloat16), "tl")
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(done, eqx.is_inexact_array))}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}
    assert isinstance(done.final_norm, LayerNorm)


def test_errors_contain_the_call():
    model = made("gpt2")
    done = process(model, "tl")
    with pytest.raises(ValueError, match="'raw', 'centred', 'tl'"):
        process(model, "folded")
    with pytest.raises(ValueError, match=r'already \(\'tl\'\).*process\(load_model.*"centred"\)'):
        process(done, "centred")
    with pytest.raises(ValueError, match=r"without LayerNorm.*process\(model, \"tl\"\)"):
        process(made("grouped"), "centred")
    with pytest.raises(ValueError, match=r'toy is \'raw\': use process\(model, "tl"\)'):
        require_processing(model, "tl")
    with pytest.raises(ValueError, match=r"use load_model\('toy'\)\[0\]"):
        require_processing(done, "raw")
    assert require_processing(done, "tl") is done
