"""RAVEL's entities from its published files: prompts that ask one attribute of an entity.

Huang et al. 2024 (arXiv 2402.17700). An entity has several attributes and a prompt asks for one; an
edit of another attribute should not change the answer. The files are not in the repository: give
the folder of `ravel_city_entity_attributes.json` and its like. Imports `prompt`, `_places`,
`_texts`.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ..._types import TokenizerLike
from .._places import edges_of, touching
from .._texts import Pair, bos_ids, collate
from ..prompt import Prompts

ATTRIBUTES = ("Country", "Continent", "Language")
"""Of cities: those whose values are words."""


@dataclasses.dataclass(frozen=True)
class Ravel:
    """Prompts of one attribute.

    - `asked`: the attribute. `prompts`: with the span "entity", its last token. `labels`: the
      values of all attributes by number; `ids`: for each attribute the first token of each value.
    """

    asked: str
    prompts: Prompts
    labels: dict[str, Int[np.ndarray, "example"]]
    ids: dict[str, Int[np.ndarray, "value"]]

    def take(self, rows: np.ndarray) -> "Ravel":
        """Some of them."""
        labels = {name: own[rows] for name, own in self.labels.items()}
        return dataclasses.replace(self, prompts=self.prompts.take(rows), labels=labels)


def read_ravel(
    tokenizer: TokenizerLike,
    folder: str | Path,
    entity: str = "city",
    attributes: Sequence[str] = ATTRIBUTES,
    *,
    templates: int = 2,
    values: int = 12,
    n: int = 64,
    seed: int = 0,
) -> dict[str, Ravel]:
    """Prompts of every attribute about the same entities, in the same order.

    - `templates`: of each attribute, drawn once. `values`: the commonest of each attribute are
      kept, and entities that have one of those in every attribute. `n`: entities.

    Raises `FileNotFoundError` without the files, `ValueError` if fewer than four entities fit.

    >>> read_ravel(tokenizer, "ravel/data")["Country"].prompts.texts[0]
    """
    known, asked = (
        _load(folder, entity, kind) for kind in ("entity_attributes", "attribute_to_prompts")
    )
    rng = np.random.default_rng(seed)
    ids = {a: _values(tokenizer, known, a, values) for a in attributes}
    fit = [e for e, own in known.items() if all(own.get(a) in ids[a] for a in attributes)]
    if len(fit) < 4:
        raise ValueError(
            f"{len(fit)} entities have common values in all of {attributes}: values=40"
        )
    chosen = [fit[i] for i in rng.permutation(len(fit))[:n]]
    labels = {a: np.asarray([list(ids[a]).index(known[e][a]) for e in chosen]) for a in attributes}
    tokens = {a: np.asarray(list(ids[a].values())) for a in attributes}
    found = {}
    for a in attributes:
        usable = [t for t in asked[a] if t.count("%s") == 1 and not t.startswith("%s")]
        texts = [usable[i] for i in rng.permutation(len(usable))[:templates]]
        prompts = _prompts(tokenizer, chosen, texts, [known[e][a] for e in chosen], ids[a])
        found[a] = Ravel(a, prompts, labels, tokens)
    return found


def _load(folder: str | Path, entity: str, kind: str) -> Mapping:
    path = Path(folder) / f"ravel_{entity}_{kind}.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: unpack RAVEL's data.tgz and give its folder")
    return json.loads(path.read_text())


def _values(tokenizer, known: Mapping, attribute: str, most: int) -> dict[str, int]:
    """The commonest values whose first tokens differ, with those."""
    counts = Counter(own[attribute] for own in known.values() if attribute in own)
    found: dict[str, int] = {}
    for value, _ in counts.most_common():
        first = tokenizer.encode(" " + value)[0]
        if first not in found.values() and len(found) < most:
            found[value] = first
    return found


def _prompts(tokenizer, entities, templates, values, ids: Mapping[str, int]) -> Prompts:
    """One prompt an entity, templates in turn; wrong is the answer of another entity."""
    prefix = bos_ids(tokenizer, "model")
    texts = [templates[i % len(templates)] % e for i, e in enumerate(entities)]
    answers = [ids[value] for value in values]
    pairs = [
        _pair(tokenizer, prefix, text, entity, answer, next(x for x in answers if x != answer))
        for text, entity, answer in zip(texts, entities, answers, strict=True)
    ]
    return collate(pairs, range(len(pairs)), tokenizer.pad_id, prefix, "ravel")


def _pair(tokenizer, prefix: list[int], text: str, entity: str, answer: int, wrong: int) -> Pair:
    """A prompt without a counterfactual of its own, with the entity's last token as a span."""
    ids = list(tokenizer.encode(text))
    begin = text.rindex(entity)
    column = touching(edges_of(tokenizer, ids), begin, begin + len(entity))[-1]
    ids, spans = prefix + ids, {"entity": [len(prefix) + column]}
    return Pair(ids, ids, [answer], [wrong], spans, (text, text))
