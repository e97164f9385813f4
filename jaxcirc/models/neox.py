"""GPT-NeoX and Pythia: attention and MLP in parallel, each behind its own LayerNorm.

GPT-NeoX-20B (arXiv 2204.06745), Pythia (arXiv 2304.01373). A quarter of each head's coordinates
turn. Queries, keys and values are fused head by head. May import `_family`, `_layout` and `_spec`.
"""

from ._family import Family, activation, rope, sizes
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Spec

FUSED = "layers.{layer}.attention.query_key_value"

TABLE = (
    Row("embed", "embed_in.weight", "vocab d_model"),
    Row("blocks.attn_norm.weight", "layers.{layer}.input_layernorm.weight", "d"),
    Row("blocks.attn_norm.bias", "layers.{layer}.input_layernorm.bias", "d"),
    Row("blocks.mlp_norm.weight", "layers.{layer}.post_attention_layernorm.weight", "d"),
    Row("blocks.mlp_norm.bias", "layers.{layer}.post_attention_layernorm.bias", "d"),
    Row("blocks.attn.w_q", f"{FUSED}.weight", "(head 0/3 d_head) d_model"),
    Row("blocks.attn.w_k", f"{FUSED}.weight", "(kv_head 1/3 d_head) d_model"),
    Row("blocks.attn.w_v", f"{FUSED}.weight", "(kv_head 2/3 d_head) d_model"),
    Row("blocks.attn.w_o", "layers.{layer}.attention.dense.weight", "d_model (head d_head)"),
    Row("blocks.attn.b_q", f"{FUSED}.bias", "(head 0/3 d_head)"),
    Row("blocks.attn.b_k", f"{FUSED}.bias", "(kv_head 1/3 d_head)"),
    Row("blocks.attn.b_v", f"{FUSED}.bias", "(kv_head 2/3 d_head)"),
    Row("blocks.attn.b_o", "layers.{layer}.attention.dense.bias", "d_model"),
    Row("blocks.mlp.w_in", "layers.{layer}.mlp.dense_h_to_4h.weight", "d_mlp d_model"),
    Row("blocks.mlp.b_in", "layers.{layer}.mlp.dense_h_to_4h.bias", "d_mlp"),
    Row("blocks.mlp.w_out", "layers.{layer}.mlp.dense_4h_to_h.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_out", "layers.{layer}.mlp.dense_4h_to_h.bias", "d_model"),
    Row("final_norm.weight", "final_layer_norm.weight", "d"),
    Row("final_norm.bias", "final_layer_norm.bias", "d"),
    Row("unembed", "embed_out.weight", "vocab d_model"),
)


def from_config(keys: Keys) -> Spec:
    """What a GPT-NeoX config.json says; older ones have `rotary_pct` and `rotary_emb_base`."""
    config = sizes(keys, "gpt_neox")
    base, part = keys("rotary_emb_base", 10000.0), keys("rotary_pct", 0.25)
    turning = rope(keys, config.d_head, base=base, part=part)
    biased = keys("attention_bias", True)
    return Spec(
        config,
        Norm("layer", keys("layer_norm_eps", 1e-5)),
        activation=activation(keys, default="gelu"),
        biases=("b_in", "b_out", *(("b_q", "b_k", "b_v", "b_o") if biased else ())),
        ropes=(turning,) * config.n_layers,
        parallel=keys("use_parallel_residual", True),
        scale=config.d_head**-0.5,
        tied=keys("tie_word_embeddings", False),
    )


FAMILIES = {
    "gpt_neox": Family(
        from_config,
        TABLE,
        ("gpt_neox.",),
        unused=(
            *("layers.*.attention.bias", "layers.*.attention.masked_bias"),
            "layers.*.rotary_emb.inv_freq",
            "layers.*.attention.rotary_emb.inv_freq",
        ),
    )
}
