r"""SAELens: a folder with `cfg.json` and `sae_weights.safetensors`, rows as vectors.

Version 6 is read and written; flat configurations from before it are read. What `cfg.json` demands
of activations is honoured: `expected_average_only_in` (activations times s) is folded,
$W_{enc} s$, $W_{dec} / s$, $b_{dec} / s$; `layer_norm` and `constant_norm_rescale` become
`Standardised`; `rescale_acts_by_decoder_norm` is folded into directions of length 1, whose features
are SAELens's. BatchTopK and Matryoshka are written as SAELens exports them, as `jumprelu` with one
threshold for all. SAEs of `hook_z` see all heads of a token side by side: `Heads` puts one at `z`.
May import the
architectures, `_file`, `_parts`, `_places`, `_saelens_config`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ...taps import AbstractDictionary
from .._coded import Coded, rescaled
from .._coder import Coder
from ..batchtopk import BatchTopK
from ..gated import Gated
from ..l1 import L1
from ..matryoshka import Matryoshka
from ..standardised import Standardised
from ..topk import TopK
from ..transcoder import Transcoder
from ._file import Arrays, json_bytes, read_json, read_tensors, tensor_bytes, write_folder
from ._parts import (
    Facts,
    Loaded,
    assembled,
    checked,
    expected,
    held,
    jumping,
    lengths_folded,
    numpy,
    refuse,
    threshold_of,
)
from ._saelens_config import CONFIG, WEIGHTS, configuration, document, facts_of

SCALER = "activation_scaler.json"
_KNOWN = "L1, TopK, BatchTopK, Matryoshka, JumpReLU, Gated, Standardised and their Transcoders"
_MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")
_EXTRA = {
    "standard": _MATRICES,
    "topk": _MATRICES,
    "jumprelu": (*_MATRICES, "threshold"),
    "batchtopk": (*_MATRICES, "topk_threshold"),
    "matryoshka_batchtopk": (*_MATRICES, "topk_threshold"),
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "transcoder": _MATRICES,
    "skip_transcoder": (*_MATRICES, "W_skip"),
    "jumprelu_transcoder": (*_MATRICES, "threshold"),
    "jumprelu_skip_transcoder": (*_MATRICES, "threshold", "W_skip"),
}
"""Architectures that are read, with their tensors."""


def read_saelens(path: str | os.PathLike, scale: float | None = None) -> Loaded:
    """A dictionary that SAELens has saved, and what its configuration says.

    - `scale`: what activations were multiplied by, where the file demands
      `expected_average_only_in` and does not say it.

    Raises `ValueError` for an architecture that is not here, tensors that are missing, too many or
    misshapen, and demands that cannot be kept.

    >>> dictionary, facts = read_saelens("blocks.8.hook_resid_pre")
    """
    path = Path(path)
    config = configuration(read_json(path / CONFIG), path)
    architecture = config["architecture"]
    if architecture not in _EXTRA:
        raise ValueError(f"{path}: no {architecture!r} here; known are {', '.join(_EXTRA)}")
    arrays = _renamed(read_tensors(path / WEIGHTS)[0])
    factor = arrays.pop("scaling_factor", None)
    expected(arrays, _EXTRA[architecture], path)
    arrays = {name: checked(path, leaf) for name, leaf in arrays.items()}
    dictionary = _finetuned(_made(architecture, arrays, config, path), factor, config, path)
    return _normalised(dictionary, config, path, scale), facts_of(config)


def _renamed(arrays: Arrays) -> Arrays:
    """Old files hold the logarithm of the threshold; some, a scaling factor under a longer name."""
    found = dict(arrays)
    if "log_threshold" in found:
        found["threshold"] = np.exp(np.asarray(found.pop("log_threshold"), np.float32))
    if "finetuning_scaling_factor" in found:
        found["scaling_factor"] = found.pop("finetuning_scaling_factor")
    return found


def _made(architecture: str, a: Arrays, config: Facts, path: Path) -> Coded | Transcoder:
    transcodes = architecture.endswith("transcoder")
    b_enc = a["b_gate"] if architecture == "gated" else a["b_enc"]
    centred = bool(config["apply_b_dec_to_input"]) and not transcodes
    coder = assembled(path, a["W_enc"], b_enc, a["W_dec"], a["b_dec"], centred)
    if (config["d_in"], config["d_sae"]) != (coder.d_in, coder.d_dict):
        stated = f"d_in {config['d_in']}, d_sae {config['d_sae']}"
        raise ValueError(f"{path}: {CONFIG} says {stated}, the weights {coder.w_enc.shape}")
    if config.get("rescale_acts_by_decoder_norm"):
        coder = lengths_folded(coder)
    if not transcodes:
        return _plain(architecture, coder, a, config, path)
    inner = jumping(path, coder, a["threshold"]) if "threshold" in a else L1(coder)
    if "W_skip" not in a:
        return Transcoder(inner)
    skip = checked(path, a["W_skip"], (coder.w_dec.shape[1], coder.d_in))
    return Transcoder(inner, jnp.asarray(skip.T))


def _plain(architecture: str, coder: Coder, a: Arrays, config: Facts, path: Path) -> Coded:
    each = (coder.d_dict,)
    match architecture:
        case "standard":
            return L1(coder)
        case "topk":
            return TopK(coder, _k(config, path))
        case "jumprelu":
            return jumping(path, coder, a["threshold"])
        case "gated":
            sizes = (checked(path, a[name], each) for name in ("r_mag", "b_mag"))
            return Gated(coder, *map(jnp.asarray, sizes))
    threshold = held(checked(path, a["topk_threshold"], ()))
    if architecture == "batchtopk":
        return BatchTopK(coder, _k(config, path), threshold)
    widths = tuple(sorted({*map(int, config.get("matryoshka_widths") or ()), coder.d_dict}))
    return Matryoshka(coder, _k(config, path), widths=widths, threshold=threshold)


def _k(config: Facts, path: Path) -> int:
    k = config.get("k")
    if not isinstance(k, int | float) or k <= 0:
        raise ValueError(f'{path}: {CONFIG} has k = {k!r}: it needs "k": 32, or the like')
    return max(1, round(k))


def _finetuned(dictionary, factor: Any, config: Facts, path: Path) -> Coded | Transcoder:
    """Feature activations times a factor, learned after training: folded into the directions."""
    if factor is None or np.allclose(np.asarray(factor, np.float32), 1.0):
        return dictionary
    if not config.get("finetuning_scaling_factor") or isinstance(dictionary, Transcoder):
        raise ValueError(
            f"{path} holds a scaling_factor that is not 1, while {CONFIG} says"
            ' "finetuning_scaling_factor": false: correct one of them'
        )
    rows = checked(path, factor, (dictionary.d_dict,))[:, None]
    return eqx.tree_at(lambda d: d.coder.w_dec, dictionary, dictionary.coder.w_dec * rows)


def _normalised(dictionary, config: Facts, path: Path, scale: float | None) -> AbstractDictionary:
    demand = config["normalize_activations"]
    if demand == "none":
        return dictionary
    if isinstance(dictionary, Transcoder):
        raise ValueError(
            f"{path}: a transcoder with normalize_activations {demand!r} scales its input alone:"
            ' fold it in SAELens first, as "none"'
        )
    if demand == "layer_norm":
        return Standardised(dictionary, "layer_norm")
    if demand == "constant_norm_rescale":
        return Standardised(dictionary, "length")
    if demand != "expected_average_only_in":
        raise ValueError(f"{path}: unknown normalize_activations {demand!r} in {CONFIG}")
    found = _scale(path) if scale is None else scale
    factor = jnp.asarray(found, jnp.float32)
    return dictionary.with_coder(rescaled(dictionary.coder, factor, factor))


def _scale(path: Path) -> float:
    if (path / SCALER).exists():
        return float(read_json(path / SCALER)["scaling_factor"])
    raise ValueError(
        f"{path} demands activations of mean length sqrt(d_in) and does not say their factor:"
        f" read_saelens({str(path)!r}, scale=sqrt(d_in) / mean_length)"
    )


def write_saelens(
    dictionary: AbstractDictionary, path: str | os.PathLike, facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder that SAELens 6 loads: `SAE.load_from_disk(path)`.

    - `facts`: model, site and layer become `model_name` and `hook_name`.

    Raises `ValueError` for a dictionary that SAELens has no architecture for.

    >>> write_saelens(dictionary, "out", {"model": "gpt2", "site": "resid_pre", "layer": 8})
    """
    inner, demand = dictionary, "none"
    if isinstance(dictionary, Standardised):
        inner = dictionary.inner
        length = dictionary.scale == "length"
        demand = "constant_norm_rescale" if length else "layer_norm"
    architecture, arrays, extra = _taken(inner)
    extra["normalize_activations"] = demand
    config = document(architecture, arrays, extra, dict(facts or {}))
    return write_folder(path, {CONFIG: json_bytes(config), WEIGHTS: tensor_bytes(arrays)})


def _taken(dictionary: AbstractDictionary) -> tuple[str, Arrays, Facts]:
    """SAELens's architecture, tensors and configuration of a dictionary."""
    if isinstance(dictionary, Transcoder):
        return _transcoder(dictionary)
    if not isinstance(dictionary, Coded):
        raise refuse(dictionary, "saelens", _KNOWN)
    arrays = numpy(dictionary.coder)
    extra: Facts = {"apply_b_dec_to_input": dictionary.coder.centred}
    match dictionary:
        case L1():
            return "standard", arrays, extra
        case TopK():
            extra |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": dictionary.by_length}
            return "topk", arrays, extra
        case Gated():
            arrays["b_gate"] = arrays.pop("b_enc")
            sizes = {"b_mag": dictionary.b_mag, "r_mag": dictionary.r_mag}
            arrays |= {name: np.asarray(leaf, np.float32) for name, leaf in sizes.items()}
            return "gated", arrays, extra
        case BatchTopK():
            extra["training_architecture"] = "batchtopk"
        case Matryoshka():
            extra["training_architecture"] = "matryoshka_batchtopk"
    threshold = threshold_of(dictionary)
    if threshold is None:
        raise refuse(dictionary, "saelens", _KNOWN)
    return "jumprelu", arrays | {"threshold": threshold}, extra


def _transcoder(dictionary: Transcoder) -> tuple[str, Arrays, Facts]:
    threshold = threshold_of(dictionary.inner)
    if threshold is None:
        raise refuse(dictionary, "saelens", _KNOWN.replace("and their Transcoders", "Transcoders"))
    arrays, name = numpy(dictionary.inner.coder), "transcoder"
    if dictionary.skip is not None:
        arrays["W_skip"], name = np.asarray(dictionary.skip, np.float32).T, f"skip_{name}"
    if not isinstance(dictionary.inner, L1):
        arrays["threshold"], name = threshold, f"jumprelu_{name}"
    extra = {"apply_b_dec_to_input": False, "d_out": arrays["W_dec"].shape[1]}
    return name, arrays, extra
