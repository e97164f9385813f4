"""Llama and its kin: RMSNorm, rotary grouped-query attention and a gated SiLU MLP, pre-norm.

Llama (arXiv 2302.13971), Mistral (2310.06825: windows), Qwen2 (2407.10671: biases of queries, keys
and values), Qwen3 (2505.09388: norms of queries and keys).
May import `_family`, `_layout` and `_spec`.
"""

from functools import partial

from ._family import GGUF, Family, activation, gguf_rope, rope, sizes, windows
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Spec
from .lm import Config

LAYER = "layers.{layer}"

TABLE = (
    Row("embed", "embed_tokens.weight", "vocab d_model"),
    Row("blocks.attn_norm.weight", f"{LAYER}.input_layernorm.weight", "d"),
    Row("blocks.attn.w_q", f"{LAYER}.self_attn.q_proj.weight", "(head d_head) d_model"),
    Row("blocks.attn.w_k", f"{LAYER}.self_attn.k_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_v", f"{LAYER}.self_attn.v_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_o", f"{LAYER}.self_attn.o_proj.weight", "d_model (head d_head)"),
    Row("blocks.attn.b_q", f"{LAYER}.self_attn.q_proj.bias", "(head d_head)"),
    Row("blocks.attn.b_k", f"{LAYER}.self_attn.k_proj.bias", "(kv_head d_head)"),
    Row("blocks.attn.b_v", f"{LAYER}.self_attn.v_proj.bias", "(kv_head d_head)"),
    Row("blocks.attn.b_o", f"{LAYER}.self_attn.o_proj.bias", "d_model"),
    Row("blocks.attn.q_norm.weight", f"{LAYER}.self_attn.q_norm.weight", "d"),
    Row("blocks.attn.k_norm.weight", f"{LAYER}.self_attn.k_norm.weight", "d"),
    Row("blocks.mlp_norm.weight", f"{LAYER}.post_attention_layernorm.weight", "d"),
    Row("blocks.mlp.w_gate", f"{LAYER}.mlp.gate_proj.weight", "d_mlp d_model"),
    Row("blocks.mlp.w_in", f"{LAYER}.mlp.up_proj.weight", "d_mlp d_model"),
    Row("blocks.mlp.w_out", f"{LAYER}.mlp.down_proj.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_gate", f"{LAYER}.mlp.gate_proj.bias", "d_mlp"),
    Row("blocks.mlp.b_in", f"{LAYER}.mlp.up_proj.bias", "d_mlp"),
    Row("blocks.mlp.b_out", f"{LAYER}.mlp.down_proj.bias", "d_model"),
    Row("final_norm.weight", "norm.weight", "d"),
    Row("unembed", "lm_head.weight", "vocab d_model"),
)

GGUF_TABLE = (
    Row("embed", "token_embd.weight", "vocab d_model"),
    Row("blocks.attn_norm.weight", "blk.{layer}.attn_norm.weight", "d"),
    Row("blocks.attn.w_q", "blk.{layer}.attn_q.weight", "(head d_head) d_model"),
    Row("blocks.attn.w_k", "blk.{layer}.attn_k.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_v", "blk.{layer}.attn_v.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_o", "blk.{layer}.attn_output.weight", "d_model (head d_head)"),
    Row("blocks.attn.b_q", "blk.{layer}.attn_q.bias", "(head d_head)"),
    Row("blocks.attn.b_k", "blk.{layer}.attn_k.bias", "(kv_head d_head)"),
    Row("blocks.attn.b_v", "blk.{layer}.attn_v.bias", "(kv_head d_head)"),
    Row("blocks.attn.q_norm.weight", "blk.{layer}.attn_q_norm.weight", "d"),
    Row("blocks.attn.k_norm.weight", "blk.{layer}.attn_k_norm.weight", "d"),
    Row("blocks.mlp_norm.weight", "blk.{layer}.ffn_norm.weight", "d"),
    Row("blocks.mlp.w_gate", "blk.{layer}.ffn_gate.weight", "d_mlp d_model"),
    Row("blocks.mlp.w_in", "blk.{layer}.ffn_up.weight", "d_mlp d_model"),
    Row("blocks.mlp.w_out", "blk.{layer}.ffn_down.weight", "d_model d_mlp"),
    Row("final_norm.weight", "output_norm.weight", "d"),
    Row("unembed", "output.weight", "vocab d_model"),
)

# llama.cpp stores the two coordinates of a rotary pair of its llama architecture as neighbours.
PERMUTED = (
    Row("blocks.attn.w_q", "blk.{layer}.attn_q.weight", "(head pair half) d_model"),
    Row("blocks.attn.w_k", "blk.{layer}.attn_k.weight", "(kv_head pair half) d_model"),
)
LLAMA_TABLE = (*(r for r in GGUF_TABLE if r.leaf not in {p.leaf for p in PERMUTED}), *PERMUTED)


def from_config(name: str, keys: Keys) -> Spec:
    """What a config.json of the family `name` says."""
    config = sizes(keys, name)
    n = config.n_layers
    return Spec(
        config,
        Norm("rms", keys("rms_norm_eps", 1e-6)),
        activation=activation(keys, default="silu"),
        gated=True,
        biases=_biases(name, keys),
        ropes=(rope(keys, config.d_head),) * n,
        windows=_windows(name, keys, n),
        qk_norm=name == "qwen3",
        scale=config.d_head**-0.5,
        tied=keys("tie_word_embeddings", False),
    )


def from_gguf(name: str, keys: Keys) -> Spec:
    """What the metadata of a GGUF file of the architecture `name` says."""
    config: Config = sizes(keys, name, GGUF)
    return Spec(
        config,
        Norm("rms", keys("attention.layer_norm_rms_epsilon")),
        gated=True,
        biases=("b_q", "b_k", "b_v") if name == "qwen2" else (),
        ropes=(gguf_rope(keys, config.d_head),) * config.n_layers,
        qk_norm=name == "qwen3",
        scale=config.d_head**-0.5,
    )


def _biases(name: str, keys: Keys) -> tuple[str, ...]:
    if name == "qwen2":
        return ("b_q", "b_k", "b_v")
    attention = ("b_q", "b_k", "b_v", "b_o") if keys("attention_bias", False) else ()
    mlp = ("b_gate", "b_in", "b_out") if keys("mlp_bias", False) else ()
    return attention + mlp


def _windows(name: str, keys: Keys, n_layers: int) -> tuple[int | None, ...]:
    """Mistral slides on every layer; Qwen on those from `max_window_layers`, if told to."""
    if name == "llama":
        return windows(keys, n_layers, ["full_attention"] * n_layers)
    slides = keys("use_sliding_window", name == "mistral") and keys("sliding_window", 0)
    first = keys("max_window_layers", 0) if slides else n_layers
    kinds = ["full_attention"] * first + ["sliding_attention"] * (n_layers - first)
    return windows(keys, n_layers, kinds[:n_layers])


UNUSED = ("*rotary_emb.inv_freq",)

FAMILIES = {
    name: Family(partial(from_config, name), TABLE, ("model.",), UNUSED)
    for name in ("llama", "mistral", "qwen2", "qwen3")
}
GGUF_FAMILIES = {
    "llama": Family(partial(from_gguf, "llama"), LLAMA_TABLE, unused=("rope_freqs.weight",)),
    "qwen2": Family(partial(from_gguf, "qwen2"), GGUF_TABLE),
    "qwen3": Family(partial(from_gguf, "qwen3"), GGUF_TABLE),
}
