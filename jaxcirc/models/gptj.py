"""GPT-J: attention and MLP in parallel behind one LayerNorm; rotary pairs are neighbours.

GPT-J-6B (Wang and Komatsuzaki, 2021). The first `rotary_dim` coordinates of a head turn; attention
has no biases, the MLP and the unembedding have. May import `_family`, `_layout` and `_spec`.
"""

from ._family import GPT, Family, activation, sizes
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Rope, Spec

TABLE = (
    Row("embed", "wte.weight", "vocab d_model"),
    Row("blocks.attn_norm.weight", "h.{layer}.ln_1.weight", "d"),
    Row("blocks.attn_norm.bias", "h.{layer}.ln_1.bias", "d"),
    Row("blocks.attn.w_q", "h.{layer}.attn.q_proj.weight", "(head d_head) d_model"),
    Row("blocks.attn.w_k", "h.{layer}.attn.k_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_v", "h.{layer}.attn.v_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_o", "h.{layer}.attn.out_proj.weight", "d_model (head d_head)"),
    Row("blocks.mlp.w_in", "h.{layer}.mlp.fc_in.weight", "d_mlp d_model"),
    Row("blocks.mlp.b_in", "h.{layer}.mlp.fc_in.bias", "d_mlp"),
    Row("blocks.mlp.w_out", "h.{layer}.mlp.fc_out.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_out", "h.{layer}.mlp.fc_out.bias", "d_model"),
    Row("final_norm.weight", "ln_f.weight", "d"),
    Row("final_norm.bias", "ln_f.bias", "d"),
    Row("unembed", "lm_head.weight", "vocab d_model"),
    Row("unembed_bias", "lm_head.bias", "vocab"),
)


def from_config(keys: Keys) -> Spec:
    """What a GPT-J config.json says."""
    keys.only(rotary=True, scale_attn_weights=True)
    config = sizes(keys, "gptj", GPT)
    turning = Rope(10000.0, keys("rotary_dim", config.d_head))
    return Spec(
        config,
        Norm("layer", keys("layer_norm_epsilon", 1e-5)),
        activation=activation(keys, "activation_function", "gelu_new"),
        biases=("b_in", "b_out", "unembed_bias"),
        ropes=(turning,) * config.n_layers,
        interleaved=True,
        parallel=True,
        shared_norm=True,
        scale=config.d_head**-0.5,
        tied=keys("tie_word_embeddings", False),
    )


FAMILIES = {
    "gptj": Family(
        from_config, TABLE, ("transformer.",), unused=("h.*.attn.bias", "h.*.attn.masked_bias")
    )
}
