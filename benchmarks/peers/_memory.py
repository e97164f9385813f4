"""Peak memory of a call, above what was resident before. Linux; standard library."""

import contextlib
import ctypes
import gc
from pathlib import Path


def _kilobytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def resident() -> int:
    """Bytes resident now."""
    return 1024 * _kilobytes("VmRSS")


def settled() -> int:
    """The same once free heap has gone back to the kernel, so that a call's memory cannot hide in
    what earlier ones left."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


@contextlib.contextmanager
def peak(before: int):
    """Fills in "peak": the kernel's high-water mark of the call, less `before`, in bytes."""
    found = {}
    Path("/proc/self/clear_refs").write_text("5")
    yield found
    found["peak"] = 1024 * _kilobytes("VmHWM") - before
