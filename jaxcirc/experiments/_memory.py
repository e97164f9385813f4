"""Peak memory of a stretch of work, and room for compiled programs. Imports nothing of jaxcirc."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import jax

_STATM = Path("/proc/self/statm")
_PAGE = 4096
_EVERY = 0.02  # seconds
_MAPS = Path("/proc/self/maps")

MOST_MAPS = 22_000
"""A compiled program holds about 100 memory maps; Linux gives a process 65,530, and it dies
beyond."""


@contextlib.contextmanager
def peak() -> Iterator[dict[str, float]]:
    """Fills in "peak": by how many bytes resident memory rose at most (NaN where not Linux).

    >>> with peak() as memory:
    ...     work()
    """
    found = {"peak": float("nan")}
    if not _STATM.exists():
        yield found
        return
    done, began = threading.Event(), _resident()
    found["peak"] = 0.0

    def watch() -> None:
        while not done.wait(_EVERY):
            found["peak"] = max(found["peak"], float(_resident() - began))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE


def relieve(most: int = MOST_MAPS) -> bool:
    """Let go of all compiled programs once a process has more than `most` memory maps; whether it
    did (always where the number is not told).

    >>> relieve()
    False
    """
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") <= most:
        return False
    jax.clear_caches()
    return True
