"""What other libraries' files mean, against their formulas spelled out in numpy."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from format_cases import CASES, FACTS, D, F, close, coder, inputs, numbers, outputs, place
from safetensors.numpy import load_file, save_file

from jaxcirc.dictionaries import (
    L1,
    BatchTopK,
    JumpReLU,
    Matryoshka,
    Standardised,
    TopK,
    Transcoder,
    load_dictionary,
    save_dictionary,
)
from jaxcirc.dictionaries.formats import CrossLayer
from jaxcirc.dictionaries.formats._torch_zip import torch_bytes

X = np.asarray(inputs(None), np.float64)


def weights(seed: int = 0, d_out: int = D) -> dict[str, np.ndarray]:
    """Random arrays by SAELens's names; directions of many lengths."""
    c = coder(seed, d_out=d_out)
    names = zip(
        ("W_enc", "b_enc", "W_dec", "b_dec"), (c.w_enc, c.b_enc, c.w_dec, c.b_dec), strict=True
    )
    return {name: np.asarray(leaf) for name, leaf in names}


def saelens(folder, config: dict, arrays: dict):
    folder.mkdir(exist_ok=True)
    stated = {"d_in": D, "d_sae": F, "dtype": "float32"} | config
    (folder / "cfg.json").write_text(json.dumps(stated))
    arrays = {name: np.array(leaf, order="C") for name, leaf in arrays.items()}
    save_file(arrays, folder / "sae_weights.safetensors")
    return folder


def v6(architecture: str, **extra) -> dict:
    own = {"metadata": {"sae_lens_version": "6.5.1", "hook_name": "blocks.3.hook_resid_pre"}}
    return own | {"architecture": architecture} | extra


def relu(x):
    return np.maximum(x, 0)


def topk(p, k):
    kept = np.argsort(-p, axis=-1)[:, :k]
    found = np.zeros_like(p)
    np.put_along_axis(found, kept, np.take_along_axis(p, kept, -1), -1)
    return relu(found)


def agrees(path, features, made, **options):
    found, facts = load_dictionary(path, **options)
    own = outputs(found, inputs(None))
    close(own[0], features)
    close(own[1], made)
    return found, facts


@pytest.mark.parametrize("minus", [True, False, None])
def test_saelens_subtracts_the_bias_unless_told(minus, tmp_path):
    a = weights()
    extra = {} if minus is None else {"apply_b_dec_to_input": minus}
    path = saelens(tmp_path / "a", v6("standard", **extra), a)
    z = X if minus is False else X - a["b_dec"]
    f = relu(z @ a["W_enc"] + a["b_enc"])
    _, facts = agrees(path, f, f @ a["W_dec"] + a["b_dec"])
    assert (facts["site"], facts["layer"]) == ("resid_pre", 3)


def test_saelens_gated(tmp_path):
    a = weights()
    a |= {
        "b_gate": a.pop("b_enc"),
        "b_mag": np.asarray(numbers(1, F)),
        "r_mag": np.asarray(numbers(2, F)),
    }
    z = X - a["b_dec"]
    size = relu(z @ (a["W_enc"] * np.exp(a["r_mag"])) + a["b_mag"])
    f = (z @ a["W_enc"] + a["b_gate"] > 0) * size
    agrees(saelens(tmp_path / "a", v6("gated"), a), f, f @ a["W_dec"] + a["b_dec"])


@pytest.mark.parametrize("rescale", [False, True])
def test_saelens_topk_rescaled_by_decoder_norm(rescale, tmp_path):
    a = weights()
    n = np.linalg.norm(a["W_dec"], axis=1) if rescale else np.ones(F)
    f = topk(((X - a["b_dec"]) @ a["W_enc"] + a["b_enc"]) * n, 3)
    path = saelens(tmp_path / "a", v6("topk", k=3, rescale_acts_by_decoder_norm=rescale), a)
    found, _ = agrees(path, f, (f / n) @ a["W_dec"] + a["b_dec"])
    assert isinstance(found, TopK)


@pytest.mark.parametrize("name", ["threshold", "log_threshold"])
def test_saelens_thresholds(name, tmp_path):
    """Below 0 they are 0; very old files hold their logarithm."""
    a, theta = weights(), np.linspace(-3, 3, F).astype(np.float32)
    theta = theta if name == "threshold" else np.abs(theta) + 0.1
    stored = theta if name == "threshold" else np.log(theta)
    p = (X - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
    f = relu(p) * (p > theta)
    assert ((p < 0) & (p > theta)).any() == (name == "threshold")
    path = saelens(tmp_path / "a", v6("jumprelu"), a | {name: stored})
    agrees(path, f, f @ a["W_dec"] + a["b_dec"])


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
def test_saelens_training_files(kind, tmp_path):
    a = weights()
    n = np.linalg.norm(a["W_dec"], axis=1)
    config = v6(kind, k=3.0, rescale_acts_by_decoder_norm=True, matryoshka_widths=[6, F])
    path = saelens(tmp_path / "a", config, a | {"topk_threshold": np.asarray(0.3, np.float64)})
    p = ((X - a["b_dec"]) @ a["W_enc"] + a["b_enc"]) * n
    f = relu(p) * (p > 0.3)
    found, _ = agrees(path, f, (f / n) @ a["W_dec"] + a["b_dec"])
    assert isinstance(found, BatchTopK | Matryoshka) and found.k == 3


@pytest.mark.parametrize("case", ["batchtopk", "matryoshka"])
def test_saelens_gets_batchtopk_as_jumprelu(case, tmp_path):
    path = save_dictionary(CASES[case], tmp_path / "a", "saelens", FACTS)
    config = json.loads((path / "cfg.json").read_text())
    threshold = load_file(path / "sae_weights.safetensors")["threshold"]
    assert config["architecture"] == "jumprelu" and "k" not in config
    np.testing.assert_array_equal(threshold, np.full(F, CASES[case].threshold.value))
    found, facts = load_dictionary(path)
    assert isinstance(found, JumpReLU) and facts["trained_as"].endswith("batchtopk")


@pytest.mark.parametrize("where", ["argument", "scaler"])
def test_saelens_average_norm_is_folded(where, tmp_path):
    """W_enc s, W_dec / s and b_dec / s: the last was forgotten once."""
    a, s = weights(), 0.37
    path = saelens(
        tmp_path / "a", v6("standard", normalize_activations="expected_average_only_in"), a
    )
    with pytest.raises(ValueError, match=r"read_saelens\(.*, scale=sqrt\(d_in\) / mean_length\)"):
        load_dictionary(path)
    if where == "scaler":
        (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": s}))
    f = relu((s * X - a["b_dec"]) @ a["W_enc"] + a["b_enc"])
    options = {"scale": s} if where == "argument" else {}
    agrees(path, f, (f @ a["W_dec"] + a["b_dec"]) / s, **options)


@pytest.mark.parametrize("demand", ["layer_norm", "constant_norm_rescale"])
def test_saelens_normalises_every_token(demand, tmp_path):
    a = weights()
    path = saelens(tmp_path / "a", v6("standard", normalize_activations=demand), a)
    if demand == "layer_norm":
        mean, size = X.mean(-1, keepdims=True), X.std(-1, ddof=1, keepdims=True)
        z, back = (X - mean) / (size + 1e-5), lambda y: y * size + mean
    else:
        unit = D**0.5 / np.linalg.norm(X, axis=-1, keepdims=True)
        z, back = X * unit, lambda y: y / unit
    f = relu((z - a["b_dec"]) @ a["W_enc"] + a["b_enc"])
    found, _ = load_dictionary(path)
    assert isinstance(found, Standardised)
    close(found.activations(inputs(None)), f)
    close(outputs(found, inputs(None))[1], back(f @ a["W_dec"] + a["b_dec"]))
    path = saelens(path, v6("transcoder", normalize_activations=demand), a)
    with pytest.raises(ValueError, match="a transcoder with normalize_activations"):
        load_dictionary(path)


def test_saelens_before_version_6(tmp_path):
    """Flat, under other names, with topk as an activation function and booleans for words."""
    a = weights()
    config = {
        "model_name": "gpt2-small",
        "hook_point": "blocks.2.attn.hook_q",
        "hook_point_layer": 2,
        "hook_point_head_index": 5,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "normalize_activations": False,
    }
    path = saelens(tmp_path / "a", config, a)
    f = topk((X - a["b_dec"]) @ a["W_enc"] + a["b_enc"], 3)
    found, facts = agrees(path, f, f @ a["W_dec"] + a["b_dec"])
    assert isinstance(found, TopK)
    wanted = {"model": "gpt2-small", "site": "q", "layer": 2, "head": 5, "architecture": "topk"}
    assert facts | wanted == facts
    path = saelens(path, config | {"normalize_activations": True}, a)
    f = topk((0.5 * X - a["b_dec"]) @ a["W_enc"] + a["b_enc"], 3)
    agrees(path, f, (f @ a["W_dec"] + a["b_dec"]) / 0.5, scale=0.5)
    path = saelens(path, config | {"activation_fn_str": "tanh-relu"}, a)
    with pytest.raises(ValueError, match="no activation_fn 'tanh-relu' here; known are relu and t"):
        load_dictionary(path)


def test_saelens_scaling_factor(tmp_path):
    a = weights()
    ones = a | {"scaling_factor": np.ones(F, np.float32)}
    f = relu((X - a["b_dec"]) @ a["W_enc"] + a["b_enc"])
    agrees(saelens(tmp_path / "a", {}, ones), f, f @ a["W_dec"] + a["b_dec"])
    real = a | {"scaling_factor": np.linspace(0.5, 2, F).astype(np.float32)}
    with pytest.raises(ValueError, match='"finetuning_scaling_factor": false'):
        load_dictionary(saelens(tmp_path / "b", {}, real))
    path = saelens(tmp_path / "c", {"finetuning_scaling_factor": True}, real)
    agrees(path, f, (f * real["scaling_factor"]) @ a["W_dec"] + a["b_dec"])


def test_saelens_heads_lie_side_by_side(tmp_path):
    own = {"sae_lens_version": "6.5.1", "hook_name": "blocks.3.attn.hook_z"}
    config = v6("standard", reshape_activations="hook_z", metadata=own)
    found, facts = load_dictionary(saelens(tmp_path / "a", config, weights()))
    assert facts["site"] == "z" and facts["flattened"] and found.d_in == D
    path = save_dictionary(found, tmp_path / "b", "saelens", facts)
    assert json.loads((path / "cfg.json").read_text())["reshape_activations"] == "hook_z"


def test_saelens_processing_is_kept(tmp_path):
    asked = {"center_writing_weights": True}
    config = v6("standard")
    config["metadata"]["model_from_pretrained_kwargs"] = asked
    found, facts = load_dictionary(saelens(tmp_path / "a", config, weights()))
    assert facts["processing"] == asked
    path = save_dictionary(found, tmp_path / "b", "saelens", facts)
    written = json.loads((path / "cfg.json").read_text())
    assert written["metadata"]["model_from_pretrained_kwargs"] == asked


def test_saelens_skip_is_transposed(tmp_path):
    a = weights(d_out=6)
    a |= {"W_skip": np.asarray(numbers(1, 6, D)), "threshold": np.asarray(numbers(2, F))}
    p = X @ a["W_enc"] + a["b_enc"]
    f = relu(p) * (p > a["threshold"])
    config = v6("jumprelu_skip_transcoder", d_out=6, apply_b_dec_to_input=False)
    config["metadata"]["hook_name_out"] = "blocks.3.hook_mlp_out"
    path = saelens(tmp_path / "a", config, a)
    _, facts = agrees(path, f, f @ a["W_dec"] + a["b_dec"] + X @ a["W_skip"].T)
    assert facts["site_out"] == "mlp_out"


BROKEN = {
    "no 'temporal' here; known are standard, topk": (v6("temporal"), {}),
    'cfg.json has no "architecture"': ({"metadata": {"sae_lens_version": "6.0.0"}}, {}),
    "holds W_skip, which its architecture has no use for": (v6("standard"), {"W_skip": np.eye(D)}),
    "lacks threshold: it holds W_dec, W_enc": (v6("jumprelu"), {}),
    "do not fit together: they are (d, F)": (v6("standard"), {"W_dec": np.zeros((D, F))}),
    "b_enc (3,)": (v6("standard"), {"b_enc": np.zeros(3)}),
    "cfg.json says d_in 768, d_sae 24": (v6("standard", d_in=768), {}),
    "holds weights that are not finite": (v6("standard"), {"b_dec": np.full(D, np.nan)}),
    "shape (3,) where (24,) belongs": (v6("jumprelu"), {"threshold": np.zeros(3)}),
    'has k = None: it needs "k": 32': (v6("topk"), {}),
    "unknown normalize_activations 'some'": (v6("standard", normalize_activations="some"), {}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_saelens_files(message, tmp_path):
    config, arrays = BROKEN[message]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_dictionary(saelens(tmp_path / "a", config, weights() | arrays))
    assert "\n" not in str(caught.value)


def torch_folder(folder, kind: str | None, arrays: dict, **trainer):
    folder.mkdir()
    (folder / "ae.pt").write_bytes(torch_bytes(arrays))
    if kind:
        config = {"trainer": {"dict_class": kind} | trainer, "buffer": {"ctx_len": 128}}
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def linear(a: dict, bias: str) -> dict:
    named = {"encoder.weight": a["W_enc"].T, "encoder.bias": a["b_enc"]}
    return named | {"decoder.weight": a["W_dec"].T, bias: a["b_dec"]}


def dictionary_learning_cases():
    a, theta = weights(), np.asarray(numbers(1, F))
    minus, plain = (z @ a["W_enc"] + a["b_enc"] for z in (X - a["b_dec"], X))
    k, cut = np.asarray(3, np.int32), np.asarray(0.3, np.float32)
    gate = {"gate_bias": a["b_enc"], "r_mag": theta, "mag_bias": -theta}
    gated = {
        name: leaf for name, leaf in linear(a, "decoder_bias").items() if "encoder.b" not in name
    }
    shared = minus - a["b_enc"]
    size = (minus > 0) * relu(np.exp(theta) * shared - theta)
    sizes = {"k": k, "threshold": cut, "group_sizes": np.asarray([6, F - 6])}
    return {
        "AutoEncoder": (linear(a, "bias"), relu(minus), a["W_dec"]),
        "AutoEncoderNew": (linear(a, "decoder.bias"), relu(plain), a["W_dec"]),
        "GatedAutoEncoder": (gated | gate, size, a["W_dec"]),
        "JumpReluAutoEncoder": (a | {"threshold": theta}, plain * (plain > theta), a["W_dec"]),
        "AutoEncoderTopK": (linear(a, "b_dec") | {"k": k}, topk(minus, 3), a["W_dec"]),
        "BatchTopKSAE": (
            *(linear(a, "b_dec") | {"k": k, "threshold": cut}, relu(minus) * (minus > 0.3)),
            a["W_dec"],
        ),
        "MatryoshkaBatchTopKSAE": (a | sizes, relu(minus) * (minus > 0.3), a["W_dec"]),
    }


@pytest.mark.parametrize("kind", dictionary_learning_cases())
def test_dictionary_learning(kind, tmp_path):
    arrays, f, rows = dictionary_learning_cases()[kind]
    trainer = {"lm_name": "EleutherAI/pythia-70m", "layer": 4, "activation_dim": D, "dict_size": F}
    trainer["submodule_name"] = "resid_post_layer_4"
    path = torch_folder(tmp_path / "a", kind, arrays, **trainer)
    _, facts = agrees(path, f, f @ rows + weights()["b_dec"], expect={"model": "pythia-70m"})
    assert (facts["site"], facts["layer"], facts["architecture"]) == ("resid_post", 4, kind)
    agrees(path / "ae.pt", f, f @ rows + weights()["b_dec"])


def test_dictionary_learning_threshold_not_yet_set(tmp_path):
    arrays, _, rows = dictionary_learning_cases()["BatchTopKSAE"]
    arrays["threshold"] = np.asarray(-1.0, np.float32)
    a = weights()
    f = relu((X - a["b_dec"]) @ a["W_enc"] + a["b_enc"])
    agrees(torch_folder(tmp_path / "a", "BatchTopKSAE", arrays), f, f @ rows + a["b_dec"])


def test_dictionary_learning_without_its_configuration(tmp_path):
    arrays, f, rows = dictionary_learning_cases()["AutoEncoder"]
    agrees(torch_folder(tmp_path / "a", None, arrays), f, f @ rows + weights()["b_dec"])
    arrays, *_ = dictionary_learning_cases()["AutoEncoderTopK"]
    with pytest.raises(ValueError, match="does not tell its class by its tensors: put config.json"):
        load_dictionary(torch_folder(tmp_path / "b", None, arrays))
    with pytest.raises(ValueError, match="no 'CrossCoder' here; known are AutoEncoder"):
        load_dictionary(torch_folder(tmp_path / "c", "CrossCoder", arrays))
    with pytest.raises(ValueError, match=r"config.json says \(512, 24\)"):
        path = torch_folder(
            tmp_path / "d", "AutoEncoderTopK", arrays, activation_dim=512, dict_size=F
        )
        load_dictionary(path)


def sparsify(folder, arrays: dict, **config):
    folder.mkdir()
    stated = {"d_in": D, "k": 3, "expansion_factor": F // D, "num_latents": 0} | config
    (folder / "cfg.json").write_text(json.dumps(stated))
    arrays = {name: np.array(leaf, order="C") for name, leaf in arrays.items()}
    save_file(arrays, folder / "sae.safetensors")
    return folder


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_sparsify(transcode, skip, tmp_path):
    """W_dec lies as it is, W_skip is transposed and kept, b_dec subtracted but by transcoders."""
    a = weights()
    arrays = {"encoder.weight": a["W_enc"].T, "encoder.bias": a["b_enc"]}
    arrays |= {"W_dec": a["W_dec"], "b_dec": a["b_dec"]}
    arrays |= {"W_skip": np.asarray(numbers(1, D, D))} if skip else {}
    path = sparsify(tmp_path / "layers.10", arrays, transcode=transcode, skip_connection=skip)
    f = topk((X if transcode else X - a["b_dec"]) @ a["W_enc"] + a["b_enc"], 3)
    made = f @ a["W_dec"] + a["b_dec"] + (X @ arrays["W_skip"].T if skip else 0)
    found, facts = agrees(path, f, made)
    ends = facts["site"], facts.get("site_out"), facts["layer"]
    assert ends == (("resid_pre", "resid_post", 10) if transcode else ("resid_post", None, 10))
    assert isinstance(found, Transcoder if transcode or skip else TopK)


def test_sparsify_that_is_not_here(tmp_path):
    a = weights()
    arrays = {"encoder.weight": a["W_enc"].T, "encoder.bias": a["b_enc"]}
    arrays |= {"W_dec": a["W_dec"], "b_dec": a["b_dec"], "W_skip": np.zeros((D, D), np.float32)}
    cases = {
        "no activation 'groupmax' here": {"activation": "groupmax"},
        "asks for signed, which is not here": {"signed": True},
        "holds W_skip, which its architecture has no use for": {},
        "says 8 to 99, the weights (8, 24)": {"num_latents": 99, "skip_connection": True},
    }
    for i, (message, config) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_dictionary(sparsify(tmp_path / f"h.{i}.attn", arrays, **config))


def gemma(folder, arrays: dict):
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)
    return folder


GEMMA = {
    "gemma-scope-9b-it-res/layer_12/width_16k/average_l0_8": ("gemma-2-9b-it", "resid_post", 12),
    "gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_8": ("gemma-2-2b", "z", 3),
    "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_8": ("gemma-2-2b", "mlp_out", 3),
    "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_8": ("gemma-2-2b", "mlp_normed", 3),
    "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_8": ("gemma-2-2b", "embed", None),
}


@pytest.mark.parametrize("path", GEMMA)
@pytest.mark.parametrize("spelled", ["W", "w"])
def test_gemma_scope(path, spelled, tmp_path):
    """Nothing is subtracted; dictionaries of the embedding were trained without its sqrt(d)."""
    a, theta = weights(), np.asarray(numbers(1, F))
    arrays = {name.replace("W_", f"{spelled}_"): leaf for name, leaf in a.items()}
    folder = gemma(tmp_path / path, arrays | {"threshold": theta})
    root = D**0.5 if "embedding" in path else 1.0
    p = (X / root) @ a["W_enc"] + a["b_enc"]
    f = relu(p) * (p > theta)
    found, facts = agrees(folder, f, (f @ a["W_dec"] + a["b_dec"]) * root)
    assert (facts["model"], facts["site"], facts.get("layer")) == GEMMA[path]
    assert isinstance(found, Transcoder) == ("transcoders" in path)
    assert facts.get("flattened", False) == ("att" in path)


def test_gemma_scope_holds_no_objects(tmp_path):
    arrays = weights() | {"threshold": np.asarray([{}], object)}
    with pytest.raises(ValueError, match="is no whole params.npz .*allow_pickle"):
        load_dictionary(gemma(tmp_path / "a", arrays))


def gemma_2(folder, arrays: dict, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "jump_relu"} | config))
    arrays = {name.replace("W_", "w_"): np.array(leaf, order="C") for name, leaf in arrays.items()}
    save_file(arrays, folder / "params.safetensors")
    return folder


def test_gemma_scope_2_skip_is_not_transposed(tmp_path):
    a, skip = weights(d_out=6), np.asarray(numbers(2, D, 6))
    a["threshold"] = np.asarray(numbers(1, F))
    hooks = {
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
        "model_name": "google/gemma-3-4b-it",
    }
    whole = a | {"affine_skip_connection": skip}
    path = gemma_2(tmp_path / "a", whole, affine_connection=True, **hooks)
    p = X @ a["W_enc"] + a["b_enc"]
    f = relu(p) * (p > a["threshold"])
    _, facts = agrees(path, f, f @ a["W_dec"] + a["b_dec"] + X @ skip)
    wanted = {"model": "gemma-3-4b-it", "site": "mlp_normed", "layer": 5, "site_out": "mlp_out"}
    assert facts | wanted == facts
    found, _ = load_dictionary(gemma_2(tmp_path / "b", a, **hooks))
    assert isinstance(found, Transcoder) and found.skip is None
    with pytest.raises(ValueError, match="says affine_connection False, the weights have"):
        load_dictionary(gemma_2(tmp_path / "c", whole, affine_connection=False))
    with pytest.raises(ValueError, match="no 'topk' here; known is jump_relu"):
        load_dictionary(gemma_2(tmp_path / "d", a, architecture="topk"))


def llama(folder, a: dict, **config):
    (folder / "checkpoints").mkdir(parents=True)
    stated = {
        "d_model": D,
        "d_sae": F,
        "jump_relu_threshold": 0.2,
        "dataset_average_activation_norm": {"in": 7.0, "out": 7.0},
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
    }
    (folder / "hyperparams.json").write_text(json.dumps(stated | config))
    arrays = {name: np.array(leaf, order="C") for name, leaf in linear(a, "decoder.bias").items()}
    save_file(arrays, folder / "checkpoints/final.safetensors")
    return folder


@pytest.mark.parametrize("lengths", [False, True])
def test_llama_scope(lengths, tmp_path):
    """Trained on activations of mean length sqrt(d); the threshold is scaled with them."""
    a, s = weights(), D**0.5 / 7.0
    p = (s * X) @ a["W_enc"] + a["b_enc"]
    n = np.linalg.norm(a["W_dec"], axis=1) if lengths else 1.0
    f = relu(p) * (p * n > 0.2 * s)
    path = llama(tmp_path / "a", a, sparsity_include_decoder_norm=lengths)
    _, facts = agrees(path, f, (f @ a["W_dec"] + a["b_dec"]) / s)
    assert (facts["site"], facts["layer"]) == ("resid_post", 15)


def test_llama_scope_that_is_not_here(tmp_path):
    cases = {
        "is a transcoder, from blocks.15.hook_resid_post to blocks.15.hook_mlp_out": {
            "hook_point_out": "blocks.15.hook_mlp_out"
        },
        "no act_fn 'topk' here": {"act_fn": "topk"},
        "says d_model 4096, d_sae 24": {"d_model": 4096},
    }
    for i, (message, config) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_dictionary(llama(tmp_path / str(i), weights(), **config))


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk", "topk_tensor"])
def test_circuit_tracer(kind, tmp_path):
    """W_enc and W_skip are transposed, W_dec is not."""
    a, skip = weights(), np.asarray(numbers(2, D, D))
    p = X @ a["W_enc"] + a["b_enc"]
    arrays = a | {"W_enc": a["W_enc"].T, "W_skip": skip}
    config = {"model_name": "google/gemma-2-2b", "feature_input_hook": "hook_resid_mid"}
    config["feature_output_hook"] = "hook_mlp_out"
    theta = np.linspace(-3, 3, F).astype(np.float32)
    f = {"relu": relu(p), "jumprelu": p * (p > theta)}.get(kind, topk(p, 3))
    if kind == "jumprelu":
        arrays["activation_function.threshold"] = theta
    if kind == "topk_tensor":
        arrays["k"] = np.asarray(3)
    if kind == "topk":
        config |= {"activation": "topk", "k": 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arrays = {name: np.array(leaf, order="C") for name, leaf in arrays.items()}
    save_file(arrays, tmp_path / "layer_4.safetensors")
    made = f @ a["W_dec"] + a["b_dec"] + X @ skip.T
    _, facts = agrees(tmp_path / "layer_4.safetensors", f, made)
    wanted = {"model": "google/gemma-2-2b", "layer": 4, "site": "resid_mid", "site_out": "mlp_out"}
    assert facts | wanted == facts


def test_circuit_tracer_keeps_one_configuration_a_folder(tmp_path):
    facts = FACTS | {"site_out": "mlp_out"}
    path = place("circuit_tracer", tmp_path)
    save_dictionary(CASES["to_l1"], path, "circuit_tracer", facts)
    other = tmp_path / "layer_4.safetensors"
    save_dictionary(CASES["to_l1"], other, "circuit_tracer", facts | {"layer": 4})
    with pytest.raises(ValueError, match="is another model's or site's: give a new folder"):
        save_dictionary(CASES["to_l1"], other, "circuit_tracer", facts | {"model": "pythia"})
    with pytest.raises(ValueError, match="are named layer_3.safetensors"):
        save_dictionary(CASES["to_l1"], tmp_path / "a", "circuit_tracer", facts)


def test_circuit_tracer_cross_layer_rows(tmp_path):
    rng, encoders = np.random.default_rng(0), [weights(i) for i in range(3)]
    decoders = [rng.normal(size=(F, 3 - i, D)).astype(np.float32) for i in range(3)]
    for i, (a, rows) in enumerate(zip(encoders, decoders, strict=True)):
        own = {"W_enc": a["W_enc"].T, "b_enc": a["b_enc"], "b_dec": a["b_dec"]}
        own["threshold"] = np.full(F, 0.2, np.float32)
        arrays = {f"{name}_{i}": np.array(leaf, order="C") for name, leaf in own.items()}
        save_file(arrays, tmp_path / f"W_enc_{i}.safetensors")
        save_file({f"W_dec_{i}": rows}, tmp_path / f"W_dec_{i}.safetensors")
    folder = CrossLayer(tmp_path)
    assert folder.n_layers == 3
    np.testing.assert_array_equal(folder.rows(1, [5, 0, 23]), decoders[1][[5, 0, 23]])
    assert folder.rows(0, []).shape == (0, 3, D)
    encoder, a = folder.encoder(1), encoders[1]
    p = X @ a["W_enc"] + a["b_enc"]
    close(encoder.encode(inputs(None)), p * (p > 0.2))
    close(encoder.directions, decoders[1][:, 0])


def test_half_precision_files_are_read_whole(tmp_path):
    """bfloat16 and float16 tensors come back as float32."""
    a = weights()
    for name, dtype in (("a", jnp.bfloat16.dtype), ("b", np.float16)):
        stored = {key: leaf.astype(dtype) for key, leaf in a.items()}
        found, _ = load_dictionary(saelens(tmp_path / name, v6("standard"), stored))
        assert isinstance(found, L1) and found.coder.w_enc.dtype == jnp.float32
        np.testing.assert_array_equal(found.coder.w_enc, stored["W_enc"].astype(np.float32))
