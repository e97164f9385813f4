"""How much of the study to run, on which model: ours, a quick look, Gemma, the paper's own."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    - `names`: of women, and as many of men. `templates`: of each set of prompts. `people`:
      politicians of each party. `windows`, `window`: of code in each language, and their tokens.
    - `pairs`: on which paths are searched; `width`, `depth`: of that search.
    - `labels`: numbers of labelled examples; `draws`: resamplings of them.
    - `texts`, `length`: continuations sampled, and their tokens.
    - `simulated`: draws of the theorem's simulation in every width.
    """

    names: int = 30
    templates: int = 4
    people: int = 40
    windows: int = 120
    window: int = 32
    pairs: int = 12
    width: int = 6
    depth: int = 3
    labels: tuple[int, ...] = (2, 6, 20, 60, 100)
    draws: int = 20
    texts: int = 32
    length: int = 48
    simulated: int = 2000


QUICK = Sizes(6, 2, 6, 12, 16, 4, 3, 2, (2, 6), 3, 4, 12, 300)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and how much is measured on it."""

    model: str
    sizes: Sizes = Sizes()


PRESETS: dict[str, Subject] = {
    "default": Subject("smollm2-135m"),
    "smoke": Subject("smollm2-135m", QUICK),
    "gemma": Subject("gemma3-270m"),
    "paper": Subject(
        "EleutherAI/gpt-neo-1.3B", Sizes(names=56, templates=3, windows=275, texts=256)
    ),
}


def subject_of(preset: str, model: str | None = None) -> Subject:
    """The subject of a preset, or the same sizes on a model of your own.

    Raises `ValueError` for a preset that is not known.

    >>> subject_of("default", "gemma3-270m").model
    'gemma3-270m'
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    found = PRESETS[preset]
    return found if model is None else dataclasses.replace(found, model=model)
