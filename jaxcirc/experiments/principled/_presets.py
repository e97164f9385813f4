"""How much of the study to run: our default, a quick look, the paper's own sites and sizes.

By arithmetic the default takes under half an hour on two idle cores, most of it training and
running edited prompts.
"""

import dataclasses

from ...patching import Component
from ._bench import CrossSection
from ._occlusion import Scale
from ._small import Small
from ._subjects import Recipe


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    - `train`, `select`, `report`: prompts that codes and dictionaries are made from, that
      sparsities are chosen on, that all is reported on. `names`: of IOI.
    - `scan`, `scanned`: prompts of the search, to read and to patch; `stride`: every how many
      layers; `heads`: whether single heads are searched; `roles`: token roles.
    - `sections`: cross-sections judged, at most; `sites`: given ones, instead of a search;
      `known`: places where codes have been measured elsewhere, and are here too.
    - `ks`: moves of edits; `wide`: the same of full-distribution dictionaries.
    - `das_size`, `das_steps`: of the learned subspace. `expected`: what the paper found.
    """

    train: int = 1440
    select: int = 96
    report: int = 160
    names: int = 48
    scan: int = 480
    scanned: int = 48
    stride: int = 1
    heads: bool = True
    roles: tuple[str, ...] = ("end", "S2")
    sections: int = 4
    sites: tuple[CrossSection, ...] = ()
    known: tuple[Component, ...] = ()
    ks: tuple[int, ...] = (2, 4, 8)
    wide: tuple[int, ...] = (2, 8, 32)
    das_size: int = 32
    das_steps: int = 30
    recipe: Recipe = Recipe()
    toy: Scale = Scale()
    small: Small = Small()
    audit: int = 200_000
    shipped: int = 2
    expected: str = ""


QUICK = Sizes(
    train=240,
    select=24,
    report=32,
    names=16,
    scan=160,
    scanned=24,
    stride=5,
    heads=False,
    sections=1,
    ks=(2,),
    wide=(2, 8),
    das_size=4,
    das_steps=4,
    recipe=Recipe(features=64, tokens=12_800, seeds=2, levels=1),
    toy=Scale(
        values=8, d=16, features=32, tokens=25_600, penalties=(2.5,), ratios=(1.0, 2.0), seeds=2
    ),
    small=Small(names=8, d_model=24, steps=60),
    audit=12_800,
    shipped=1,
)


def _heads(text: str, pos: str = "end", site: str = "z") -> tuple[Component, ...]:
    pairs = (head.split(".") for head in text.split())
    return tuple(Component(site, int(layer), pos, int(head)) for layer, head in pairs)


MOVERS = "9.6 9.9 10.0 9.0 9.7 10.1 10.2 10.10 11.2 11.9"
INHIBITION = "7.3 7.9 8.6 8.10"
EARLY = "5.5 5.8 5.9 6.9 0.1 0.10 3.0"
GPT2 = (
    CrossSection("(B)NM out", _heads(MOVERS), ("IO",)),
    CrossSection("(B)NM q", _heads(MOVERS, site="q"), ("IO", "S", "Pos")),
    CrossSection(
        "(B)NM qk",
        _heads(MOVERS, site="q") + _heads(MOVERS, "IO", "k") + _heads(MOVERS, "S1", "k"),
        ("IO", "S", "Pos"),
    ),
    CrossSection("S-I out", _heads(INHIBITION), ("S", "Pos")),
    CrossSection("S-I v", _heads(INHIBITION, "S2", "v"), ("S", "Pos")),
    CrossSection("Ind+DT out", _heads(EARLY, "S2"), ("S", "Pos")),
)
"""The paper's cross-sections of GPT-2 small (appendix A.3), with its seven backup name movers."""

PAPER = Sizes(
    train=20_000,
    select=1000,
    report=5000,
    names=100,
    sites=GPT2,
    sections=len(GPT2),
    ks=(2, 4, 6),
    recipe=Recipe(features=1024, tokens=5_000_000, batch=1024, learning_rate=1e-3, levels=3),
    expected="in the paper supervised edits agree on more than 80 % but for S; IO at (B)NM out with"
    " k = 2: supervised .96, vanilla .54, gated .97, TopK .95 (the follow-up)",
)

GEMMA = Sizes(
    known=(Component("resid_pre", 12), Component("resid_post", 12)),
    expected="at residual layer 12 of gemma3-270m, measured elsewhere with 64 names: sufficiency"
    " 1.00, necessity .22, supervised edits of IO agree on .91 against .03 unedited, of S on .92"
    " against .93, of Pos on .97 against .97",
)

PRESETS: dict[str, dict[str, Sizes]] = {
    "default": {"gemma": GEMMA, "": Sizes()},
    "smoke": {"": QUICK},
    "paper": {"gpt2": PAPER},
}
"""Sizes by preset and model; "" serves every model."""


def principled_sizes(preset: str, model: str) -> Sizes:
    """The sizes of a preset for a model.

    Raises `ValueError` for an unknown preset, or a model the paper did not study.

    >>> principled_sizes("paper", "gpt2").sites[0].name
    '(B)NM out'
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    known = PRESETS[preset]
    for name, sizes in known.items():
        if model.startswith(name):
            return sizes
    raise ValueError(f"preset {preset!r} is for {', '.join(known)}, not {model!r}: use the default")
