"""GPT-2: LayerNorm, learned positions, and a plain MLP, everything with a bias; pre-norm, tied.

Language Models are Unsupervised Multitask Learners (Radford et al., 2019). Queries, keys and values
are fused in one tensor, stored [in out]. With `"attn_only": true` in its config a model has no MLP.
May import `_family`, `_layout` and `_spec`.
"""

from ._family import GGUF, GPT, Family, activation, sizes
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Spec

BIASES = ("b_q", "b_k", "b_v", "b_o", "b_in", "b_out")

NORMS = (
    Row("blocks.attn_norm.weight", "h.{layer}.ln_1.weight", "d"),
    Row("blocks.attn_norm.bias", "h.{layer}.ln_1.bias", "d"),
    Row("blocks.mlp_norm.weight", "h.{layer}.ln_2.weight", "d"),
    Row("blocks.mlp_norm.bias", "h.{layer}.ln_2.bias", "d"),
    Row("final_norm.weight", "ln_f.weight", "d"),
    Row("final_norm.bias", "ln_f.bias", "d"),
)

TABLE = (
    Row("embed", "wte.weight", "vocab d_model"),
    Row("pos_embed", "wpe.weight", "ctx d_model"),
    Row("blocks.attn.w_q", "h.{layer}.attn.c_attn.weight", "d_model (0/3 head d_head)"),
    Row("blocks.attn.w_k", "h.{layer}.attn.c_attn.weight", "d_model (1/3 kv_head d_head)"),
    Row("blocks.attn.w_v", "h.{layer}.attn.c_attn.weight", "d_model (2/3 kv_head d_head)"),
    Row("blocks.attn.w_o", "h.{layer}.attn.c_proj.weight", "(head d_head) d_model"),
    Row("blocks.attn.b_q", "h.{layer}.attn.c_attn.bias", "(0/3 head d_head)"),
    Row("blocks.attn.b_k", "h.{layer}.attn.c_attn.bias", "(1/3 kv_head d_head)"),
    Row("blocks.attn.b_v", "h.{layer}.attn.c_attn.bias", "(2/3 kv_head d_head)"),
    Row("blocks.attn.b_o", "h.{layer}.attn.c_proj.bias", "d_model"),
    Row("blocks.mlp.w_in", "h.{layer}.mlp.c_fc.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_in", "h.{layer}.mlp.c_fc.bias", "d_mlp"),
    Row("blocks.mlp.w_out", "h.{layer}.mlp.c_proj.weight", "d_mlp d_model"),
    Row("blocks.mlp.b_out", "h.{layer}.mlp.c_proj.bias", "d_model"),
    *NORMS,
    Row("unembed", "lm_head.weight", "vocab d_model"),
)

GGUF_TABLE = (
    Row("embed", "token_embd.weight", "vocab d_model"),
    Row("pos_embed", "position_embd.weight", "ctx d_model"),
    Row("blocks.attn.w_q", "blk.{layer}.attn_qkv.weight", "(0/3 head d_head) d_model"),
    Row("blocks.attn.w_k", "blk.{layer}.attn_qkv.weight", "(1/3 kv_head d_head) d_model"),
    Row("blocks.attn.w_v", "blk.{layer}.attn_qkv.weight", "(2/3 kv_head d_head) d_model"),
    Row("blocks.attn.w_o", "blk.{layer}.attn_output.weight", "d_model (head d_head)"),
    Row("blocks.attn.b_q", "blk.{layer}.attn_qkv.bias", "(0/3 head d_head)"),
    Row("blocks.attn.b_k", "blk.{layer}.attn_qkv.bias", "(1/3 kv_head d_head)"),
    Row("blocks.attn.b_v", "blk.{layer}.attn_qkv.bias", "(2/3 kv_head d_head)"),
    Row("blocks.attn.b_o", "blk.{layer}.attn_output.bias", "d_model"),
    Row("blocks.mlp.w_in", "blk.{layer}.ffn_up.weight", "d_mlp d_model"),
    Row("blocks.mlp.b_in", "blk.{layer}.ffn_up.bias", "d_mlp"),
    Row("blocks.mlp.w_out", "blk.{layer}.ffn_down.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_out", "blk.{layer}.ffn_down.bias", "d_model"),
    Row("blocks.attn_norm.weight", "blk.{layer}.attn_norm.weight", "d"),
    Row("blocks.attn_norm.bias", "blk.{layer}.attn_norm.bias", "d"),
    Row("blocks.mlp_norm.weight", "blk.{layer}.ffn_norm.weight", "d"),
    Row("blocks.mlp_norm.bias", "blk.{layer}.ffn_norm.bias", "d"),
    Row("final_norm.weight", "output_norm.weight", "d"),
    Row("final_norm.bias", "output_norm.bias", "d"),
    Row("unembed", "output.weight", "vocab d_model"),
)


def from_config(keys: Keys) -> Spec:
    """What a GPT-2 config.json says."""
    keys.only(scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    config = sizes(keys, "gpt2", GPT, attn_only=keys("attn_only", False))
    return Spec(
        config,
        Norm("layer", keys("layer_norm_epsilon", 1e-5)),
        activation=activation(keys, "activation_function", "gelu_new"),
        biases=BIASES,
        learned=True,
        scale=config.d_head**-0.5 if keys("scale_attn_weights", True) else 1.0,
        tied=keys("tie_word_embeddings", True),
    )


def from_gguf(keys: Keys) -> Spec:
    """What the metadata of a GPT-2 GGUF file says."""
    config = sizes(keys, "gpt2", GGUF)
    return Spec(
        config,
        Norm("layer", keys("attention.layer_norm_epsilon")),
        activation="gelu_tanh",
        biases=BIASES,
        learned=True,
        scale=config.d_head**-0.5,
    )


FAMILIES = {
    "gpt2": Family(
        from_config, TABLE, ("transformer.",), unused=("h.*.attn.bias", "h.*.attn.masked_bias")
    )
}
GGUF_FAMILIES = {"gpt2": Family(from_gguf, GGUF_TABLE)}
