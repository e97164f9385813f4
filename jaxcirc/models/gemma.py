"""Gemma 1, 2 and 3: scaled embeddings, gains of 1 + w, a gated tanh-GELU MLP; tied.

Gemma 2 (arXiv 2408.00118) adds norms after attention and MLP, soft caps and windows on every second
layer; Gemma 3 (2503.19786) has norms of queries and keys instead of caps, and five local layers,
with a rotary base of their own, to one global layer. GGUF files hold the gains with the 1 added.
May import `_family`, `_layout`, `_spec` and `llama`.
"""

from functools import partial

from ._family import GGUF, Family, activation, gguf_rope, rope, sizes, windows
from ._keys import HARMLESS, Keys
from ._layout import Row
from ._spec import Norm, Rope, Spec
from .llama import GGUF_TABLE, LAYER, TABLE, UNUSED

BIASES = ("b_q", "b_k", "b_v", "b_o")

AROUND = (
    Row("blocks.attn_post_norm.weight", f"{LAYER}.post_attention_layernorm.weight", "d"),
    Row("blocks.mlp_norm.weight", f"{LAYER}.pre_feedforward_layernorm.weight", "d"),
    Row("blocks.mlp_post_norm.weight", f"{LAYER}.post_feedforward_layernorm.weight", "d"),
)
POST_TABLE = (*(row for row in TABLE if row.leaf != "blocks.mlp_norm.weight"), *AROUND)

GGUF_POST_TABLE = (
    *GGUF_TABLE,
    Row("blocks.attn_post_norm.weight", "blk.{layer}.post_attention_norm.weight", "d"),
    Row("blocks.mlp_post_norm.weight", "blk.{layer}.post_ffw_norm.weight", "d"),
)

OF_27B = (46, 62)
"""Layers of the 27B models, whose GGUF files do not say that they scale by d_model / n_heads."""

MULTIMODAL = ("vision_config", "audio_config", "mm_tokens_per_image", "*_token_index")


def from_config(version: int, keys: Keys) -> Spec:
    """What a config.json of Gemma `version` says."""
    keys.only(use_bidirectional_attention=False)
    config = sizes(keys, f"gemma{version}")
    act = ("hidden_activation", "gelu_pytorch_tanh")
    if version == 1:
        keys("hidden_act", "")  # says "gelu" in old files, which meant tanh all along
    return Spec(
        config,
        Norm("rms", keys("rms_norm_eps", 1e-6), offset=1.0),
        activation=activation(keys, *act),
        gated=True,
        biases=BIASES if keys("attention_bias", False) else (),
        ropes=_ropes(version, keys, config.d_head, config.n_layers),
        windows=_windows(version, keys, config.n_layers),
        qk_norm=version == 3,
        post_norm=version > 1,
        scale=(keys("query_pre_attn_scalar", 256) if version > 1 else config.d_head) ** -0.5,
        embed_scale=config.d_model**0.5,
        soft_cap=keys("attn_logit_softcapping", None),
        logit_soft_cap=keys("final_logit_softcapping", None),
        tied=keys("tie_word_embeddings", True),
    )


def from_gguf(version: int, keys: Keys) -> Spec:
    """What the metadata of a Gemma GGUF file says."""
    config = sizes(keys, f"gemma{version}", GGUF)
    n, size = config.n_layers, keys("attention.sliding_window", None)
    every = {1: 1, 2: 2, 3: keys("attention.sliding_window_pattern", 6)}[version]
    local = [version > 1 and (i + 1) % every > 0 for i in range(n)]
    turning = gguf_rope(keys, config.d_head)
    near = Rope(keys("rope.freq_base_swa", 10000.0), config.d_head) if version == 3 else turning
    return Spec(
        config,
        Norm("rms", keys("attention.layer_norm_rms_epsilon")),
        activation="gelu_tanh",
        gated=True,
        ropes=tuple(near if here else turning for here in local),
        windows=tuple(size if here else None for here in local),
        qk_norm=version == 3,
        post_norm=version > 1,
        scale=(config.d_model / config.n_heads if n in OF_27B else config.d_head) ** -0.5,
        embed_scale=config.d_model**0.5,
        soft_cap=keys("attn_logit_softcapping", None),
        logit_soft_cap=keys("final_logit_softcapping", None),
    )


def _kinds(version: int, keys: Keys, n_layers: int) -> list[str]:
    if version == 1:
        return ["full_attention"] * n_layers
    every = (
        2 if version == 2 else keys("sliding_window_pattern", keys("_sliding_window_pattern", 6))
    )
    local, whole = "sliding_attention", "full_attention"
    return keys("layer_types", [local if (i + 1) % every else whole for i in range(n_layers)])


def _windows(version: int, keys: Keys, n_layers: int) -> tuple[int | None, ...]:
    return windows(keys, n_layers, _kinds(version, keys, n_layers))


def _ropes(version: int, keys: Keys, d_head: int, n_layers: int) -> tuple[Rope, ...]:
    """By layer; the local layers of Gemma 3 have a base of their own, which is not scaled."""
    if version < 3:
        return (rope(keys, d_head),) * n_layers
    made = {"full_attention": rope(keys, d_head, 1e6, kind="full_attention")}
    base = keys("rope_local_base_freq", 10000.0)
    stated = keys("rope_parameters", {}).get("sliding_attention", {"rope_theta": base})
    made["sliding_attention"] = rope(Keys({"rope_parameters": stated}, keys.where), d_head)
    return tuple(made[kind] for kind in _kinds(3, keys, n_layers))


def _hf(version: int, table: tuple[Row, ...]) -> Family:
    prefixes = ("model.", "language_model.", "model.")
    unused = (*UNUSED, "vision_tower.*", "multi_modal_projector.*")
    return Family(partial(from_config, version), table, prefixes, unused, (*HARMLESS, *MULTIMODAL))


FAMILIES = {
    "gemma": _hf(1, TABLE),
    "gemma2": _hf(2, POST_TABLE),
    "gemma3_text": _hf(3, POST_TABLE),
    "gemma3": _hf(3, POST_TABLE),
}
GGUF_FAMILIES = {
    "gemma": Family(partial(from_gguf, 1), GGUF_TABLE),
    "gemma2": Family(partial(from_gguf, 2), GGUF_POST_TABLE),
    "gemma3": Family(partial(from_gguf, 3), GGUF_POST_TABLE),
}
