"""The families that `load_model` knows, by the name that a file gives them.

May import the files of the families.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from . import gemma, glass, gpt2, gptj, llama, neo, neox, transformer_lens
from ._family import Family
from ._keys import Keys
from ._spec import Rope, Spec
from .folder import Folder
from .gguf import GGUF

HF_FAMILIES: dict[str, Family] = {
    **gpt2.FAMILIES,
    **neo.FAMILIES,
    **gptj.FAMILIES,
    **neox.FAMILIES,
    **llama.FAMILIES,
    **gemma.FAMILIES,
    **glass.FAMILIES,
    **transformer_lens.FAMILIES,
}
"""By `model_type` of config.json."""

GGUF_FAMILIES: dict[str, Family] = {
    **gpt2.GGUF_FAMILIES,
    **llama.GGUF_FAMILIES,
    **gemma.GGUF_FAMILIES,
}
"""By `general.architecture` of a GGUF file."""

_GGUF_HARMLESS = (
    *("*.vocab_size", "*.attention.value_length*", "*.rope.scaling.*", "*.attention.key_length_*"),
    *("*.rope.dimension_count_swa", "*.feed_forward_length"),
)


def of_folder(folder: Folder, ignore: Iterable[str] = ()) -> tuple[Family, Spec]:
    """The family of a folder and what its config says.

    Raises `ValueError` for an architecture or a key of the config that is not known.
    """
    config = folder.config
    name = config.get("model_type", "transformer_lens" if "d_model" in config else None)
    family = _known(name, HF_FAMILIES, folder.path.name)
    if "text_config" in config:
        outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
        config = outer | config["text_config"]
    keys = Keys(config, f"config.json of {folder.path.name}")
    spec = family.spec(keys)
    keys.check(family.harmless, ignore)
    return family, spec


def of_gguf(file: GGUF, ignore: Iterable[str] = ()) -> tuple[Family, Spec]:
    """The family of a GGUF file and what its metadata says; it is tied if it has no output tensor.

    Raises `ValueError` for an architecture or a key of the architecture that is not known.
    """
    name = file.get("general.architecture")
    family = _known(name, GGUF_FAMILIES, file.path.name)
    extra: dict[str, Any] = {f"{name}.vocab_size": file.shape("token_embd.weight")[0]}
    keys = Keys(file.metadata | extra, file.path.name, f"{name}.")
    spec = family.spec(keys)
    keys.check(_GGUF_HARMLESS, ignore)
    return family, dataclasses.replace(spec, ropes=tuple(_scaled(file, r) for r in spec.ropes))


_FACTORS = "rope_freqs.weight"


def _scaled(file: GGUF, rope: Rope) -> Rope:
    """llama.cpp writes the scaling of Llama 3 as one factor a frequency."""
    if _FACTORS not in file.names():
        return rope
    factors = file.rows(_FACTORS, 0, rope.dim // 2).astype(float)
    return dataclasses.replace(rope, factors=tuple(factors.tolist()))


def _known(name: Any, families: dict[str, Family], where: str) -> Family:
    if name not in families:
        known = ", ".join(map(repr, families))
        raise ValueError(f"{where} holds a {name!r} model: known families are {known}")
    return families[name]
