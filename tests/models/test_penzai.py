"""Penzai: display in treescope, surgery by `pz.select`, and conversion with equal outputs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import treescope
from cases import slow_at
from penzai import pz
from penzai.models.transformer.variants import gpt_neox
from penzai.models.transformer.variants import llamalike_common as llamalike

from jaxcirc import run
from jaxcirc.models import from_penzai, process, to_penzai, toy
from jaxcirc.nn import MLP, AbstractNorm
from jaxcirc.taps import Read, Set, Sites

TOKENS = jax.random.randint(jax.random.key(9), (2, 10), 0, 50)
WINDOW = llamalike.AttentionTypeSlidingWindowCausal(3)
EVERYTHING = llamalike.AttentionTypeGlobalCausal()
LLAMA = {
    "num_kv_heads": 2,
    "query_head_multiplier": 2,
    "embedding_dim": 16,
    "projection_dim": 4,
    "mlp_hidden_dim": 24,
    "num_decoder_blocks": 2,
    "vocab_size": 50,
    "mlp_variant": "swiglu",
    "tie_embedder_and_logits": False,
    "rope_wavelength": 500.0,
}
GEMMA = {"tie_embedder_and_logits": True, "mlp_variant": "geglu_approx"}
VARIANTS = {
    "llama": {},
    "llama, full heads": {"num_kv_heads": 4, "query_head_multiplier": 1},
    "mistral": {"attention_type": WINDOW},
    "mistral, stacked": {"attention_type": WINDOW, "use_layer_stack": True},
    "gemma": {**GEMMA, "num_kv_heads": 1, "query_head_multiplier": 4},
    "gemma 2": {
        **GEMMA,
        "attention_type": (WINDOW, EVERYTHING),
        "use_post_attn_norm": True,
        "use_post_ffw_norm": True,
        "final_logit_softcap": 3.0,
        "attn_logits_soft_cap": 5.0,
        "query_scaling_factor": 0.3,
    },
    "gpt-neox": None,
    "gpt-neox, stacked": None,
}
ALIKE = ("llama", "llama, full heads", "mistral, stacked", "gpt-neox, stacked")
OURS = {
    "grouped": {},
    "gemma 3": {"qk_norm": True, "post_norm": True, "window": 3, "n_kv_heads": 1},
    "biases": {"soft_cap": 5.0, "biases": True},
    "plain": {"norm": "layer", "gated": False, "activation": "gelu", "n_kv_heads": 4},
    "parallel": {"parallel": True, "norm": "layer", "biases": True, "tied": False},
    "attention": {"d_mlp": None, "norm": None, "causal": False},
}


def filled(build, config):
    """A penzai model with random parameters, no gain 1 and no bias 0; drawn by numpy, since
    compiling penzai's own initialisers takes 20 s."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: pz.freeze_params(build(config, key)), jax.random.key(0))
    shapes = pz.select(shapes).at_instances_of(pz.ParameterValue).get_sequence()
    shapes = {parameter.label: parameter for parameter in shapes}  # tied ones occur twice

    def drawn(parameter):
        gain = float(parameter.label.endswith("scale.weights"))
        value = jax.tree.map(
            lambda x: jnp.asarray(random.normal(gain, 0.25, x.shape), x.dtype), parameter.value
        )
        return pz.Parameter(value=value, label=parameter.label)

    return pz.bind_variables(
        build(config, None), [drawn(parameter) for parameter in shapes.values()]
    )


@functools.cache
def variant(name: str):
    """A small random penzai model."""
    build, config = llamalike.build_llamalike_transformer, VARIANTS[name]
    if config is None:
        shape = (4, 16, 4, 32, 2, 50, "gelu_exact", 2, 700.0, 1e-5, jnp.float32, jnp.float32)
        config = gpt_neox.GPTNeoXTransformerConfig(*shape, use_layer_stack="stacked" in name)
        build = gpt_neox.build_gpt_neox_transformer
    else:
        config = llamalike.LlamalikeTransformerConfig(**(LLAMA | config))
    return filled(build, config)


def logits(pz_model):
    tokens = pz.nx.wrap(TOKENS).tag("batch", "seq")
    call = pz.variable_jit(lambda model, tokens: model(tokens))
    return call(pz_model, tokens).untag("batch", "seq", "vocabulary").unwrap()


def close(left, right):
    return jnp.abs(left - right).max() <= 1e-5 * jnp.abs(right).max()


def same(left, right):
    return jax.tree.all(jax.tree.map(lambda a, b: jnp.array_equal(a, b), left, right))


@pytest.mark.parametrize("name", slow_at(VARIANTS, *ALIKE))
def test_penzai_models_convert_and_return(name):
    reference = logits(variant(name))
    model = from_penzai(variant(name))
    assert close(run(model, TOKENS)[0], reference)
    returned = to_penzai(model)
    assert close(logits(returned), reference)
    assert same(from_penzai(returned), model)


@pytest.mark.parametrize("name", slow_at(OURS, "grouped", "biases", "plain"))
def test_our_models_convert_and_return(name):
    model = toy(jax.random.key(len(name)), n_layers=2, **OURS[name])
    reference = run(model, TOKENS)[0]
    converted = to_penzai(model)
    assert close(logits(converted), reference)
    assert close(run(from_penzai(converted), TOKENS)[0], reference)


def test_parts_that_no_toy_has():
    model = toy(jax.random.key(3), n_layers=2, parallel=True, norm="layer")
    model = pz.select(model).at(lambda m: m.blocks.mlp_norm).set(None)  # shared, as in GPT-J
    bias = jax.random.normal(jax.random.key(4), (50,))
    model = dataclasses.replace(model, unembed_bias=bias, embed_scale=3.0, logit_soft_cap=2.0)
    assert close(logits(to_penzai(model)), run(model, TOKENS)[0])


def labels(pz_model) -> set[str]:
    parameters = pz.select(pz.freeze_params(pz_model)).at_instances_of(pz.ParameterValue)
    return {parameter.label for parameter in parameters.get_sequence()}


@pytest.mark.parametrize("name", ["gemma 2", "gpt-neox"])
def test_labels_are_penzais(name):
    assert labels(to_penzai(from_penzai(variant(name)))) == labels(variant(name))


def test_weights_take_the_dtype_in_which_penzai_computes():
    config = llamalike.LlamalikeTransformerConfig(
        **LLAMA, parameter_dtype=jnp.bfloat16, activation_dtype=jnp.float32
    )
    theirs = filled(llamalike.build_llamalike_transformer, config)
    model = from_penzai(theirs)
    assert model.dtype == jnp.float32
    assert close(run(model, TOKENS)[0], logits(theirs))


@pytest.mark.slow
def test_what_cannot_be_converted_is_named():
    model = toy(jax.random.key(0), n_layers=1)
    with pytest.raises(ValueError, match="learned its positions"):
        to_penzai(toy(jax.random.key(0), n_layers=1, positions="learned"))
    wide = toy(jax.random.key(0), n_layers=1, d_head=8)
    scaled = pz.select(wide).at(lambda m: m.blocks.attn.rotary.inv_freq)
    with pytest.raises(ValueError, match="no rotary scaling"):
        to_penzai(scaled.apply(lambda f: f * jnp.array([1.0, 1.0, 1.0, 0.5])))
    rotary = model.blocks.attn.rotary
    neighbours = dataclasses.replace(rotary, interleaved=True)
    with pytest.raises(ValueError, match="rotates halves"):
        to_penzai(pz.select(model).at(lambda m: m.blocks.attn.rotary).set(neighbours))
    edited = (
        to_penzai(model).select().at_instances_of(pz.nn.Softmax).insert_before(pz.nn.Identity())
    )
    with pytest.raises(ValueError, match="Identity where Softmax belongs: undo the edit"):
        from_penzai(edited)
    with pytest.raises(ValueError, match="Sequential is not a penzai TransformerLM"):
        from_penzai(to_penzai(model).body)


# --- display and surgery, which need no conversion --------------------------------------------


def shown(value) -> str:
    html = treescope.render_to_html(value)
    assert html.startswith("<") and len(html) > 1000
    return treescope.render_to_text(value)


def test_treescope_shows_models():
    text = shown(toy(jax.random.key(0), n_layers=2))
    for leaf in ("embed=<jax.Array float32(50, 16)", "w_q=<jax.Array float32(2, 16, 4, 4)"):
        assert leaf in text  # name, dtype and shape; the values are summarised
    assert "processing='raw'" in text
    assert "nonzero:800" in text and len(text) < 10_000


def test_treescope_shows_edits_and_records():
    model = toy(jax.random.key(0), n_layers=2)
    edits = Sites(z=Read(), mlp_out=Set(jnp.zeros((2, 1, 1, 16))))
    assert "mlp_out=Set(" in shown(edits) and "z=Read(" in shown(edits)
    assert "z=<jax.Array float32(2, 2, 10, 4, 4)" in shown(run(model, TOKENS, edits)[1])


def test_select_sets_a_weight():
    model = toy(jax.random.key(0), n_layers=2)
    edited = pz.select(model).at(lambda m: m.blocks.attn.w_o).apply(jnp.zeros_like)
    _, records = run(edited, TOKENS, Sites(attn_out=Read()))
    assert type(edited) is type(model) and jnp.all(records.attn_out == 0)
    assert not jnp.all(model.blocks.attn.w_o == 0)


def test_select_replaces_a_part():
    model = toy(jax.random.key(0), n_layers=2)
    relu = pz.select(model).at_instances_of(MLP)
    relu = relu.apply(lambda mlp: dataclasses.replace(mlp, w_gate=None, activation="relu"))
    _, records = run(relu, TOKENS, Sites(mlp_post=Read()))
    assert records.mlp_post.min() == 0
    assert pz.select(model).at_instances_of(AbstractNorm).count() == 3


def test_select_edits_a_processed_model():
    model = process(toy(jax.random.key(0), n_layers=2), "tl")
    edited = pz.select(model).at(lambda m: m.unembed).apply(lambda w: 2 * w)
    assert close(run(edited, TOKENS)[0], 2 * run(model, TOKENS)[0])
