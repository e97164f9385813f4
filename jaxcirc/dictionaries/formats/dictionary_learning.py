r"""dictionary_learning: a folder with `ae.pt`, a state dictionary of PyTorch, and `config.json`.

The pickle is read by `_torch_zip`, which calls nothing. `nn.Linear` keeps matrices transposed:
`encoder.weight` [F, d], `decoder.weight` [d, F]. JumpReLU does not subtract the bias. (Before
2025 the library multiplied the features of Gated and JumpReLU by the lengths of their directions,
and divided before decoding: what they reconstruct is the same.) May import the architectures,
`_file`, `_parts`, `_places`, `_torch_zip`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...taps import AbstractDictionary
from .._coded import Coded
from .._coder import Coder
from ..batchtopk import BatchTopK
from ..gated import Gated
from ..jumprelu import JumpReLU
from ..l1 import L1
from ..matryoshka import Matryoshka
from ..topk import TopK
from ._file import Arrays, json_bytes, read_json, write_folder
from ._parts import (
    Facts,
    Loaded,
    assembled,
    centred,
    checked,
    expected,
    held,
    jumping,
    numpy,
    plain_k,
    refuse,
    threshold_of,
    uncentred,
)
from ._places import known, of_module
from ._torch_zip import read_torch, torch_bytes

WEIGHTS, CONFIG = "ae.pt", "config.json"
_KNOWN = "L1, Gated, JumpReLU, TopK, BatchTopK, Matryoshka"
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_ROWS = ("W_enc", "b_enc", "W_dec", "b_dec")
_TENSORS = {
    "AutoEncoder": (*_LINEAR, "bias"),
    "AutoEncoderNew": (*_LINEAR, "decoder.bias"),
    "GatedAutoEncoder": (
        *("encoder.weight", "decoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder_bias"),
    ),
    "JumpReluAutoEncoder": (*_ROWS, "threshold"),
    "MatryoshkaBatchTopKSAE": (*_ROWS, "k", "threshold", "group_sizes"),
    "AutoEncoderTopK": (*_LINEAR, "b_dec", "k"),
    "BatchTopKSAE": (*_LINEAR, "b_dec", "k"),
}
"""Classes that are read, with their tensors; the last two may lack a threshold."""


def read_dictionary_learning(path: str | os.PathLike) -> Loaded:
    """A dictionary that dictionary_learning has saved, from its folder or `.pt` file.

    Raises `ValueError` for a class that is not here, a pickle that would call something, and
    tensors that are missing, too many or misshapen.

    >>> dictionary, facts = read_dictionary_learning("trainer_0")
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    arrays, trainer = read_torch(file), _trainer(file)
    kind = _class(trainer, arrays, file)
    expected(arrays, _TENSORS[kind], file, ignored=("threshold",))
    dictionary = _made(kind, arrays, file)
    stated = (trainer.get("activation_dim"), trainer.get("dict_size"))
    if None not in stated and stated != (dictionary.d_in, dictionary.d_dict):
        found = (dictionary.d_in, dictionary.d_dict)
        raise ValueError(
            f"{file} has activation_dim, dict_size {found}, its {CONFIG} says {stated}"
        )
    own = known(model=trainer.get("lm_name"), layer=trainer.get("layer"), architecture=kind)
    return dictionary, of_module(trainer.get("submodule_name")) | own


def _trainer(file: Path) -> Facts:
    """The trainer's part of `config.json`, beside the file or one folder up; nothing if none."""
    for folder in (file.parent, file.parent.parent):
        if (folder / CONFIG).exists():
            found = read_json(folder / CONFIG)
            return found.get("trainer", found)
    return {}


def _class(trainer: Facts, arrays: Arrays, file: Path) -> str:
    """The class that the configuration names; without one, that which has these tensors."""
    if stated := trainer.get("dict_class"):
        name = re.findall(r"\w+", str(stated))[-1]
        if name in _TENSORS:
            return name
        raise ValueError(f"{file}: no {name!r} here; known are {', '.join(_TENSORS)}")
    found = set(arrays) - {"threshold"}
    fits = [name for name, names in _TENSORS.items() if found == set(names) - {"threshold"}]
    if len(fits) != 1:
        raise ValueError(
            f'{file} does not tell its class by its tensors: put {CONFIG} beside it, {{"trainer":'
            ' {"dict_class": "AutoEncoderTopK"}}'
        )
    return fits[0]


def _made(kind: str, a: Arrays, file: Path) -> Coded:
    rows = "W_enc" in a
    biases = [name for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in a]
    b_enc = a[next(name for name in ("b_enc", "encoder.bias", "gate_bias") if name in a)]
    w_enc = a["W_enc"] if rows else a["encoder.weight"].T
    w_dec = a["W_dec"] if rows else a["decoder.weight"].T
    minus = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    coder = assembled(file, w_enc, b_enc, w_dec, a[biases[0]], minus)
    match kind:
        case "AutoEncoder" | "AutoEncoderNew":
            return L1(coder)
        case "GatedAutoEncoder":
            each = (coder.d_dict,)
            sizes = (checked(file, a[name], each) for name in ("r_mag", "mag_bias"))
            return Gated(coder, *map(jnp.asarray, sizes))
        case "JumpReluAutoEncoder":
            return jumping(file, coder, a["threshold"])
        case "AutoEncoderTopK":
            return TopK(coder, int(a["k"]))
    threshold = held(checked(file, a.get("threshold", -1.0), ()))
    if kind == "BatchTopKSAE":
        return BatchTopK(coder, int(a["k"]), threshold)
    widths = tuple(np.cumsum(a["group_sizes"]).tolist())
    return Matryoshka(coder, int(a["k"]), widths=widths, threshold=threshold)


def write_dictionary_learning(
    dictionary: AbstractDictionary, path: str | os.PathLike, facts: Mapping[str, Any] | None = None
) -> Path:
    """Write `ae.pt` and `config.json`; `torch.load` reads the former, weights only.

    Raises `ValueError` for a dictionary that dictionary_learning has no class for.

    >>> write_dictionary_learning(dictionary, "trainer_0", {"model": "gpt2", "layer": 8})
    """
    kind, arrays = _taken(dictionary)
    facts = dict(facts or {})
    trainer = {
        "dict_class": kind,
        "activation_dim": dictionary.d_in,
        "dict_size": dictionary.d_dict,
        "k": getattr(dictionary, "k", None),
        "lm_name": facts.get("model"),
        "layer": facts.get("layer"),
        "submodule_name": _submodule(facts),
    }
    config = json_bytes({"trainer": known(**trainer), "buffer": {}})
    return write_folder(path, {WEIGHTS: torch_bytes(arrays), CONFIG: config})


def _submodule(facts: Facts) -> str | None:
    if "site" not in facts or "layer" not in facts:
        return facts.get("hook")
    return f"{facts['site']}_layer_{facts['layer']}"


def _taken(dictionary: AbstractDictionary) -> tuple[str, Arrays]:
    """dictionary_learning's class and tensors of a dictionary."""
    match dictionary:
        case L1() if not dictionary.coder.centred:
            return "AutoEncoderNew", _linear(dictionary.coder, "decoder.bias")
        case L1():
            return "AutoEncoder", _linear(dictionary.coder, "bias")
        case Gated():
            arrays = _linear(centred(dictionary.coder), "decoder_bias")
            sizes = {"r_mag": dictionary.r_mag, "mag_bias": dictionary.b_mag}
            arrays |= {name: np.asarray(leaf, np.float32) for name, leaf in sizes.items()}
            return "GatedAutoEncoder", arrays | {"gate_bias": arrays.pop("encoder.bias")}
        case JumpReLU():
            threshold = threshold_of(dictionary)
            assert threshold is not None
            return "JumpReluAutoEncoder", numpy(uncentred(dictionary.coder)) | {
                "threshold": threshold
            }
        case TopK():
            counts = _counts(plain_k(dictionary, "dictionary_learning"), -1.0)
            return "AutoEncoderTopK", _linear(centred(dictionary.coder), "b_dec") | counts
        case BatchTopK():
            arrays = _linear(centred(dictionary.coder), "b_dec")
            return "BatchTopKSAE", arrays | _counts(dictionary.k, _threshold(dictionary))
        case Matryoshka():
            arrays = numpy(centred(dictionary.coder))
            arrays |= _counts(dictionary.k, _threshold(dictionary))
            sizes = np.diff((0, *dictionary.widths)).astype(np.int64)
            return "MatryoshkaBatchTopKSAE", arrays | {"group_sizes": sizes}
    raise refuse(dictionary, "dictionary_learning", _KNOWN)


def _linear(coder: Coder, bias: str) -> Arrays:
    a = numpy(coder)
    weights = {"encoder.weight": a["W_enc"].T, "encoder.bias": a["b_enc"]}
    return weights | {"decoder.weight": a["W_dec"].T, bias: a["b_dec"]}


def _counts(k: int, threshold: float) -> Arrays:
    return {"k": np.asarray(k, np.int32), "threshold": np.asarray(threshold, np.float32)}


def _threshold(dictionary: BatchTopK | Matryoshka) -> float:
    """-1 before training, as there."""
    found = dictionary.threshold
    return float(found.value) if float(found.weight) > 0 else -1.0
