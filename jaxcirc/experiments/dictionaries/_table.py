"""`jaxcirc sae table`: every dictionary of a suite on texts apart, beside PCA and random ones.

The numbers are those of `evaluate`. Baselines, three of four runs at each place, are spliced on a
part of the text. On SmolLM2-135M with 13 places and two texts of 16,000 tokens: some ten minutes on
two cores. May import `dictionaries`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..._types import Progress, Tell
from ...dictionaries.train import Contexts
from ...tasks import Interval
from .._clock import clock
from .._result import Result, Row, finite, model_facts
from ._baselines import COMPONENTS
from ._card import is_other, other_weights
from ._evaluate import split_text, text_facts, trained_on
from ._numbers import row_of
from ._pass import OWN
from ._suite import Found, Loaded, Subject, Work, subjects_of

TOKENS = 2048
"""On so many the baselines are spliced."""

COLUMNS = ("dictionary", "features", "L0", "FVE", "FVE low", "FVE high")
COLUMNS += ("nats", "nats low", "nats high", "dead")

Split = tuple[Contexts, Contexts]
"""Text to fit baselines on, and text to judge on."""


def table(
    model,
    loaded: Mapping[str, Loaded],
    texts: Mapping[str, Contexts],
    *,
    name: str = "dictionaries",
    components: Sequence[int] = COMPONENTS,
    tokens: int = TOKENS,
    batch: int = 8,
    seed: int = 0,
    progress: Tell | None = None,
) -> Result:
    """Judge many dictionaries on some texts, each text apart.

    - `loaded`: (dictionary, card) by name; a card says place and sink norm. `texts`: by name. The
      first quarter of each fits its baselines, and is not judged on.
    - `tokens`: of each text, on which the baselines are spliced. `name`: of the suite. Other
      arguments as for `evaluate`.

    Returns `Result` of kind "suite": for each text and dictionary the rows of the dictionary, of
    PCA and of random directions at equal k; the number "TEXT/NAME/saved" is the share of nats that
    the dictionary saves of those of the first PCA. Intervals are clustered by document. Raises
    `ValueError` for a card without a place, and a dictionary that does not fit there.

    >>> table(model, {"resid_post.12": (dictionary, card)}, {"books": contexts}).table[0]["nats"]
    """
    subjects = subjects_of(model, loaded)
    parts = {text: split_text(contexts, None) for text, contexts in texts.items()}
    found: dict[str, dict[str, Found]] = {}
    with clock() as seconds, jax.default_matmul_precision("highest"):
        for text, split in parts.items():
            work = Work(model, subjects, components, batch, seed, _stages(progress, text))
            found[text] = work.over(*split, tokens)
    cards = [loaded[subject.name][1] for subject in subjects]
    asked = {"components": list(components), "baseline_tokens": tokens, "seed": seed}
    return Result(
        kind="suite",
        task=name,
        numbers=_numbers(found),
        table=finite(list(_rows(found))),
        arrays={},
        axes={},
        facts=model_facts(model) | asked | _facts(subjects, parts, found),
        seconds=seconds,
        notes=[*_warnings(model, cards, parts, found), *_notes(found, tokens)],
    )


def _numbers(found: Mapping[str, Mapping[str, Found]]) -> dict[str, Interval]:
    numbers = {}
    for text, own in found.items():
        for name, each in own.items():
            for beside, values in each.beside.numbers.items():
                if beside != OWN:
                    numbers |= {f"{text}/{name}/{beside}_{w}": v for w, v in values.items()}
            numbers |= {f"{text}/{name}/{w}": v for w, v in each.own.numbers[OWN].items()}
            numbers[f"{text}/{name}/saved"] = each.saved
    return numbers


def _rows(found: Mapping[str, Mapping[str, Found]]) -> Iterator[Row]:
    """A dictionary, then its baselines, by text and place."""
    for text, own in found.items():
        for place, each in own.items():
            for name in each.beside.numbers:
                of = each.own if name == OWN else each.beside
                row = row_of(of, name, len(of.fired[name]))
                saved = each.saved.value if name == OWN else None
                about = {"section": text, "place": place}
                yield about | {c: row[c] for c in COLUMNS} | {"saved": saved, "tokens": of.tokens}


def _facts(
    subjects: Sequence[Subject],
    parts: Mapping[str, Split],
    found: Mapping[str, Mapping[str, Found]],
) -> dict[str, Any]:
    places = {subject.name: str(subject.where.place) for subject in subjects}
    ends = dict.fromkeys([*places.values()][:: max(1, len(places) - 1)])
    kept = {text: max(each.own.tokens for each in own.values()) for text, own in found.items()}
    texts = {t: text_facts(judged_on, fit, kept[t]) for t, (fit, judged_on) in parts.items()}
    return {"place": " to ".join(ends), "places": places, "texts": texts}


def _warnings(
    model,
    cards: Sequence[Mapping[str, Any]],
    parts: Mapping[str, Split],
    found: Mapping[str, Mapping[str, Found]],
) -> list[str]:
    """Of other weights than the cards', with the mean FVE; of text that was trained on."""
    others = [card for card in cards if is_other(model, card)]
    each = [f.own.numbers[OWN]["fve"].value for own in found.values() for f in own.values()]
    notes = other_weights(model, others[0], float(np.mean(each))) if others else []
    for _, judged_on in parts.values():
        notes += [note for card in cards for note in trained_on(judged_on, card)]
    return list(dict.fromkeys(notes))


def _notes(found: Mapping[str, Mapping[str, Found]], tokens: int) -> list[str]:
    few = [t for t, own in found.items() if next(iter(own.values())).own.clean.clusters < 8]
    return [
        "Each text apart; the first of each context, sinks and padding pass through.",
        f"PCA and random directions (coded by pursuit at the dictionary's L0) are fitted on a"
        f" quarter of the text and spliced on the first {tokens:,} tokens of the rest. saved: of"
        " the nats of the first PCA, on the same tokens.",
        *(f"{text}: few documents, intervals over so few mean little." for text in few),
    ]


def _stages(progress: Tell | None, text: str) -> Callable[[str], Progress]:
    """What is told of each stage of a text."""

    def stage(name: str) -> Progress:
        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{text}: {name}", done, total)

        return tell

    return stage
