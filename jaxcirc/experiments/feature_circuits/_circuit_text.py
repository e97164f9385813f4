"""What the features of a circuit fire on: top contexts, and explanations by n-gram rules.

May import `circuits`, `dictionaries`.
"""

from collections.abc import Sequence

from ..._types import Tell
from ...circuits.features import Basis, FeatureNode
from ...dictionaries import Heads
from ...dictionaries.train import Contexts
from ..dictionaries import Annotation, FeaturePage, Look, collect_all, feature_page
from ._baselines import names_of, norms_of
from ._words import RULES, explained, reading


def chosen_of(found: Sequence[FeatureNode]) -> dict[str, list[int]]:
    """The features of a circuit by place, errors left out, in the order of the nodes."""
    chosen: dict[str, list[int]] = {}
    for node in found:
        own = chosen.setdefault(f"{node.site}.{node.layer}", [])
        if not isinstance(node.index, str) and node.index not in own:
            own.append(node.index)
    return {place: features for place, features in chosen.items() if features}


def explanations(model, tokenizer, basis, chosen, contexts, say: Tell) -> list[Annotation]:
    """What n-gram rules say of the circuit's features."""
    if not chosen:
        return []
    wanted = [reading(basis, place, features) for place, features in chosen.items()]
    read = collect_all(
        model, wanted, contexts, progress=lambda done, total: say("reading text", done, total)
    )
    found = []
    for i, (place, codes) in enumerate(zip(chosen, read, strict=True)):
        for row in explained(model, tokenizer, codes, place):
            words, name = str(row["explanation"]), model.config.name
            score = row["AUROC"]
            own = {"score": None if score is None else float(score)}
            found.append(Annotation(int(row["feature"] or 0), words, name, place, RULES, **own))
        say("explaining", i + 1, len(chosen))
    return found


def pages_of(
    model, tokenizer, basis: Basis, chosen, contexts: Contexts | None, labels, say: Tell
) -> dict[str, FeaturePage]:
    """Top contexts of the circuit's features, by place."""
    pages: dict[str, FeaturePage] = {}
    if contexts is None:
        return pages
    for i, (place, features) in enumerate(chosen.items()):
        dictionary = basis.dictionaries[names_of(basis).index(place)]
        pages[place] = feature_page(
            model,
            tokenizer,
            dictionary.inner if isinstance(dictionary, Heads) else dictionary,
            contexts,
            place,
            sink_norm=norms_of(basis)[place],
            features=features,
            look=Look(examples=6, quantiles=2, each=2, before=14, after=5, logits=6),
            annotations=labels,
        )
        say("contexts", i + 1, len(chosen))
    return pages
