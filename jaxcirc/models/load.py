"""`load_model`: from a name, a path or a Hub id to a model and its tokenizer.

The weights are raw: floats laid out as `LM` wants them, nothing folded. A GGUF file is dequantised
on its first load, which leaves a copy in the cache folder; a folder in Hugging Face's layout is
read as it is. May import the rest of `models`.
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from . import _cache, _layout
from ._locate import MODELS as MODELS
from ._locate import Place, locate
from ._spec import Spec
from .families import of_folder, of_gguf
from .folder import Folder, open_folder
from .gguf import GGUF, open_gguf
from .glass import open_npz, read_tokenizer
from .lm import LM
from .tokenizer import Tokenizer

Loaded = tuple[Spec, dict[str, np.ndarray], Tokenizer]


def load_model(
    name_or_path: str | os.PathLike[str],
    dtype: jax.typing.DTypeLike = jnp.float32,
    *,
    ignore: Iterable[str] = (),
) -> tuple[LM, Tokenizer]:
    """Load a model and its tokenizer.

    - `name_or_path`: a name of `MODELS`, the path of a GGUF file, a folder in Hugging Face's layout
      (config.json, tokenizer.json, and safetensors or flax_model.msgpack), or a Hub id such as
      "openai-community/gpt2".
    - `dtype`: of the weights (float32, bfloat16 or float16); rotary frequencies stay float32.
    - `ignore`: metadata keys and tensors that the family does not know and that may be passed over.

    Returns (model, tokenizer). Raises `ValueError` for a name or dtype that is not known, a key or
    tensor that the family does not know, lacks, or has of another shape, a file that is truncated
    or holds NaN; `FileNotFoundError` for an absent file.

    >>> model, tokenizer = jaxcirc.load_model("smollm2-135m")
    >>> logits, _ = jaxcirc.run(model, jnp.array([tokenizer.encode("The capital of France is")]))
    >>> tokenizer.token(logits[0, -1].argmax())
    ' Paris'
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        name = jnp.dtype(dtype).name
        raise ValueError(f"dtype={name}: use jnp.float32, jnp.bfloat16 or jnp.float16")
    place, ignore = locate(name_or_path), tuple(ignore)
    path = place.paths[0]
    if path.is_dir():
        folder = open_folder(path)
        tokenizer = Tokenizer.from_folder(path, folder.config)
        sha256, loaded = folder.sha256(), _from_folder(folder, tokenizer, dtype, ignore)
    elif path.suffix == ".npz":
        folder, tokenizer = open_npz(path), read_tokenizer(path)
        sha256, loaded = folder.sha256(), _from_folder(folder, tokenizer, dtype, ignore)
    else:
        sha256 = place.sha256 or _cache.sha256_of(place.paths[0])
        loaded = _from_gguf(place, sha256, ignore)
    spec, arrays, tokenizer = loaded
    bos = "always" if tokenizer.adds_bos else "never"
    facts = {"name": place.name, "sha256": sha256, "source": place.source, "bos": bos}
    spec = dataclasses.replace(spec, config=dataclasses.replace(spec.config, **facts))
    placed = {leaf: _place(array, dtype) for leaf, array in arrays.items()}
    constants = {leaf: jax.device_put(array) for leaf, array in spec.constants().items()}
    return _layout.plant(spec.skeleton(), placed | constants), tokenizer


def _from_folder(folder: Folder, tokenizer: Tokenizer, dtype, ignore: tuple[str, ...]) -> Loaded:
    """Streamed into one buffer of the dtype wanted."""
    family, spec = of_folder(folder, ignore)
    folder = folder.without(family.prefixes)
    shapes = _layout.leaf_shapes(spec.skeleton(), family.table)
    wanted = {leaf: jax.ShapeDtypeStruct(s.shape, dtype) for leaf, s in shapes.items()}
    _, arrays = _cache.allocate(wanted)
    tied = [row.tensor for row in family.table if row.leaf == "unembed" and spec.tied]
    _layout.fill(folder, family.table, arrays, (*family.unused, *tied, *ignore))
    return spec, arrays, tokenizer


def _from_gguf(place: Place, sha256: str, ignore: tuple[str, ...]) -> Loaded:
    """From the cache if it is there and whole, else from the file."""
    cached = _cache.weights_path(sha256)
    try:
        return _unpack(*_cache.read(cached))
    except OSError:
        pass  # not cached yet, or the folder cannot be read
    except (ValueError, KeyError, TypeError) as error:
        where = place.paths[0]
        warnings.warn(f"cannot use {cached} ({error}): making it again from {where}", stacklevel=3)
    with place.whole() as path:
        return _build(open_gguf(path), cached, ignore)


def _build(file: GGUF, cached: Path, ignore: tuple[str, ...]) -> Loaded:
    """Dequantise a file, and leave the result in the cache."""
    family, spec = of_gguf(file, ignore)
    spec = dataclasses.replace(spec, tied="output.weight" not in file.names())
    tokenizer = Tokenizer.from_gguf(file.metadata)
    text = tokenizer.to_json()
    text += b" " * (-len(text) % _cache.ALIGNMENT)
    shapes = _layout.leaf_shapes(spec.skeleton(), family.table)
    plain = jax.ShapeDtypeStruct((len(text),), jnp.uint8)
    buffer, arrays = _cache.allocate(shapes | {"tokenizer": plain})
    arrays["tokenizer"][:] = np.frombuffer(text, np.uint8)
    leaves = {leaf: arrays[leaf] for leaf in shapes}
    _layout.fill(file, family.table, leaves, (*family.unused, *ignore))
    notes = {"spec": json.dumps(dataclasses.asdict(spec)), "ids": json.dumps(_ids(tokenizer))}
    if not _cache.write(cached, buffer, arrays, notes):
        warnings.warn(
            f"cannot write {cached}: every load will dequantise again; set JAXCIRC_CACHE to a"
            " folder that can be written",
            stacklevel=4,
        )
    return spec, leaves, tokenizer


def _unpack(arrays: dict[str, np.ndarray], notes: dict[str, str]) -> Loaded:
    """What `_build` put into the cache."""
    text = arrays.pop("tokenizer").tobytes()
    spec = Spec.from_record(json.loads(notes["spec"]))
    return spec, arrays, Tokenizer.from_json(text, json.loads(notes["ids"]))


def _ids(tokenizer: Tokenizer) -> dict[str, int | bool | None]:
    return {key: getattr(tokenizer, key) for key in ("bos_id", "pad_id", "adds_bos")}


def _place(array: np.ndarray, dtype: jax.typing.DTypeLike) -> jax.Array:
    """On the default device; in place on a CPU when the dtype is the same."""
    return jax.device_put(array.astype(dtype, copy=False), may_alias=True)
