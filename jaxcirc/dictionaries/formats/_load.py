"""The front door: a dictionary from any file or folder of a known format, and back.

May import every format and `_shipped`.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ...taps import AbstractDictionary
from . import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    native,
    saelens,
    sparsify,
)
from ._hub import fetched, on_hub, parse_hub_file
from ._parts import Facts, Loaded
from ._shipped import named, told

Format = Literal[
    "native",
    "saelens",
    "dictionary_learning",
    "sparsify",
    "gemma_scope",
    "gemma_scope_2",
    "llama_scope",
    "circuit_tracer",
]

READERS: dict[str, Callable[..., Loaded]] = {
    "native": native.load,
    "saelens": saelens.read_saelens,
    "dictionary_learning": dictionary_learning.read_dictionary_learning,
    "sparsify": sparsify.read_sparsify,
    "gemma_scope": gemma_scope.read_gemma_scope,
    "gemma_scope_2": gemma_scope.read_gemma_scope_2,
    "llama_scope": llama_scope.read_llama_scope,
    "circuit_tracer": circuit_tracer.read_circuit_tracer,
}

WRITERS: dict[str, Callable[..., Path]] = {
    "native": native.save,
    "saelens": saelens.write_saelens,
    "dictionary_learning": dictionary_learning.write_dictionary_learning,
    "sparsify": sparsify.write_sparsify,
    "gemma_scope": gemma_scope.write_gemma_scope,
    "gemma_scope_2": gemma_scope.write_gemma_scope_2,
    "llama_scope": llama_scope.write_llama_scope,
    "circuit_tracer": circuit_tracer.write_circuit_tracer,
}

_FOLDERS = {
    "saelens": saelens.WEIGHTS,
    "sparsify": sparsify.WEIGHTS,
    "gemma_scope": gemma_scope.PARAMS,
    "gemma_scope_2": gemma_scope.PARAMS_2,
    "llama_scope": llama_scope.WEIGHTS,
    "dictionary_learning": dictionary_learning.WEIGHTS,
}
"""What a folder of each format holds and no other's does."""

_BESIDE = (
    *(saelens.CONFIG, saelens.SCALER, sparsify.CONFIG, dictionary_learning.CONFIG),
    *(gemma_scope.CONFIG, llama_scope.CONFIG, circuit_tracer.CONFIG),
)
"""What belongs to weights of some format, beside or above them."""


def load_dictionary(
    path: str | os.PathLike,
    format: Format | None = None,
    *,
    expect: Mapping[str, Any] | None = None,
    **options: Any,
) -> Loaded:
    """A dictionary and what its file says of it, whoever wrote it.

    - `path`: a file, a folder, the name of a shipped dictionary, "smollm2-middle/resid_post.12", or
      one of the Hugging Face Hub, "hub:OWNER/NAME[@REVISION][/PATH]", which is downloaded.
    - `format`: by default told by the file. `expect`: what the dictionary must be for, of model,
      site, layer, d_in and whatever else facts hold. `options`: the format's own, as
      `sha256` ("native"), `scale` ("saelens"), `transcoder` ("gemma_scope").

    Returns (dictionary, facts); facts name the format, and as far as the file says them
    architecture, model, site and layer.

    Raises `ValueError` for a file in none of the formats, one that is damaged, and a dictionary for
    something else than expected; `FileNotFoundError` for none, or what cannot be downloaded.

    >>> dictionary, facts = load_dictionary("blocks.8.hook_resid_pre", expect={"layer": 8})
    """
    if on_hub(path):
        return _from_hub(path, format, expect, options)
    path = Path(path)
    shipped = named(path) if format is None and not path.exists() else None
    name = "native" if shipped else format_of(path) if format is None else _known(format)
    if unknown := set(options) - set(inspect.signature(READERS[name]).parameters):
        raise ValueError(f"{name} has no option {', '.join(sorted(unknown))}")
    dictionary, facts = shipped.read() if shipped else READERS[name](path, **options)
    facts = facts | {"format": name}
    check(dictionary, facts, **dict(expect or {}))
    return dictionary, facts


def _from_hub(
    words: str | os.PathLike,
    format: Format | None,
    expect: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Loaded:
    """The same from the Hub; facts say whence."""
    source = parse_hub_file(words)
    path = fetched(source, tuple(_FOLDERS.values()), _BESIDE)
    dictionary, facts = load_dictionary(path, format, expect=expect, **options)
    return dictionary, {"source": str(source)} | facts


def save_dictionary(
    dictionary: AbstractDictionary,
    path: str | os.PathLike,
    format: Format = "native",
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a dictionary in one of the formats, whole or not at all.

    - `facts`: what is known of it: model, site, layer, recipe, numbers. "native" keeps all of them,
      others what they have words for. `options`: the format's own, as `storage` ("native").

    Raises `ValueError` for an architecture that the format has no room for, by name.

    >>> save_dictionary(dictionary, "out", "saelens", {"model": "gpt2", "site": "z", "layer": 3})
    """
    return WRITERS[_known(format)](dictionary, path, facts, **options)


def _known(format: str) -> str:
    if format not in READERS:
        raise ValueError(f"format={format!r}: use one of {', '.join(READERS)}")
    return format


def format_of(path: str | os.PathLike) -> str:
    """Which format a file or folder is in.

    Raises `FileNotFoundError` where there is nothing, `ValueError` for none of the formats.

    >>> format_of("blocks.8.hook_resid_pre")
    'saelens'
    """
    path = Path(path)
    if path.is_dir():
        for name, file in _FOLDERS.items():
            if (path / file).is_file():
                return name
    elif not path.exists():
        message = f"there is no {path}: give a dictionary's file or folder, or {told()}"
        raise FileNotFoundError(message)
    elif path.suffix == ".pt":
        return "dictionary_learning"
    elif path.suffix == ".npz":
        return "gemma_scope"
    elif path.suffix == ".safetensors":
        return "native" if native.KEY in _metadata(path) else "circuit_tracer"
    raise ValueError(
        f"{path} is in none of the formats {', '.join(READERS)}: folders hold one of"
        f" {', '.join(_FOLDERS.values())}"
    )


def _metadata(path: Path) -> Facts:
    """The metadata of a safetensors file, from its first bytes alone."""
    with path.open("rb") as file:
        try:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, path.stat().st_size))
            return json.loads(text).get("__metadata__", {})
        except (ValueError, AttributeError) as error:
            message = f"{path} is cut off or damaged ({error}): download or write it again"
            raise ValueError(message) from None


def check(dictionary: AbstractDictionary, facts: Mapping[str, Any], **expect: Any) -> None:
    """Refuse a dictionary that is for something else than expected.

    - `expect`: model, site, layer, or anything else that facts hold; d_in and d_dict. What the
      file does not say is not refused. Models are compared without their owner ("openai/gpt2" is
      "gpt2").

    >>> check(dictionary, facts, model="gpt2", site="resid_pre", layer=8, d_in=768)
    """
    own = {"d_in": dictionary.d_in, "d_dict": dictionary.d_dict}
    stated = {**facts, **own}
    for name, wanted in expect.items():
        found = stated.get(name)
        if found is None or wanted is None or _plain(name, found) == _plain(name, wanted):
            continue
        raise ValueError(
            f"the dictionary is for {name} {found!r}, not {wanted!r}: load one made for {wanted!r},"
            f" or state {name}={found!r}"
        )


def _plain(name: str, value: Any) -> Any:
    return str(value).split("/")[-1].lower() if name == "model" else value
