"""GGUF files of every architecture: a family's stored model, written as llama.cpp names it."""

import json

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_gguf
from cases import slow_at
from safetensors.numpy import load_file

from jaxcirc import load_model
from jaxcirc.models import Tokenizer
from jaxcirc.models._parity import family_reference, load_reference, parity
from jaxcirc.taps import Read, Sites, run

ARCHITECTURES = {
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}
CHANGES = {
    "llama": ({"attention_bias": False, "mlp_bias": False}, {}),
    "qwen2": ({"use_sliding_window": False, "layer_types": None}, {}),
    "qwen3": ({}, {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}),
    "gemma2": (
        {"query_pre_attn_scalar": 8},
        {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0},
    ),
    "gemma3": (
        {"query_pre_attn_scalar": 8, "layer_types": None, "sliding_window_pattern": 3},
        {
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
            "rope.freq_base_swa": 20.0,
            "attention.sliding_window_pattern": 3,
        },
    ),
}
"""What such files cannot say is set in the config; what they say in other words, in the file."""


def tensors(name: str, layers: int) -> dict[str, np.ndarray]:
    """A family's stored tensors under llama.cpp's names, changed as its converter changes them."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[name], layers)
    stored, made = load_file(family_reference(name)[0] / "model.safetensors"), {}
    for key, tensor in stored.items():
        if name == "llama" and key.endswith("bias"):
            continue
        if name == "gpt2" and ".c_" in key and key.endswith("weight"):
            tensor = tensor.T.copy()
        if name.startswith("gemma") and key.endswith("norm.weight"):
            tensor = tensor + 1
        if name == "llama" and "q_proj" in key:
            tensor = tiny_gguf.interleave(tensor, 4)
        if name == "llama" and "k_proj" in key:
            tensor = tiny_gguf.interleave(tensor, 2)
        made[names.get_name(key, (".weight", ".bias"))] = tensor
    return made


def write(path, name: str, config: dict) -> None:
    """The file."""
    heads, width = config.get("num_attention_heads", 3), config.get("hidden_size", 24)
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    keys = {
        "block_count": config.get("num_hidden_layers", 3),
        "context_length": config.get("max_position_embeddings", 32),
        "embedding_length": width,
        "feed_forward_length": 40,
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads", heads),
        "attention.key_length": config.get("head_dim") or width // heads,
        "attention.layer_norm_epsilon" if name == "gpt2" else "attention.layer_norm_rms_epsilon": (
            1e-5 if name == "gpt2" else config["rms_norm_eps"]
        ),
        "rope.freq_base": rope.get("rope_theta"),
        "attention.sliding_window": (config.get("sliding_window") if "gemma" in name else None),
    } | CHANGES.get(name, ({}, {}))[1]
    made = {f"{name}.{key}": value for key, value in keys.items() if name != "gpt2" or value}
    tokens = {key: value for key, value in tiny_gguf.metadata().items() if "tokenizer" in key}
    writer = gguf.GGUFWriter(path, name)
    for key, value in (tokens | made).items():
        tiny_gguf._add(writer, key, value)
    for key, tensor in tensors(name, keys["block_count"]).items():
        writer.add_tensor(key, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", slow_at(ARCHITECTURES, "gemma", "qwen2", "qwen3", "llama"))
def test_a_gguf_file_is_the_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "cache"))
    source, stored, _ = family_reference(name)
    config = json.loads((source / "config.json").read_text()) | CHANGES.get(name, ({}, {}))[0]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").symlink_to((source / "model.safetensors").resolve())
    ignore = ("*.bias",) if name == "llama" else ()
    expected, _ = load_model(folder, ignore=ignore)
    write(tmp_path / "model.gguf", name, config)
    for _ in ("built", "cached"):
        model, _ = load_model(tmp_path / "model.gguf")
        np.testing.assert_allclose(
            run(model, jnp.asarray(stored))[0], run(expected, jnp.asarray(stored))[0], atol=3e-5
        )


def pieces() -> dict[str, object]:
    """A vocabulary as SentencePiece makes it."""
    plain = {"\u2581": -9.0, "a": -8.0, "b": -7.0, "ab": -1.0, "\u2581ab": -2.0, "ba": -3.0}
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *plain, "\n\n"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*tokens, *bytes_],
        "tokenizer.ggml.scores": [0.0] * 4 + [*plain.values()] + [0.0] * 257,
        "tokenizer.ggml.token_type": [3] * 4 + [1] * len(plain) + [4] + [6] * 256,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }


def test_sentencepiece_vocabulary():
    tokenizer = Tokenizer.from_gguf(pieces())
    ids = tokenizer.encode("bab ab\n\né<bos>")
    shown = [tokenizer.backend.id_to_token(i) for i in ids]
    assert shown == ["b", "ab", "\u2581ab", "\n\n", "<0xC3>", "<0xA9>", "<bos>"]
    assert tokenizer.decode(ids) == "bab ab\n\né<bos>" and tokenizer.token(ids[2]) == " ab"
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (2, True)
    with pytest.raises(ValueError, match="puts a space before every text is not supported"):
        Tokenizer.from_gguf(pieces() | {"tokenizer.ggml.add_space_prefix": True})


@pytest.mark.gemma
def test_gemma_equals_transformers():
    report = parity("gemma3-270m")
    assert max(row.n_tokens for row in report.rows) > 512
    assert report.passed and report.worst("highest") < 5e-4  # measured 1.6e-4


@pytest.mark.gemma
def test_gemma_sums_of_sites():
    model, tokenizer = load_model("gemma3-270m")
    assert model.config.sha256 == load_reference("gemma3-270m").sha256
    tokens = jnp.array([[2, *tokenizer.encode("The capital of France is")]])
    sites = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "head_out")
    _, r = run(model, tokens, Sites(**{site: Read() for site in sites}))
    for total, whole in (
        (r.resid_pre + r.attn_out, r.resid_mid),
        (r.resid_mid + r.mlp_out, r.resid_post),
        (r.head_out.sum(axis=3), r.attn_out),
    ):
        assert float(jnp.abs(total - whole).max()) <= 1e-5 * float(jnp.abs(whole).max())
