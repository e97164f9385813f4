"""The study of Makelov, Lange & Nanda 2024 (arXiv 2405.08366) on a model: `jaxcirc reproduce
principled-evaluation`.

Sites are searched for, never carried over from another model; every section is kept when it is
done, and the same command goes on. May import all but `viz` and the command line.
"""

import dataclasses
from pathlib import Path

from ..._types import Tell
from .._clock import clock
from .._result import Result, finite, model_facts
from ._bench import FLOOR, NO_RESOLUTION
from ._part import Part
from ._presets import Sizes

READING = (
    "accuracy: how often the edited model chooses what it chooses with the counterfactual's"
    " activation patched in, among the task's answers; intervals resample prompts by the name of IO"
    " or the noun; over seeds: standard deviation.",
    f"Cells where the unedited model agrees on more than {NO_RESOLUTION:g} are refused, and so are"
    f" shares of what mean ablation costs where that is less than {FLOOR:g} logits. Means are over"
    " the task's own prompts.",
    "Held-out prompts have other pairs of names, other objects and places; dictionaries and codes"
    " know every name. Sparsities are chosen on prompts apart from those reported.",
    "Weights, cosines and distances are in the model's own coordinates, nothing folded.",
)


def study_principled(
    model,
    tokenizer,
    folder: Path,
    *,
    sizes: Sizes = Sizes(),  # noqa: B008 (frozen)
    seed: int = 0,
    tell: Tell | None = None,
) -> Result:
    """Run the study, or what is left of it.

    - `folder`: where sections are kept; another study's raises `ValueError`. `sizes`: a preset's,
      as `principled_sizes` gives.

    Returns `Result`, whose rows name their `section`, with claims and their verdicts.

    >>> study_principled(model, tokenizer, Path("runs/principled-evaluation")).notes
    """
    with clock() as seconds:
        part = Part(model, tokenizer, sizes, Path(folder), seed, tell)
        part.run()
    notes = part.notes + [*READING]
    if sizes.expected:
        notes.append(f"To compare: {sizes.expected}.")
    return Result(
        kind="study_principled",
        task="principled-evaluation",
        numbers={claim.text: claim.found for claim in part.claims},
        table=finite([*(claim.row() for claim in part.claims), *part.rows]),
        arrays={},
        axes={},
        facts=model_facts(model) | {"sizes": dataclasses.asdict(sizes), "seed": seed},
        seconds=seconds,
        notes=notes,
    )
