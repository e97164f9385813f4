"""`Family`: how one kind of file says what a model is, and where its tensors go.

A family is a function from metadata to a `Spec`, and a table. What several families say in the same
words is read here. May import `_keys`, `_layout`, `_spec` and `lm`.
"""

import dataclasses
from collections.abc import Callable, Mapping

from ._keys import HARMLESS, Keys
from ._layout import Row
from ._spec import Rope, Spec
from .lm import Config

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Hugging Face's names of activations, and ours."""

HF = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "d_mlp": "intermediate_size",
    "vocab": "vocab_size",
    "ctx": "max_position_embeddings",
}
"""Hugging Face's usual keys of a model's sizes."""

GPT = {
    "n_layers": "n_layer",
    "d_model": "n_embd",
    "n_heads": "n_head",
    "d_mlp": "n_inner",
    "vocab": "vocab_size",
    "ctx": "n_positions",
}
"""The keys of GPT-2 and GPT-J."""

GGUF = {
    "n_layers": "block_count",
    "d_model": "embedding_length",
    "n_heads": "attention.head_count",
    "n_kv_heads": "attention.head_count_kv",
    "d_head": "attention.key_length",
    "d_mlp": "feed_forward_length",
    "vocab": "vocab_size",
    "ctx": "context_length",
}
"""The keys of a GGUF file, after the name of its architecture."""


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of model in one kind of file.

    - `spec`: what the metadata says. `table`: where the tensors go.
    - `prefixes`: taken off the names of tensors, one after the other, where they are present.
    - `unused`: patterns of tensors that hold nothing learned. `harmless`: patterns of keys that do
      not change what the model computes.
    """

    spec: Callable[[Keys], Spec]
    table: tuple[Row, ...]
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    harmless: tuple[str, ...] = HARMLESS


def sizes(
    keys: Keys, family: str, names: Mapping[str, str] = HF, attn_only: bool = False
) -> Config:
    """The model's sizes, read under `names`; a model of attention only has a `d_mlp` of 0."""

    def read(name: str, *default: int) -> int:
        return int(keys(names[name], *default) if name in names else default[0])

    d_model, n_heads = read("d_model"), read("n_heads")
    d_mlp = read("d_mlp", 4 * d_model)
    return Config(
        name=family,
        family=family,
        n_layers=read("n_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=read("n_kv_heads", n_heads),
        d_head=read("d_head", d_model // n_heads),
        d_mlp=0 if attn_only else d_mlp,
        vocab=read("vocab"),
        ctx=read("ctx"),
    )


def activation(keys: Keys, key: str = "hidden_act", default: str | None = None) -> str:
    """The MLP's activation, by our name."""
    return keys.among(key, ACTIVATIONS, *(() if default is None else (default,)))


_SCALINGS = {"default": "plain", "linear": "plain", "llama3": "smooth"}


def rope(keys: Keys, d_head: int, base: float = 10000.0, part: float = 1.0, kind: str = "") -> Rope:
    """Rotary frequencies from `rope_parameters`, or from the older `rope_theta` and `rope_scaling`.

    - `base`, `part`: the default base, and the default share of a head's coordinates that turn.
    - `kind`: the entry of `rope_parameters` where kinds of layers differ.
    """
    stated, scaling = dict(keys("rope_parameters", {})), dict(keys("rope_scaling", {}))
    stated = dict(stated.get(kind) or {}) if kind in stated else stated
    stated = {"rope_theta": keys("rope_theta", base)} | scaling | stated
    stated.setdefault("rope_type", stated.pop("type", "default"))
    found = Keys(stated, keys.where)
    smooth = None
    if found.among("rope_type", _SCALINGS) == "smooth":
        low, high = float(found("low_freq_factor")), float(found("high_freq_factor"))
        smooth = (low, high, float(found("original_max_position_embeddings")))
    part = found("partial_rotary_factor", keys("partial_rotary_factor", part))
    factor = float(found("factor", 1.0))
    made = Rope(float(found("rope_theta")), int(d_head * part), factor, smooth)
    found.check(("type", "original_max_position_embeddings"))
    return made


def windows(keys: Keys, n_layers: int, kinds: list[str]) -> tuple[int | None, ...]:
    """By layer: the sliding window, or None where a layer reads everything.

    - `kinds`: what the layers are where `layer_types` is silent.
    """
    kinds = keys("layer_types", kinds)
    size = keys("sliding_window", 0) or None
    named = {"full_attention": None, "sliding_attention": size}
    if len(kinds) != n_layers or not set(kinds) <= set(named):
        raise ValueError(
            f"{keys.where} has 'layer_types' = {kinds!r}, which is not supported: give each of the"
            f" {n_layers} layers one of {', '.join(map(repr, named))}"
        )
    return tuple(named[kind] for kind in kinds)


def gguf_rope(keys: Keys, d_head: int) -> Rope:
    """Rotary frequencies of a GGUF file; `ValueError` for a scaling other than linear."""
    keys.only(**{"rope.dimension_count": d_head})
    kind = keys.among("rope.scaling.type", {"none": "none", "linear": "linear"}, "none")
    factor = keys("rope.scaling.factor", 1.0) if kind == "linear" else 1.0
    return Rope(keys("rope.freq_base", 10000.0), d_head, factor)
