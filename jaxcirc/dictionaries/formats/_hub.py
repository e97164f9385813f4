"""Dictionaries of the Hugging Face Hub: the few files of one, fetched and kept by its client.

`hub:OWNER/NAME[@REVISION][/PATH]` names one; PATH is its folder or file in the repository (none:
the repository holds a single one), REVISION a branch, a tag or a commit. Needs the package
`huggingface_hub`; what was fetched once is there without a network. May import nothing.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PREFIX = "hub:"

_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")


class HubFile(NamedTuple):
    """A repository, where in it, and which of its revisions (None: the newest)."""

    repo: str
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{PREFIX}{self.repo}{at}" + (f"/{self.path}" if self.path else "")


def on_hub(path: str | os.PathLike) -> bool:
    """Whether a path is such a name."""
    return os.fspath(path).startswith(PREFIX)


def parse_hub_file(words: str | os.PathLike) -> HubFile:
    """What a name means. Raises `ValueError` for what is none.

    >>> parse_hub_file("hub:google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82").path
    'layer_12/width_16k/average_l0_82'
    """
    match = _NAME.fullmatch(Path(words).as_posix())
    if match is None:
        raise ValueError(f'"{words}": write hub:OWNER/NAME[@REVISION][/PATH]')
    return HubFile(match[1], match[3] or "", match[2])


def fetched(source: HubFile, weights: Sequence[str], others: Sequence[str]) -> Path:
    """Where the dictionary's file or folder lies on this machine.

    - `weights`: what a folder may hold of which each is a dictionary. `others`: what may lie
      beside or above it and belong to it.

    Raises `FileNotFoundError` without the package, without a network, and for a repository that is
    not there or has no dictionary at that path.
    """
    path = PurePosixPath(source.path)
    wanted = {str(path), *(str(path / name) for name in (*weights, *others))}
    wanted |= {str(folder / name) for folder in list(path.parents)[:2] for name in others}
    root = _download(source, sorted(wanted - {"."}))
    found = root / path
    if not found.is_file() and not any((found / name).is_file() for name in weights):
        raise FileNotFoundError(
            f"there is no dictionary at {source}: name its folder or file in the repository,"
            f" {source._replace(path='PATH')}"
        )
    return found


def _download(source: HubFile, patterns: Sequence[str]) -> Path:
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        message = f'{source} needs huggingface_hub: pip install "jaxcirc[hub]"'
        raise FileNotFoundError(message) from None
    try:
        options = {"revision": source.revision, "allow_patterns": list(patterns)}
        return Path(huggingface_hub.snapshot_download(source.repo, **options))
    except Exception as error:  # its own classes, requests' and httpx's, by version
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"cannot download {source} ({said[:120]}): check the name and the network, or give the"
            " path of its folder"
        ) from None
