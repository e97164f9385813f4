"""GPT-Neo: GPT-2 with scores that are not scaled and windows of 256 tokens on every second layer.

GPT-Neo: Large Scale Autoregressive Language Modeling (Black et al., 2021). Queries, keys and values
have no bias, the output has. May import `_family`, `_layout`, `_spec` and `gpt2`.
"""

from ._family import HF, Family, activation, sizes
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Spec
from .gpt2 import NORMS

SIZES = HF | {"n_layers": "num_layers", "n_heads": "num_heads"}
ATTENTION = "h.{layer}.attn.attention"

TABLE = (
    Row("embed", "wte.weight", "vocab d_model"),
    Row("pos_embed", "wpe.weight", "ctx d_model"),
    Row("blocks.attn.w_q", f"{ATTENTION}.q_proj.weight", "(head d_head) d_model"),
    Row("blocks.attn.w_k", f"{ATTENTION}.k_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_v", f"{ATTENTION}.v_proj.weight", "(kv_head d_head) d_model"),
    Row("blocks.attn.w_o", f"{ATTENTION}.out_proj.weight", "d_model (head d_head)"),
    Row("blocks.attn.b_o", f"{ATTENTION}.out_proj.bias", "d_model"),
    Row("blocks.mlp.w_in", "h.{layer}.mlp.c_fc.weight", "d_mlp d_model"),
    Row("blocks.mlp.b_in", "h.{layer}.mlp.c_fc.bias", "d_mlp"),
    Row("blocks.mlp.w_out", "h.{layer}.mlp.c_proj.weight", "d_model d_mlp"),
    Row("blocks.mlp.b_out", "h.{layer}.mlp.c_proj.bias", "d_model"),
    *NORMS,
    Row("unembed", "lm_head.weight", "vocab d_model"),
)


def from_config(keys: Keys) -> Spec:
    """What a GPT-Neo config.json says."""
    config = sizes(keys, "gpt_neo", SIZES)
    return Spec(
        config,
        Norm("layer", keys("layer_norm_epsilon", 1e-5)),
        activation=activation(keys, "activation_function", "gelu_new"),
        biases=("b_o", "b_in", "b_out"),
        learned=True,
        windows=_windows(keys, config.n_layers),
        tied=keys("tie_word_embeddings", True),
    )


def _windows(keys: Keys, n_layers: int) -> tuple[int | None, ...]:
    repeated = [kind for kinds, times in keys("attention_types", []) for kind in kinds * times]
    kinds = keys("attention_layers", repeated or ["global", "local"] * (n_layers // 2))
    size = keys("window_size", 256)
    if len(kinds) != n_layers or not set(kinds) <= {"global", "local"}:
        raise ValueError(
            f"{keys.where} has 'attention_types' for {len(kinds)} layers: name 'global' or 'local'"
            f" for each of {n_layers}"
        )
    return tuple(size if kind == "local" else None for kind in kinds)


FAMILIES = {
    "gpt_neo": Family(
        from_config,
        TABLE,
        ("transformer.",),
        unused=("h.*.attn.attention.bias", "h.*.attn.attention.masked_bias"),
    )
}
