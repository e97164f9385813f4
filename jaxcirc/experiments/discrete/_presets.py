"""How much of the study to run, on what: our default, a quick look, the paper's own.

The default is made to take less than twenty minutes on two idle cores: half of it on the zoo,
which mostly compiles; then three minutes of training (ten dictionaries for each of three tasks, 22
TFLOP), and three of ablating heads of SmolLM2.
"""

import dataclasses

from ...circuits.discrete import Settings

CASES = (
    *("duplicate", "greater_than", "induction"),
    *("shuffle_dyck", "sort_freq", "xproportion"),
)
"""Models of the zoo whose task has inputs without the behaviour, and with components outside of the
circuit."""
TRAINED = CASES[:3]
TASKS = ("ioi", "greater_than", "docstring")


@dataclasses.dataclass(frozen=True)
class Swept:
    """Values of each sweep, one at a time, all else as in the settings.

    - `examples`: texts that dictionaries are trained on. `scored`: texts of each class.
    """

    examples: tuple[int, ...] = (5, 10, 50, 250)
    scored: tuple[int, ...] = (5, 10, 25, 50, 100, 250)
    features: tuple[int, ...] = (25, 100, 200, 400, 800)
    penalty: tuple[float, ...] = (0.0, 0.002, 0.005, 0.02, 0.05, 0.2)
    negatives: tuple[str, ...] = ("absent", "corrupt", "random", "copy")
    thresholds: tuple[float, ...] = (0.001, 0.03, 1.0)
    penalties: tuple[float, ...] = (0.1, 1.0, 3.0)
    ig_steps: tuple[int, ...] = (1, 2, 5)


@dataclasses.dataclass(frozen=True)
class DiscreteSizes:
    """How much is measured.

    - `cases`: of the zoo; `swept_cases`: those of the sweeps; `n`: texts of each class there;
      `prompts`: pairs that other methods look at. `seeds`: dictionaries everywhere.
    - `settings`: of dictionaries on the zoo, `model_settings` on the model.
    - `tasks`: on the model; `texts`: of each class; `pairs`: that other methods look at; `judged`:
      pairs that faithfulness is measured on; `kept`: heads kept. `free`: layers that are always
      kept; `value`: what heads are set to, "mean" or "zero".
    - `effects`: heads patched exactly, on the judged pairs. `acdc_edges`: edges that ACDC searches
      for its time (0: not at all). `truths`: the versions of reference circuits, where the model
      has them.
    """

    cases: tuple[str, ...] = CASES
    swept_cases: tuple[str, ...] = TRAINED
    n: int = 250
    prompts: int = 32
    seeds: int = 10
    settings: Settings = Settings()
    swept: Swept = Swept()
    tasks: tuple[str, ...] = TASKS
    texts: int = 100
    pairs: int = 16
    judged: int = 12
    kept: tuple[int, ...] = (10, 20, 40, 80)
    free: int = 0
    value: str = "mean"
    model_settings: Settings = Settings(examples=5)
    effects: int = 40
    acdc_edges: int = 60
    shapes: tuple[str, ...] = ("gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl")
    truths: tuple[str, ...] = ()


QUICK = DiscreteSizes(
    cases=("duplicate", "xproportion"),
    swept_cases=("duplicate",),
    n=40,
    prompts=12,
    seeds=2,
    settings=Settings(features=50, steps=100),
    swept=Swept(
        (5, 10), (5, 40), (25, 50), (0.0, 0.05), ("absent", "copy"), (0.1,), (1.0,), (1, 5)
    ),
    tasks=TASKS[:1],
    texts=16,
    pairs=8,
    judged=8,
    kept=(10, 40),
    model_settings=Settings(features=50, steps=50, examples=5),
    effects=10,
    acdc_edges=0,
    shapes=("gpt2-small",),
)
PAPER = DiscreteSizes(
    cases=(),
    swept_cases=(),
    texts=250,
    pairs=100,
    judged=100,
    kept=(4, 8, 16, 22, 37, 51, 80),
    free=2,
    value="zero",
    model_settings=Settings(decoder_norm="reference"),
    acdc_edges=0,
    truths=("acdc", "discrete_sae"),
)

PRESETS: dict[str, dict[str, DiscreteSizes]] = {
    "default": {"": DiscreteSizes()},
    "smoke": {"": QUICK},
    "paper": {
        "gpt2": dataclasses.replace(PAPER, tasks=TASKS[:2]),
        "attn-only-4l": dataclasses.replace(
            PAPER,
            tasks=TASKS[2:],
            model_settings=dataclasses.replace(PAPER.model_settings, penalty=0.05),
        ),
    },
}
"""Sizes by preset and model; "" serves every model."""


def discrete_sizes(preset: str, model: str) -> DiscreteSizes:
    """The sizes of a preset for a model.

    Raises `ValueError` for an unknown preset, or a model the paper did not study.

    >>> discrete_sizes("paper", "gpt2").tasks
    ('ioi', 'greater_than')
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    known = PRESETS[preset]
    name = next((name for name in known if name in model), None)
    if name is None:
        raise ValueError(
            f"preset {preset!r} is for {', '.join(known)}, not {model!r}: use the default"
        )
    return known[name]
