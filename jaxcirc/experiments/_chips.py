"""`Chip`: what an accelerator can do, from its maker's tables. Imports nothing of jaxcirc."""

import dataclasses
from typing import Literal

GIB = 2**30

TPU_DOCS = "https://cloud.google.com/tpu/docs/"
GPU_DOCS = "https://www.nvidia.com/en-us/data-center/"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as JAX sees a device.

    - `flops`: peak bfloat16 operations a second, dense. `hbm`: bytes of memory. `bandwidth`: bytes
      a second to that memory. `link`: bytes a second out of the chip over all links, one way.
    - `counted`: by how much the number in a device's name exceeds its chips (Google names v4 and
      v5p by cores, two a chip). `most`: chips that the links join. `source`: where this is from.
    """

    name: str
    kind: Literal["tpu", "gpu"]
    flops: float
    hbm: float
    bandwidth: float
    link: float
    most: int
    source: str
    counted: int = 1

    def named(self, devices: int) -> str:
        """The name of so many, as in "v5e-8"."""
        return f"{self.name}-{devices * self.counted}"


def _tpu(name: str, flops: float, gib: float, bandwidth: float, link: float, most: int, **more):
    page = f"{TPU_DOCS}{name}"
    return Chip(name, "tpu", flops, gib * GIB, bandwidth, link, most, page, **more)


def _gpu(name: str, flops: float, gib: float, bandwidth: float, link: float):
    return Chip(name, "gpu", flops, gib * GIB, bandwidth, link, 8, f"{GPU_DOCS}{name}/")


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v4", 275e12, 32.0, 1.2e12, 300e9, 4096, counted=2),
        _tpu("v5e", 197e12, 16.0, 819e9, 200e9, 256),
        _tpu("v5p", 459e12, 95.0, 2765e9, 600e9, 6144, counted=2),
        _tpu("v6e", 918e12, 32.0, 1600e9, 400e9, 256),
        _gpu("a100", 312e12, 80.0, 2039e9, 300e9),
        _gpu("h100", 989e12, 79.6, 3350e9, 450e9),
        _gpu("h200", 989e12, 140.4, 4800e9, 450e9),
    )
}
"""By name. GPUs are the SXM modules (the A100 of 80 GB), joined by NVLink within one host."""


def parse_device(name: str) -> tuple[Chip, int]:
    """The chip of a name such as "v5e-8", "v5p-16" (8 chips) or "h100", and how many chips.

    Raises `ValueError` for a chip not known, or more of them than its links join.

    >>> parse_device("v5e-8")[1]
    8
    """
    word, _, number = name.lower().partition("-")
    chip = CHIPS.get(word)
    if chip is None:
        raise ValueError(f"unknown device {name!r}: known are {', '.join(CHIPS)}, as in v5e-8")
    if number and (not number.isdigit() or int(number) < 1):
        raise ValueError(f"device {name!r}: write a number behind the chip, as in {word}-8")
    count = int(number) if number else chip.counted
    if count % chip.counted:
        raise ValueError(
            f"device {name!r}: {word} is named by its cores, two a chip: {word}-{count + 1}"
        )
    devices = count // chip.counted
    if devices > chip.most:
        raise ValueError(f"device {name!r}: at most {chip.named(chip.most)} are joined by links")
    return chip, devices
