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

from ... import models
from ..._types import Tell
from .._clock import clock
from .._result import Result, finite, model_facts
from ..dictionaries import Annotation
from ._part import How, Part, Ready
from ._presets import Subject
from ._suites import paper_basis, suite_basis


def load_subject(subject: Subject, folder: Path | None = None, root: Path | None = None) -> Ready:
    """Load a subject's model and dictionaries.

    - `folder`: of the paper's dictionaries, where a subject has no suite. `root`: of the suites.

    Raises what `load_model`, `suite_basis` and `paper_basis` raise.

    >>> load_subject(subjects_of("paper", "pythia-70m-deduped")[0], Path("pythia-70m-deduped"))
    """
    if not subject.suite and folder is None:
        raise ValueError(
            f"{subject.model} has no shipped dictionaries: --dictionaries FOLDER, as downloaded"
        )
    model, tokenizer = models.load_model(subject.model)
    if subject.suite:
        model, basis = suite_basis(model, subject.suite, root)
    else:
        assert folder is not None
        model, basis = paper_basis(model, folder)
    return Ready(subject, model, tokenizer, basis)


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
