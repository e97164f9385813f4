"""Models in TransformerLens's own layout: attention-only ones, and small ones without norms.

config.json holds `HookedTransformerConfig`'s keys (`"n_layers"`, `"attn_only"`,
`"normalization_type"`, ...), model.safetensors the state dict (`blocks.0.attn.W_Q`, ...), so:
`safetensors.torch.save_file(model.state_dict(), ...)`. Learned positions only.
May import `_family`, `_layout` and `_spec`.
"""

from ._family import ACTIVATIONS, Family, sizes
from ._keys import HARMLESS, Keys
from ._layout import Row
from ._spec import Norm, Spec

SIZES = {
    "n_layers": "n_layers",
    "d_model": "d_model",
    "n_heads": "n_heads",
    "d_head": "d_head",
    "d_mlp": "d_mlp",
    "vocab": "d_vocab",
    "ctx": "n_ctx",
}

TABLE = (
    Row("embed", "embed.W_E", "vocab d_model"),
    Row("pos_embed", "pos_embed.W_pos", "ctx d_model"),
    Row("blocks.attn_norm.weight", "blocks.{layer}.ln1.w", "d"),
    Row("blocks.attn_norm.bias", "blocks.{layer}.ln1.b", "d"),
    Row("blocks.attn.w_q", "blocks.{layer}.attn.W_Q", "head d_model d_head"),
    Row("blocks.attn.w_k", "blocks.{layer}.attn.W_K", "kv_head d_model d_head"),
    Row("blocks.attn.w_v", "blocks.{layer}.attn.W_V", "kv_head d_model d_head"),
    Row("blocks.attn.w_o", "blocks.{layer}.attn.W_O", "head d_head d_model"),
    Row("blocks.attn.b_q", "blocks.{layer}.attn.b_Q", "head d_head"),
    Row("blocks.attn.b_k", "blocks.{layer}.attn.b_K", "kv_head d_head"),
    Row("blocks.attn.b_v", "blocks.{layer}.attn.b_V", "kv_head d_head"),
    Row("blocks.attn.b_o", "blocks.{layer}.attn.b_O", "d_model"),
    Row("blocks.mlp_norm.weight", "blocks.{layer}.ln2.w", "d"),
    Row("blocks.mlp_norm.bias", "blocks.{layer}.ln2.b", "d"),
    Row("blocks.mlp.w_in", "blocks.{layer}.mlp.W_in", "d_model d_mlp"),
    Row("blocks.mlp.b_in", "blocks.{layer}.mlp.b_in", "d_mlp"),
    Row("blocks.mlp.w_out", "blocks.{layer}.mlp.W_out", "d_mlp d_model"),
    Row("blocks.mlp.b_out", "blocks.{layer}.mlp.b_out", "d_model"),
    Row("final_norm.weight", "ln_final.w", "d"),
    Row("final_norm.bias", "ln_final.b", "d"),
    Row("unembed", "unembed.W_U", "d_model vocab"),
    Row("unembed_bias", "unembed.b_U", "vocab"),
)

OF_ITS_OWN = (
    *("device", "n_devices", "seed", "model_name", "tokenizer_*", "n_params", "dtype", "init_*"),
    *("use_attn_result", "use_split_qkv_input", "use_hook_*", "use_attn_in", "default_*"),
    *("original_architecture", "from_checkpoint", "checkpoint_*", "d_vocab_out", "act_fn"),
)


def from_config(keys: Keys) -> Spec:
    """What a `HookedTransformerConfig` says."""
    keys.only(positional_embedding_type="standard", gated_mlp=False, parallel_attn_mlp=False)
    keys.only(final_rms=False, use_local_attn=False, scale_attn_by_inverse_layer_idx=False)
    kinds = {"LN": "layer", None: None}
    kind = keys.among("normalization_type", kinds, None)
    config = sizes(keys, "transformer_lens", SIZES, attn_only=keys("attn_only", False))
    norm = Norm("layer", keys("eps", 1e-5))
    scale = keys("attn_scale", config.d_head**0.5) if keys("use_attn_scale", True) else 1.0
    return Spec(
        config,
        norm if kind == "layer" else None,
        activation=keys.among("act_fn", ACTIVATIONS, "relu"),
        biases=("b_q", "b_k", "b_v", "b_o", "b_in", "b_out", "unembed_bias"),
        learned=True,
        causal=keys.among("attention_dir", {"causal": True, "bidirectional": False}, "causal"),
        scale=1.0 / scale,
        tied=False,
    )


FAMILIES = {
    "transformer_lens": Family(
        from_config,
        TABLE,
        unused=("blocks.*.attn.mask", "blocks.*.attn.IGNORE"),
        harmless=(*HARMLESS, *OF_ITS_OWN),
    )
}
