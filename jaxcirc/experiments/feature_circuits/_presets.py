"""How much of the study to run, on which models: our default, a quick look, the paper's own.

On two cores the default takes about half an hour, most of it SmolLM2 and compiling.
"""

import dataclasses

AGREEMENT = ("agreement_simple", "agreement_phrase", "agreement_within", "agreement_across")
NEXT = "next"
"""The task of predicting tokens of text that the model predicts well."""


@dataclasses.dataclass(frozen=True)
class FeatureSizes:
    """How much is measured.

    - `n`: prompts of each split. `steps`, `rule`: of integrated gradients (None: as many points as
      leave a gap below 1 %, see `nodes`).
    - `circuits`: the largest number of sizes of circuits on a curve. `draws`: of random features.
    - `exact`: prompts whose every node is patched exactly, on the last task alone (all of them and
      all tasks if `exact_all`). `early`: places that count as early, as a share.
    - `edge_nodes`: nodes between which edges are scored; `edge_sample`: edges patched exactly;
      `edge_prompts`: prompts they are patched on; `pruned`: edges kept.
    - `tokens`, `context`: text for means, principal directions and explanations, in contexts of
      this length. `explained`: features of each kind that are explained.
    - `behaviours`: tokens predicted well, each a task; `window`: tokens before them.
    """

    n: int = 24
    steps: int | None = None
    rule: str = "gauss"
    circuits: int = 12
    draws: int = 3
    exact: int = 6
    exact_all: bool = False
    early: float = 1 / 3
    edge_nodes: int = 80
    edge_sample: int = 300
    edge_prompts: int = 8
    pruned: tuple[int, ...] = (30, 100, 300)
    tokens: int = 16_384
    context: int = 64
    explained: int = 40
    behaviours: int = 3
    window: int = 12


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with dictionaries and tasks.

    - `suite`: a shipped suite, or "" for dictionaries in a folder (see `paper_dictionaries`).
      `start`: places below this layer are free.
    """

    model: str
    suite: str
    tasks: tuple[str, ...]
    sizes: FeatureSizes = FeatureSizes()
    start: int = 0


QUICK = FeatureSizes(
    n=8,
    circuits=6,
    draws=1,
    exact=2,
    edge_nodes=12,
    edge_sample=40,
    edge_prompts=4,
    pruned=(10, 30),
    tokens=2048,
    explained=8,
    behaviours=1,
)
TINY = dataclasses.replace(FeatureSizes(), n=16, exact_all=True, tokens=65_536)
PAPER = FeatureSizes(
    n=100,
    steps=10,
    rule="left",
    circuits=15,
    exact=30,
    edge_nodes=200,
    edge_sample=1000,
    pruned=(100, 300, 1000, 3000),
    tokens=262_144,
    context=128,
    explained=100,
)

PRESETS: dict[str, tuple[Subject, ...]] = {
    "default": (
        Subject("smollm2-135m", "smollm2-middle", AGREEMENT),
        Subject("glassllm-en", "glassllm", (NEXT,), TINY, start=1),
    ),
    "smoke": (
        Subject("smollm2-135m", "smollm2-middle", AGREEMENT[:1], QUICK),
        Subject("glassllm-en", "glassllm", (NEXT,), QUICK, start=1),
    ),
    "paper": (
        Subject("pythia-70m-deduped", "", AGREEMENT, PAPER, start=2),
        Subject("gemma-2-2b", "", AGREEMENT, PAPER, start=8),
    ),
}
"""The first third of blocks is free, as in the paper, where their dictionaries are spliced."""


def subjects_of(preset: str, model: str | None = None) -> tuple[Subject, ...]:
    """The subjects of a preset, or the one of a model.

    Raises `ValueError` for a name that is not known.

    >>> subjects_of("paper", "gemma-2-2b")[0].start
    8
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    found = PRESETS[preset]
    if model is None:
        return found
    chosen = tuple(subject for subject in found if subject.model in model)
    if not chosen:
        known = ", ".join(subject.model for subject in found)
        raise ValueError(f"preset {preset!r} is for {known}, not {model!r}: use one of them")
    return tuple(dataclasses.replace(subject, model=model) for subject in chosen)
