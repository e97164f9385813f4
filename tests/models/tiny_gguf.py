"""A small random Llama as a GGUF file, and ways to spoil it."""

from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

N_LAYERS, D_MODEL, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP = 2, 64, 4, 2, 16, 96
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "i n"]
VOCAB = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors by GGUF name, [out in], queries and keys in Hugging Face's order of coordinates."""
    rng = np.random.default_rng(seed)
    narrow = N_KV_HEADS * D_HEAD
    shapes = {
        "attn_norm": (D_MODEL,),
        "attn_q": (D_MODEL, D_MODEL),
        "attn_k": (narrow, D_MODEL),
        "attn_v": (narrow, D_MODEL),
        "attn_output": (D_MODEL, D_MODEL),
        "ffn_norm": (D_MODEL,),
        "ffn_gate": (D_MLP, D_MODEL),
        "ffn_up": (D_MLP, D_MODEL),
        "ffn_down": (D_MODEL, D_MLP),
    }
    named = {f"blk.{i}.{k}.weight": s for i in range(N_LAYERS) for k, s in shapes.items()}
    named |= {"token_embd.weight": (len(VOCAB), D_MODEL), "output_norm.weight": (D_MODEL,)}
    return {k: rng.standard_normal(s, np.float32) * 0.2 for k, s in named.items()}


def interleave(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """llama.cpp's order of query and key rows (convert_hf_to_gguf.py, `permute`)."""
    rows = weight.reshape(n_heads, 2, len(weight) // n_heads // 2, -1)
    return rows.swapaxes(1, 2).reshape(weight.shape)


def metadata() -> dict[str, object]:
    """Keys of the file, by name."""
    return {
        "llama.block_count": N_LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": D_MODEL,
        "llama.feed_forward_length": D_MLP,
        "llama.attention.head_count": N_HEADS,
        "llama.attention.head_count_kv": N_KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500.0,
        "llama.rope.dimension_count": D_HEAD,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": VOCAB,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(VOCAB) - len(SPECIAL)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def write(
    path: Path,
    tensors: dict[str, np.ndarray] | None = None,
    keys: dict[str, object] | None = None,
    architecture: str = "llama",
    quantised: gguf.GGMLQuantizationType | None = None,
) -> Path:
    """Write a file; matrices are quantised if asked, and a key that is None is left out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata() | (keys or {})).items():
        _add(writer, key, value)
    for name, tensor in (weights() if tensors is None else tensors).items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            tensor = interleave(tensor, N_HEADS if "attn_q" in name else N_KV_HEADS)
        if quantised is None or tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
