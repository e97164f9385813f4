"""`Labelled`: prompts with the values of their attributes, made from drafts in which one value can
be changed and all else kept.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 3.1: attributes are functions of a prompt
with finitely many values, and a counterfactual differs from its source in one of them. Imports
`prompt` and `_texts`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..._types import Bos, TokenizerLike
from .._texts import from_texts
from ..prompt import Prompts

Draft = Any
"""What a prompt is made of: a frozen dataclass of its task."""

Split = str
"""Which prompts: "train", "test" (other pairs of values and other fillers) or "templates" (other
templates as well)."""


@runtime_checkable
class Maker(Protocol):
    """How a task turns drafts into prompts."""

    @property
    def name(self) -> str:
        """The task's."""
        ...

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The values of every attribute, in words."""
        ...

    @property
    def editable(self) -> tuple[str, ...]:
        """Attributes that can be changed one at a time."""
        ...

    @property
    def coded(self) -> tuple[str, ...]:
        """Attributes that codes are made for: those, and others that vary apart from them."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """Spans behind which the next column is named too: "S1" adds "S1+1"."""
        ...

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Groups of words between which the answer is decided: one each for names, several for
        the verbs of a number."""
        ...

    def draw(self, rng: np.random.Generator, split: Split) -> Draft:
        """One draft of a split."""
        ...

    def changed(self, draft: Draft, attribute: str, rng: np.random.Generator) -> Draft:
        """The same with another value of one attribute."""
        ...

    def labels(self, draft: Draft) -> Mapping[str, int]:
        """The values of a draft, as places in `values`."""
        ...

    def row(self, draft: Draft) -> Mapping[str, Any]:
        """Its text, answer, wrong, places and cluster."""
        ...


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Prompts with labels.

    - `prompts`: clean is the prompt; corrupt is of no use here. `labels`: Int[example] by
      attribute. `drafts`: what they were made from. `ids`: tokens of the candidates; `groups`: the
      group of each.
    """

    prompts: Prompts
    labels: dict[str, Int[np.ndarray, "example"]]
    drafts: tuple[Draft, ...]
    ids: Int[np.ndarray, "candidate"]
    groups: Int[np.ndarray, "candidate"]
    maker: Maker
    tokenizer: TokenizerLike = dataclasses.field(repr=False)
    bos: Bos = "model"

    def __len__(self) -> int:
        return len(self.drafts)

    @property
    def sizes(self) -> dict[str, int]:
        """How many values each attribute has."""
        return {name: len(words) for name, words in self.maker.values.items()}

    def changed(self, attribute: str, seed: int = 0) -> "Labelled":
        """The counterfactuals: every prompt with another value of one attribute.

        Raises `ValueError` for an attribute that cannot be changed alone.

        >>> labelled_ioi(tokenizer, 32).changed("IO").prompts.texts[0]
        """
        if attribute not in self.maker.editable:
            known = ", ".join(map(repr, self.maker.editable))
            raise ValueError(f"{attribute!r} cannot be changed alone: use one of {known}")
        rng = np.random.default_rng((seed, len(attribute)))
        drafts = [self.maker.changed(draft, attribute, rng) for draft in self.drafts]
        return label(self.tokenizer, self.maker, drafts, self.bos)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Labelled":
        """Some of them."""
        rows = np.asarray(rows)
        return dataclasses.replace(
            self,
            prompts=self.prompts.take(rows),
            labels={name: values[rows] for name, values in self.labels.items()},
            drafts=tuple(self.drafts[i] for i in rows),
        )


def label(
    tokenizer: TokenizerLike, maker: Maker, drafts: Sequence[Draft], bos: Bos = "model"
) -> Labelled:
    """Labelled prompts from drafts."""
    rows = [maker.row(draft) for draft in drafts]
    prompts = from_texts(
        tokenizer,
        clean=[row["text"] for row in rows],
        corrupt=[row["other"] for row in rows],
        answer=[row["answer"] for row in rows],
        wrong=[row["wrong"] for row in rows],
        bos=bos,
        spans=[row["spans"] for row in rows],
        templates=[row["template"] for row in rows],
        name=maker.name,
    )
    prompts = _with_ends(prompts, maker.after)
    each = [maker.labels(draft) for draft in drafts]
    labels = {name: np.asarray([one[name] for one in each]) for name in each[0]}
    ids, groups = _candidates(tokenizer, maker)
    return Labelled(prompts, labels, tuple(drafts), ids, groups, maker, tokenizer, bos)


def _with_ends(prompts: Prompts, after: Sequence[str]) -> Prompts:
    """With the span "end", and the column behind some spans."""
    last = np.zeros(prompts.clean.shape, bool)
    last[:, -1] = True
    behind = {f"{name}+1": jnp.roll(prompts.span(name), 1, axis=1) for name in after}
    spans = {**prompts.spans, **behind, "end": jnp.asarray(last)}
    return dataclasses.replace(prompts, spans=spans)


def _candidates(tokenizer: TokenizerLike, maker: Maker) -> tuple[np.ndarray, np.ndarray]:
    found = [(tokenizer.encode(w), i) for i, ws in enumerate(maker.candidates) for w in ws]
    single = [(ids[0], group) for ids, group in found if len(ids) == 1]
    ids, groups = zip(*single, strict=True)
    return np.asarray(ids), np.asarray(groups)


def drawn(
    tokenizer: TokenizerLike,
    maker: Maker,
    n: int,
    seed: int,
    split: Split,
    bos: Bos,
) -> Labelled:
    """n drafts of a split, drawn one by one.

    Raises `ValueError` for n < 1 or an unknown split.
    """
    if n < 1:
        raise ValueError(f"n={n}: {maker.name} needs at least one prompt, n=64")
    if split not in ("train", "test", "templates"):
        raise ValueError(f'split={split!r}: use "train", "test" or "templates"')
    rng = np.random.default_rng((seed, ("train", "test", "templates").index(split)))
    return label(tokenizer, maker, [maker.draw(rng, split) for _ in range(n)], bos)
