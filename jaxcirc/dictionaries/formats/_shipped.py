"""Dictionaries that come with the repository, by name: "smollm2-middle/resid_post.12".

A suite is a folder of native files, one a place, beside its `card.json`; the `manifest.json` above
holds the sha256 of every file. They are not inside the wheel, which would be a hundred times as
large. May import `native` and `_file`.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from . import native
from ._file import read_json
from ._parts import Loaded

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A file of the manifest: where it lies, and its sha256."""

    path: Path
    sha256: str

    def read(self) -> Loaded:
        """Raises `ValueError` for a file that has changed, `FileNotFoundError` for none."""
        if not self.path.is_file():
            message = f"{self.path} is missing: get checkpoints/suites of the repository again"
            raise FileNotFoundError(message)
        return native.load(self.path, self.sha256)


def suites_folder() -> Path:
    """The repository's checkpoints/suites, as seen from the package inside it."""
    return Path(__file__).resolve().parents[3] / "checkpoints" / "suites"


def shipped(
    suite: str, place: str, root: str | os.PathLike | None = None
) -> tuple[Any, dict[str, Any]]:
    """A dictionary of a suite, and the facts on its card.

    - `suite`, `place`: as "smollm2-middle", "resid_post.12" (see `shipped_places`). `root`: the
      folder of suites (default: the repository's checkpoints/suites).

    Returns (dictionary, facts). Raises `ValueError` for a name that is not known and for a file
    whose sha256 is not the manifest's; `FileNotFoundError` without the folder.

    >>> dictionary, facts = shipped("smollm2-middle", "resid_post.12")
    """
    dictionary, facts = found(suite, place, root).read()
    return dictionary, facts | {"format": "native"}


def shipped_places(suite: str, root: str | os.PathLike | None = None) -> tuple[str, ...]:
    """The places for which a suite has a dictionary.

    >>> shipped_places("glassllm")[0]
    'resid_pre.0'
    """
    return tuple(_suite(suite, root))


def shipped_suites(root: str | os.PathLike | None = None) -> tuple[str, ...]:
    """The names of all suites; none without the folder."""
    folder = suites_folder() if root is None else Path(root)
    return tuple(_manifest(folder)) if (folder / MANIFEST).is_file() else ()


def found(suite: str, place: str, root: str | os.PathLike | None = None) -> Shipped:
    """What the manifest says of a dictionary."""
    places = _suite(suite, root)
    if place not in places:
        raise ValueError(f"{suite} has no {place!r}: its places are {', '.join(places)}")
    entry = places[place]
    folder = suites_folder() if root is None else Path(root)
    return Shipped(folder / entry["file"], entry["sha256"])


def named(path: str | os.PathLike) -> Shipped | None:
    """What a name such as "smollm2-middle/resid_post.12" means; None for any other path.

    Raises `ValueError` for a suite that has no such place.
    """
    parts = PurePosixPath(Path(path).as_posix()).parts
    if len(parts) != 2 or parts[0] not in shipped_suites():
        return None
    return found(*parts)


def told() -> str:
    """What names of shipped dictionaries are, in words."""
    suites = shipped_suites()
    if not suites:
        return "a shipped one, for which get checkpoints/suites of the repository"
    return f"the name of a shipped one, {suites[0]}/{shipped_places(suites[0])[0]}"


def _suite(suite: str, root: str | os.PathLike | None) -> Mapping[str, Any]:
    known = _manifest(suites_folder() if root is None else Path(root))
    if suite not in known:
        raise ValueError(f"no suite {suite!r}: there are {', '.join(known) or 'none'}")
    return known[suite]


def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: the suites are not in the wheel, get checkpoints/suites of the"
            " repository and give its path, shipped(..., root=PATH)"
        )
    return read_json(path)
