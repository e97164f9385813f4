"""How much of the study to run: our default, and the paper's own sizes."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many prompts each part takes, of which tasks.

    - `ioi`, `facts`, `others`: prompts under replaced tokens; `*_noise`: prompts under noise, each
      with `draws` draws. `facts` counts pairs drawn, of which those known both ways are kept and
      used both ways.
    - `windows`: of layers, in the trace of facts. `tasks`: the further tasks of part (c).
    - `expected`: what the paper found, on its own models, to print beside ours.
    """

    ioi: int = 24
    ioi_noise: int = 8
    facts: int = 40
    facts_noise: int = 8
    others: int = 12
    others_noise: int = 3
    draws: int = 10
    windows: tuple[int, ...] = (3, 5, 10)
    tasks: tuple[str, ...] = ("greater_than", "docstring", "arithmetic")
    expected: str = ""


def _only(tasks: tuple[str, ...] = (), expected: str = "", **parts: int) -> Sizes:
    """Some parts at a size, with their noise; one prompt for each of the others."""
    sizes: dict[str, Any] = dict.fromkeys(("ioi", "facts"), 1) | parts
    sizes |= {f"{part}_noise": size for part, size in sizes.items()}
    return Sizes(**sizes, tasks=tasks, expected=expected)


PRESETS: dict[str, dict[str, Sizes]] = {
    "default": {"": Sizes()},
    "smoke": {"": Sizes(6, 2, 6, 2, 4, 2, 2, (3,), ("greater_than",))},
    "paper": {
        "gpt2": _only(
            ("greater_than",),
            "IOI, STR: probability finds 1 of 3 name movers and 1 of 2 negative heads",
            ioi=500,
            others=500,
        ),
        "gpt2-xl": _only(
            expected="facts: MLP peak near layer 16 under GN, 2-5 times the peak under STR;"
            " windows of 3, 5, 10: 1.40, 1.75, 1.59 times the summed single layers",
            facts=145,
        ),
        "gpt-j-6b": _only(
            ("arithmetic",),
            "arithmetic: some peaks are stronger under STR",
            facts=145,
            others=100,
        ),
        "attn-only-4l": _only(("docstring",), "docstring: heads found under STR", others=500),
    },
}
"""Sizes by preset and model; "" serves every model."""


def sizes_of(preset: str, model: str) -> Sizes:
    """The sizes of a preset for a model.

    Raises `ValueError` for an unknown preset, or a model the paper did not study.

    >>> sizes_of("paper", "gpt2").ioi
    500
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    known = PRESETS[preset]
    if "" in known:
        return known[""]
    name = next(
        (name for name in sorted(known, key=len, reverse=True) if model.startswith(name)), None
    )
    if name is None:
        raise ValueError(
            f"preset {preset!r} is for {', '.join(known)}, not {model!r}: use the default"
        )
    return known[name]
