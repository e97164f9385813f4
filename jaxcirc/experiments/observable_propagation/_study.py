"""`jaxcirc reproduce observable-propagation`: Dunefsky & Cohan 2023 (arXiv 2312.16291) on a model.

On SmolLM2-135M under ten minutes on two cores. Expect one head, 26.2, with the longest feature of "
she" - " he" and the largest direct effect, where subject and object pronouns have a cosine of
0.993; and the claims on parties and on languages of code to fail in part. Every section is kept
when it is done; the same command goes on. May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax

from ..._types import Tell
from .._clock import clock
from .._result import Result, finite, model_facts
from ..feature_circuits import Section, Store
from ._groups import languages, politics
from ._labels import labels
from ._occupations import occupations
from ._presets import Sizes
from ._pronouns import pronouns
from ._subject import Ready
from ._summary import summary
from ._text import corpus, debias, steering
from ._theorem import theorem

ONLY_HERE = ("tokens", "mask")
"""Arrays that sections hand on and results leave out."""


def study_observables(
    model,
    tokenizer,
    folder: str | Path,
    *,
    sizes: Sizes = Sizes(),  # noqa: B008 (frozen)
    seed: int = 0,
    tell: Tell | None = None,
) -> Result:
    """Run the study on a model, or what is left of it.

    - `folder`: where sections are kept; another study's raises `ValueError`. `sizes`: a preset's.

    Returns `Result`, whose rows name their `section`; claims carry verdicts, and the notes say what
    fails.

    >>> study_observables(model, tokenizer, "runs/observable-propagation").table[0]
    """
    facts = model_facts(model) | {"sizes": dataclasses.asdict(sizes), "seed": seed}
    with clock() as seconds, jax.default_matmul_precision("highest"):
        store, ready = Store(folder, facts), Ready(model, tokenizer, sizes, seed, tell)
        found = {name: store.section(name, make) for name, make in _parts(ready).items()}
        kept = found["text"]
        found["debias"] = store.section("debias", lambda: debias(ready, kept))
        found["steering"] = store.section("steering", lambda: steering(ready))
    claims = [claim for section in found.values() for claim in section.claims]
    rows = [row for section in found.values() for row in section.rows]
    arrays = {k: a for s in found.values() for k, a in s.arrays.items() if k not in ONLY_HERE}
    return Result(
        kind="study_observables",
        task="observable-propagation",
        numbers={claim.text: claim.found for claim in claims},
        table=finite([*summary(rows), *(claim.row() for claim in claims), *rows]),
        arrays=arrays,
        axes={name: ("layer", "head") for name in arrays},
        facts=facts,
        seconds=seconds,
        notes=[note for s in found.values() for note in s.notes] + _notes(claims),
    )


def _parts(ready: Ready) -> dict[str, Callable[[], Section]]:
    """The sections that need no other, in order."""
    parts = {
        "theorem": theorem,
        "pronouns": pronouns,
        "occupations": occupations,
        "labels": labels,
        "party": politics,
        "language": languages,
        "text": corpus,
    }
    return {name: lambda make=make: make(ready) for name, make in parts.items()}


def _notes(claims) -> list[str]:
    failed = [claim.text for claim in claims if claim.verdict != "supported"]
    notes = [
        "The paper's figures are of GPT-Neo-1.3B, from its notebooks.",
        "Choosing a head by labels is supervision: heads are chosen in several ways, side by side.",
        "Few labels: a learned direction's range holds 95 % of its resamplings, ours is an interval"
        " over held-out words.",
    ]
    if failed:
        notes.append(f"Not supported on this model: {'; '.join(failed)}.")
    return notes
