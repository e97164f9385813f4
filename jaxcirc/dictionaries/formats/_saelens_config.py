"""`cfg.json` of SAELens: read in both its forms, written in the newer one.

Until version 6 everything lay flat in one object, some of it under other names; since then what is
known of the model lies in `metadata`. May import `_file`, `_parts`, `_places`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._parts import Facts
from ._places import hook_of, known, of_hook

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

VERSION = "6.0.0"
"""Of SAELens, whose form is written."""

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "hook_point_layer": "hook_layer",
    "activation_fn_str": "activation_fn",
}
_METADATA = (
    *("model_name", "hook_name", "hook_layer", "hook_head_index", "hook_name_out", "prepend_bos"),
    *("context_size", "dataset_path", "exclude_special_tokens", "model_from_pretrained_kwargs"),
    *("neuronpedia_id", "seqpos_slice", "sae_lens_version", "sae_lens_training_version"),
)


def configuration(found: Mapping[str, Any], path: Path) -> Facts:
    """`cfg.json` in the form of version 6, every field that decides the function filled in."""
    metadata = found.get("metadata") or found.get("meta") or {}
    version = str(found.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    old = not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 6
    config = _flat(found, path) if old else {**found, "metadata": metadata}
    for name in ("architecture", "d_in", "d_sae"):
        if name not in config:
            raise ValueError(f'{path}: {CONFIG} has no "{name}"')
    config.setdefault("apply_b_dec_to_input", True)
    config["normalize_activations"] = _demand(config.get("normalize_activations"))
    hook = str(config["metadata"].get("hook_name") or "")
    config.setdefault("reshape_activations", "hook_z" if hook.endswith("hook_z") else "none")
    return config


def _flat(found: Mapping[str, Any], path: Path) -> Facts:
    """The form before version 6."""
    config = {_RENAMED.get(name, name): value for name, value in found.items()}
    metadata = {name: config[name] for name in _METADATA if name in config}
    config = {**config, "metadata": metadata | (config.get("metadata") or {})}
    config.setdefault("architecture", "standard")
    function = config.get("activation_fn") or "relu"
    if function == "topk":
        config["architecture"] = "topk"
        config["k"] = (config.get("activation_fn_kwargs") or {}).get("k", config.get("k"))
    elif function != "relu":
        raise ValueError(f"{path}: no activation_fn {function!r} here; known are relu and topk")
    return config


def _demand(found: Any) -> str:
    if isinstance(found, bool):
        return "expected_average_only_in" if found else "none"
    return found or "none"


def facts_of(config: Mapping[str, Any]) -> Facts:
    """What a configuration says of the dictionary's origin, in this library's words."""
    metadata = config["metadata"]
    place = of_hook(metadata.get("hook_name"))
    out = {f"{name}_out": value for name, value in of_hook(metadata.get("hook_name_out")).items()}
    stated = known(
        model=metadata.get("model_name"),
        head=metadata.get("hook_head_index"),
        processing=metadata.get("model_from_pretrained_kwargs") or None,
        prepend_bos=metadata.get("prepend_bos"),
        context=metadata.get("context_size"),
        trained_as=metadata.get("training_architecture"),
        flattened=True if config["reshape_activations"] == "hook_z" else None,
    )
    own = metadata.get("facts") or {}
    return own | {"architecture": config["architecture"]} | place | out | stated


def document(
    architecture: str, arrays: Mapping[str, np.ndarray], extra: Facts, facts: Facts
) -> Facts:
    """`cfg.json` in the form of version 6."""
    hook = hook_of(facts)
    metadata = known(
        model_name=facts.get("model"),
        hook_name=hook,
        hook_name_out=hook_of(facts, "site_out"),
        hook_head_index=facts.get("head"),
        model_from_pretrained_kwargs=_mapping(facts.get("processing")),
        prepend_bos=facts.get("prepend_bos"),
        context_size=facts.get("context"),
        training_architecture=extra.pop("training_architecture", None),
    )
    d_in, d_sae = arrays["W_enc"].shape
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "reshape_activations": "hook_z" if str(hook).endswith("hook_z") else "none",
        **extra,
        "metadata": {
            **metadata,
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "facts": facts,
        },
    }


_FOLDS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
_MODES = {"tl": _FOLDS, "centred": _FOLDS[1:3]}
"""What `models.process` does, by the arguments of TransformerLens."""


def _mapping(found: Any) -> Any:
    """Those arguments, where facts name a mode or hold them."""
    if isinstance(found, str) and found in _MODES:
        return {name: name in _MODES[found] for name in _FOLDS}
    return found if isinstance(found, dict) else None
