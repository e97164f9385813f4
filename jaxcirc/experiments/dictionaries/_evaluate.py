r"""`jaxcirc sae eval`: what a dictionary keeps of the activations, and what the model loses by it.

L0, FVE, cosine, dead and dense features; and, with the reconstruction spliced in and the error
dropped, the increase of cross-entropy in nats and KL. FVE near 1 and "90 % recovered" are met by a
handful of principal directions, so each number stands beside those of PCA and of random directions
at equal k. On SmolLM2-135M with 16,000 tokens: about three minutes on two cores. May import
`dictionaries` and `taps`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..._types import Tell
from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary
from .._clock import clock
from .._result import Result, model_facts
from ._baselines import COMPONENTS, Moments, baselines, equal_k, moments
from ._card import other_weights
from ._judge import histogram, nearest
from ._numbers import Measured, numbers_of, row_of
from ._pass import OWN, Pass
from ._runs import SinkNorm, located


def evaluate(
    model,
    dictionary: AbstractDictionary,
    contexts: Contexts,
    place: str,
    *,
    sink_norm: SinkNorm = float("inf"),
    reference: Contexts | None = None,
    components: Sequence[int] = COMPONENTS,
    batch: int = 8,
    seed: int = 0,
    card: Mapping[str, Any] | None = None,
    progress: Tell | None = None,
) -> Result:
    r"""Judge a dictionary on text, beside PCA and random directions.

    $\mathrm{FVE} = 1 - \sum |x - \hat x|^2 / \sum |x - \bar x|^2$; nats = cross-entropy(spliced) -
    cross-entropy(clean); recovered = (ablated - spliced) / (ablated - clean).

    - `contexts`: text it was not trained on. `place`: as in training, "resid_post.12",
      "mlp_normed.12>mlp_out.12".
    - `sink_norm`: tokens of a larger norm are sinks, as its card says: they, the first token of
      each context and padding are left out, and pass through a splice unchanged.
    - `reference`: other text, on which baselines and ablation means are fitted (default: the first
      quarter of the contexts, which are then not judged on).
    - `components`: numbers of principal directions. `batch`: contexts in a run. `card`: what
      the dictionary's file says of it, which is recorded.

    Returns `Result` of kind "dictionary": intervals are clustered by document. Raises `ValueError`
    for a dictionary of another width, no text, or activations that are not finite.

    >>> evaluate(model, dictionary, contexts, "resid_post.12").numbers["nats"]
    """
    card = card or {}
    where = located(model, dictionary, place, sink_norm)
    reference, contexts = split_text(contexts, reference)
    with clock() as seconds, jax.default_matmul_precision("highest"):
        fitted, judged_on = (
            moments(model, dictionary, some, where, batch, _stage(progress, stage))
            for some, stage in ((reference, "baselines"), (contexts, "mean"))
        )
        beside = baselines(dictionary, fitted, components, seed)
        whole = Pass(model, where, {OWN: dictionary} | beside, fitted, judged_on)
        found = whole.over(contexts, batch, _stage(progress, "splicing"))
        similarity = np.asarray(nearest(dictionary.directions))
    density = found.fired[OWN] / found.tokens
    named = {OWN: dictionary.d_dict} | {name: each.d_dict for name, each in beside.items()}
    arrays = {
        "density": density.astype(np.float32),
        "similarity": similarity.astype(np.float32),
        "density_counts": histogram(density),
    }
    asked = {"place": place, "sink_norm": dict(where.norms), "seed": seed, "card": _plain(card)}
    asked |= {"architecture": type(dictionary).__name__, "features": dictionary.d_dict}
    return Result(
        kind="dictionary",
        task=task_of(place),
        numbers=numbers_of(found, OWN),
        table=[row_of(found, name, size) for name, size in named.items()],
        arrays=arrays,
        axes={name: ("bin" if name == "density_counts" else "feature",) for name in arrays},
        facts=model_facts(model) | asked | text_facts(contexts, reference, found.tokens),
        seconds=seconds,
        notes=[
            *other_weights(model, card, found.numbers[OWN]["fve"].value),
            *trained_on(contexts, card),
        ]
        + _notes(found, fitted, equal_k(dictionary, fitted), place),
    )


def task_of(place: str) -> str:
    """The place as a name of files: "mlp_normed.1-to-mlp_out.1"."""
    return place.replace(">", "-to-").replace("+", "-and-")


def text_facts(contexts: Contexts, reference: Contexts, tokens: int) -> dict[str, Any]:
    return {
        "contexts": len(contexts),
        "context": contexts.length,
        "contexts_hash": contexts.hash(),
        "reference_hash": reference.hash(),
        "text": sorted(set(contexts.sources)),
        "documents": len(np.unique(contexts.document)),
        "tokens": tokens,
    }


def trained_on(contexts: Contexts, card: Mapping[str, Any]) -> list[str]:
    """A warning if the card names one of the files as what the dictionary was trained on."""
    own = card.get("text")
    both = sorted(set(contexts.sources) & set(own if isinstance(own, list) else []))
    named = ", ".join(both)
    return [f"The card names {named} as text that was trained on."] if both else []


def split_text(contexts: Contexts, reference: Contexts | None) -> tuple[Contexts, Contexts]:
    """Text to fit baselines on, and text to judge on; no document is in both if that can be."""
    if reference is not None:
        if reference.length != contexts.length:
            raise ValueError(
                f"reference has contexts of {reference.length} tokens, the text of"
                f" {contexts.length}: pack both with length={contexts.length}"
            )
        return reference, contexts
    if len(contexts) < 2:
        raise ValueError("one context is not enough: give more text, or reference=other_contexts")
    first = max(1, len(contexts) // 4)
    documents = np.unique(contexts.document)
    if len(documents) < 8:
        return contexts.take(slice(0, first)), contexts.take(slice(first, None))
    own = np.isin(contexts.document, documents[: len(documents) // 4])
    return contexts.take(np.flatnonzero(own)), contexts.take(np.flatnonzero(~own))


def _stage(progress: Tell | None, stage: str):
    return None if progress is None else lambda done, total: progress(stage, done, total)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a result can hold of it."""
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    return {name: value for name, value in facts.items() if isinstance(value, plain)}


def _notes(found: Measured, fitted: Moments, k: int, place: str) -> list[str]:
    notes = [
        f"{found.tokens:,} tokens kept; the first of each context, sinks and padding pass through.",
        f"Nats: cross-entropy with the reconstruction of {place} spliced in, minus that without;"
        f" {found.scored:,} tokens predicted, sinks with them.",
        f"PCA and means by position are fitted on {fitted.n:,} other tokens; random: unit"
        f" directions coded by matching pursuit with k = {k}.",
    ]
    if found.clean.clusters < 8:
        notes.append(f"{found.clean.clusters} documents only: intervals over so few mean little.")
    return notes + found.notes
