r"""Gemma Scope: JumpReLU dictionaries and transcoders of Gemma 2 (`params.npz`) and Gemma 3.

Nothing is subtracted before encoding. The first release names its file's place by its path alone
(`gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`): dictionaries of attention see all heads
of a token side by side; those of the embedding were trained on it without its factor
$\sqrt{d}$, which is folded in: $W_{enc} / \sqrt d$, $W_{dec} \sqrt d$, $b_{dec} \sqrt d$. The
second (`params.safetensors`, `config.json`) may add $x W$ with `affine_skip_connection`
[d_in, d_out], not transposed. May import the architectures, `_file`, `_parts`, `_places`.
"""

import io
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...taps import AbstractDictionary
from .._coded import rescaled
from .._coder import Coder
from ..jumprelu import JumpReLU
from ..transcoder import Transcoder
from ._file import Arrays, json_bytes, read_json, read_tensors, tensor_bytes, write_folder
from ._parts import (
    Facts,
    Loaded,
    assembled,
    checked,
    expected,
    jumping,
    numpy,
    refuse,
    threshold_of,
    uncentred,
)
from ._places import hook_of, known, of_hook, of_module

PARAMS, CONFIG, PARAMS_2 = "params.npz", "config.json", "params.safetensors"
_KNOWN = "JumpReLU, BatchTopK, Matryoshka, L1 and their Transcoders"
_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
_SITES = {"res": "resid_post", "mlp": "mlp_out", "att": "z"}


def read_gemma_scope(path: str | os.PathLike, transcoder: bool | None = None) -> Loaded:
    """A dictionary of the first release, from its folder or `params.npz`.

    - `transcoder`: whether it is one; by default as the path says.

    Raises `ValueError` for a file that is no such archive, or arrays that do not fit.

    >>> dictionary, facts = read_gemma_scope("gemma-scope-2b-pt-res/layer_12/width_16k/...")
    """
    path = Path(path)
    file = path / PARAMS if path.is_dir() else path
    arrays = _npz(file)
    expected(arrays, _NAMES, file)
    coder = assembled(file, *[arrays[name] for name in _NAMES[:4]], centred=False)
    facts = _place(file)
    if facts.get("site") == "embed":
        coder = _embedding(coder)
    dictionary = jumping(file, coder, arrays["threshold"])
    transcodes = "transcoder" in _told(file) if transcoder is None else transcoder
    facts = {"architecture": "jumprelu"} | facts
    return (Transcoder(dictionary) if transcodes else dictionary), facts


def _npz(file: Path) -> Arrays:
    """The arrays; old files spell matrices `w_enc`. Pickled objects are refused."""
    try:
        with np.load(file, allow_pickle=False) as found:
            return {re.sub("^w_", "W_", name): found[name] for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        message = f"{file} is no whole params.npz ({error}): download it again"
        raise ValueError(message) from None


def _embedding(coder: Coder) -> Coder:
    """For the embedding as models of this library give it, times sqrt(d), not the raw one."""
    unit = jnp.asarray(coder.d_in**-0.5, jnp.float32)
    return rescaled(coder, unit, unit)


def _told(file: Path) -> str:
    """The part of the path that the release names: release, layer, width, sparsity, file. What the
    Hub's client keeps lies in snapshots/COMMIT below the release."""
    parts = file.absolute().parts
    if "snapshots" in parts:
        at = parts.index("snapshots")
        parts = (*parts[:at], *parts[at + 2 :])
    return "/".join(parts[-5:])


def _place(file: Path) -> Facts:
    """What the path says."""
    text = _told(file)
    release = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)", text)
    layer = re.search(r"layer_(\d+)", text)
    facts: Facts = known(layer=int(layer[1]) if layer else None)
    if release:
        facts["model"] = f"gemma-2-{release[1]}" + ("-it" if release[2] == "it" else "")
        site = _SITES.get(release[3], "mlp_normed")
        facts |= {"site": site} | ({"flattened": True} if site == "z" else {})
    if "transcoder" in text:
        facts |= {"site": "mlp_normed", "site_out": "mlp_out"}
    if re.search(r"(^|/)embedding(/|$)", text):
        facts["site"] = "embed"
        facts.pop("layer", None)
    return facts


def write_gemma_scope(
    dictionary: AbstractDictionary, path: str | os.PathLike, facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder with `params.npz`. Facts are not written: the format tells them by the path.

    Raises `ValueError` for an architecture that is no JumpReLU, and for a path that would be read
    as another site's or as no transcoder's.

    >>> write_gemma_scope(dictionary, "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    """
    arrays = _taken(dictionary, "gemma_scope")
    skips = isinstance(dictionary, Transcoder) and dictionary.skip is not None
    file = Path(path) / PARAMS
    told, place = "transcoder" in _told(file), _place(file)
    if skips:
        raise ValueError(
            'gemma_scope has no linear skip: save_dictionary(..., format="gemma_scope_2")'
        )
    if told != isinstance(dictionary, Transcoder) or place.get("site") == "embed":
        raise ValueError(
            'gemma_scope is told by its path: "transcoder" stands in that of transcoders and no'
            ' others, and "embedding" in that of an embedding, which is not written here'
        )
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return write_folder(path, {PARAMS: buffer.getvalue()})


def _taken(dictionary: AbstractDictionary, format: str) -> Arrays:
    inner = dictionary.inner if isinstance(dictionary, Transcoder) else dictionary
    threshold = threshold_of(inner)
    if threshold is None:
        raise refuse(dictionary, format, _KNOWN)
    coder = inner.coder  # pyright: ignore[reportAttributeAccessIssue]
    return numpy(uncentred(coder)) | {"threshold": threshold}


def read_gemma_scope_2(path: str | os.PathLike) -> Loaded:
    """A dictionary or transcoder of the second release.

    Raises `ValueError` for another architecture than `jump_relu`, cross-layer transcoders, and
    arrays that do not fit.

    >>> dictionary, facts = read_gemma_scope_2("resid_post/layer_12_width_16k_l0_small")
    """
    path = Path(path)
    config = read_json(path / CONFIG)
    if config.get("architecture") != "jump_relu":
        raise ValueError(f"{path}: no {config.get('architecture')!r} here; known is jump_relu")
    arrays = {re.sub("^w_", "W_", k): v for k, v in read_tensors(path / PARAMS_2)[0].items()}
    skips = "affine_skip_connection" in arrays
    expected(arrays, {*_NAMES} | ({"affine_skip_connection"} if skips else set()), path)
    coder = assembled(path, *[arrays[name] for name in _NAMES[:4]], centred=False)
    dictionary: JumpReLU | Transcoder = jumping(path, coder, arrays["threshold"])
    if bool(config.get("affine_connection")) != skips:
        raise ValueError(
            f"{path}: {CONFIG} says affine_connection {config.get('affine_connection')!r}, the"
            f" weights {'have' if skips else 'lack'} affine_skip_connection: download both again"
        )
    ends = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    if skips or config.get("type") == "transcoder" or ends[1] not in (None, ends[0]):
        shape = (coder.d_in, coder.w_dec.shape[1])
        skip = checked(path, arrays["affine_skip_connection"], shape) if skips else None
        dictionary = Transcoder(dictionary, None if skip is None else jnp.asarray(skip))
    return dictionary, _stated(config, ends, isinstance(dictionary, Transcoder))


def _stated(config: Facts, ends: tuple[Any, Any], transcodes: bool) -> Facts:
    model = str(config["model_name"]).split("/")[-1] if config.get("model_name") else None
    out = _end(ends[1]) if transcodes else {}
    facts = {"architecture": "jumprelu"} | known(model=model, l0=config.get("l0")) | _end(ends[0])
    facts |= {f"{name}_out": value for name, value in out.items() if name != "layer"}
    return facts | ({"flattened": True} if facts.get("site") == "z" else {})


def _end(hook: Any) -> Facts:
    """Hugging Face's module names, or TransformerLens's hooks, which this library writes."""
    found = of_module(hook)
    return found if "site" in found else of_hook(hook)


def write_gemma_scope_2(
    dictionary: AbstractDictionary, path: str | os.PathLike, facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder with `config.json` and `params.safetensors`.

    - `facts`: site and layer are written as TransformerLens's hook.

    Raises `ValueError` for an architecture that is no JumpReLU.

    >>> write_gemma_scope_2(dictionary, "layer_12", {"site": "resid_post", "layer": 12})
    """
    facts, arrays = dict(facts or {}), _taken(dictionary, "gemma_scope_2")
    stored = {re.sub("^W_", "w_", name): leaf for name, leaf in arrays.items()}
    transcodes = isinstance(dictionary, Transcoder)
    skip = dictionary.skip if isinstance(dictionary, Transcoder) else None
    if skip is not None:
        stored["affine_skip_connection"] = np.asarray(skip, np.float32)
    config = {
        "architecture": "jump_relu",
        "type": "transcoder" if transcodes else "sae",
        "width": dictionary.d_dict,
        "affine_connection": skip is not None,
        "model_name": facts.get("model"),
        "hf_hook_point_in": hook_of(facts),
        "hf_hook_point_out": hook_of(facts, "site_out") if transcodes else hook_of(facts),
        "l0": facts.get("l0"),
    }
    files = {CONFIG: json_bytes(known(**config)), PARAMS_2: tensor_bytes(stored)}
    return write_folder(path, files)
