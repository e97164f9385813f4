r"""sparsify (EleutherAI): a folder with `cfg.json` and `sae.safetensors`, TopK only.

`encoder.weight` [F, d] is transposed, `W_dec` [F, d] is not; `W_skip` [d, d] adds $x W_{skip}^T$,
of the input as it came. The decoder's bias is subtracted before encoding unless the coder
transcodes. May import the architectures, `_file`, `_parts`, `_places`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...taps import AbstractDictionary
from .._coder import Coder
from ..topk import TopK
from ..transcoder import Transcoder
from ._file import Arrays, json_bytes, read_json, read_tensors, tensor_bytes, write_folder
from ._parts import (
    Facts,
    Loaded,
    assembled,
    centred,
    checked,
    expected,
    numpy,
    plain_k,
    refuse,
    uncentred,
)
from ._places import known, of_module

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_ELSEWHERE = ("embed_skip", "gram_lookup", "signed", "normalize_io", "post_encoder_scale")
"""Options that add to the function what is not in the file, or not in this library."""

_READS = {"mlp_out": "mlp_normed", "attn_out": "attn_normed", "resid_post": "resid_pre"}
"""What a module takes in, by what it gives: a transcoder's folder names the module."""


def read_sparsify(path: str | os.PathLike) -> Loaded:
    """A sparse coder of sparsify: a `TopK`, or a `Transcoder` of one.

    Raises `ValueError` for another activation than TopK, options that are not here, and tensors
    that are missing, too many or misshapen.

    >>> dictionary, facts = read_sparsify("sae-llama-3-8b-32x/layers.10")
    """
    path = Path(path)
    config, arrays = read_json(path / CONFIG), read_tensors(path / WEIGHTS)[0]
    _check(config, path)
    skips = bool(config.get("skip_connection"))
    names = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} | ({"W_skip"} if skips else set())
    expected(arrays, names, path)
    transcodes = bool(config.get("transcode"))
    coder = assembled(
        *(path, arrays["encoder.weight"].T, arrays["encoder.bias"]),
        *(arrays["W_dec"], arrays["b_dec"], not transcodes),
    )
    _check_sizes(coder, config, path)
    facts = known(architecture="topk", model=config.get("model")) | of_module(path.name)
    if transcodes and facts.get("site") in _READS:
        facts |= {"site": _READS[facts["site"]], "site_out": facts["site"]}
    if not transcodes and not skips:
        return TopK(coder, config["k"]), facts
    inner = TopK(uncentred(coder), config["k"])
    if not skips:
        return Transcoder(inner), facts
    skip = checked(path, arrays["W_skip"], (coder.w_dec.shape[1], coder.d_in))
    return Transcoder(inner, jnp.asarray(skip.T)), facts


def _check(config: Facts, path: Path) -> None:
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(f"{path}: no activation {activation!r} here; known is topk")
    if asked := [name for name in _ELSEWHERE if config.get(name)]:
        raise ValueError(f"{path}: {CONFIG} asks for {', '.join(asked)}, which is not here")
    if not isinstance(config.get("k"), int) or not isinstance(config.get("d_in"), int):
        raise ValueError(f'{path}: {CONFIG} needs "d_in" and "k": {{"d_in": 768, "k": 32, ...}}')


def _check_sizes(coder: Coder, config: Facts, path: Path) -> None:
    width = config.get("num_latents") or config["d_in"] * config.get("expansion_factor", 32)
    if (config["d_in"], width) != (coder.d_in, coder.d_dict):
        stated = f"{config['d_in']} to {width}"
        raise ValueError(f"{path}: {CONFIG} says {stated}, the weights {coder.w_enc.shape}")


def write_sparsify(
    dictionary: AbstractDictionary, path: str | os.PathLike, facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder that sparsify loads: `SparseCoder.load_from_disk(path)`.

    What facts say of the place is not written: sparsify tells it by the folder's name, `layers.10`.

    Raises `ValueError` for anything but a TopK, or a Transcoder of one between equal widths.

    >>> write_sparsify(dictionary, "layers.10")
    """
    arrays, extra = _taken(dictionary)
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": dictionary.d_dict,
        "multi_topk": False,
        **extra,
        "d_in": dictionary.d_in,
    }
    if model := (facts or {}).get("model"):
        config["model"] = model
    return write_folder(path, {CONFIG: json_bytes(config), WEIGHTS: tensor_bytes(arrays)})


def _taken(dictionary: AbstractDictionary) -> tuple[Arrays, Facts]:
    transcodes = isinstance(dictionary, Transcoder)
    inner = dictionary.inner if isinstance(dictionary, Transcoder) else dictionary
    if not isinstance(inner, TopK) or inner.coder.w_dec.shape[1] != inner.d_in:
        raise refuse(dictionary, "sparsify", "TopK, and Transcoder of TopK between equal widths")
    a = numpy(uncentred(inner.coder) if transcodes else centred(inner.coder))
    arrays = {"encoder.weight": a["W_enc"].T, "encoder.bias": a["b_enc"]}
    arrays |= {"W_dec": a["W_dec"], "b_dec": a["b_dec"]}
    skip = dictionary.skip if isinstance(dictionary, Transcoder) else None
    if skip is not None:
        arrays["W_skip"] = np.asarray(skip, np.float32).T
    k = plain_k(inner, "sparsify")
    return arrays, {"k": k, "transcode": transcodes, "skip_connection": skip is not None}
