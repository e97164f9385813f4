"""The study of Marks et al. 2024 (arXiv 2403.19647) on models with dictionaries: `jaxcirc reproduce
sparse-feature-circuits`.

On two cores the default (SmolLM2 with 13 dictionaries on four agreement structures, glassllm with
every site on tokens it predicts well) takes about half an hour. Every section is kept when it is
done; the same command goes on. May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..._types import Tell
from .._clock import clock
from .._result import Result, finite, model_facts
from ..dictionaries import Annotation
from ._part import Part
from ._ready import How, Ready


def study_feature_circuits(
    readies: Sequence[Ready],
    folder: Path,
    *,
    how: How = How(),  # noqa: B008 (frozen)
    tell: Tell | None = None,
) -> tuple[Result, list[Annotation]]:
    """Run the study, or what is left of it.

    - `readies`: models with dictionaries, as `load_subject` gives. `folder`: where sections are
      kept; another study's raises `ValueError`.

    Returns `Result`, whose rows name their `section` and `model`, and what n-gram rules say of the
    circuits' features, as annotations.

    >>> result, notes = study_feature_circuits([load_subject(s) for s in subjects_of("default")],
    ...     Path("runs/sparse-feature-circuits"))
    """
    with clock() as seconds:
        found = [Part(ready, folder, how, tell) for ready in readies]
        for part in found:
            part.run()
    rows = [row for part in found for row in part.rows]
    claims = [claim for part in found for claim in part.claims]
    result = Result(
        kind="study_feature_circuits",
        task="sparse-feature-circuits",
        numbers={claim.text: claim.found for claim in claims},
        table=finite([*(claim.row() for claim in claims), *rows]),
        arrays={},
        axes={},
        facts=_facts(readies, how),
        seconds=seconds,
        notes=[note for part in found for note in part.notes] + [*READING],
    )
    return result, [note for part in found for note in part.annotations]


READING = (
    "Paper columns: Marks et al. 2024, other models, dictionaries at every block; ours are spliced"
    " at a few adjacent blocks, so that all else stays intact and fewer nodes carry the behaviour.",
    "An error node counts as one node and as many scalars as its place is wide.",
)


def _facts(readies: Sequence[Ready], how: How) -> dict[str, Any]:
    each = [model_facts(ready.model) for ready in readies]
    shared = {key: each[0][key] for key in ("precision", "device", "jax", "jaxcirc")}
    return {
        "model": ", ".join(facts["model"] for facts in each),
        "sha256": [facts["sha256"] for facts in each],
        "dtype": [facts["dtype"] for facts in each],
        "suites": [ready.subject.suite for ready in readies],
        "sizes": [dataclasses.asdict(ready.subject.sizes) for ready in readies],
        "start": [ready.subject.start for ready in readies],
        **shared,
        "method": how.method,
        "value": how.value,
        "seed": how.seed,
    }
