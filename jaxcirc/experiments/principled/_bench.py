"""One cross-section of a model on labelled prompts: its activations, their counterfactuals, and
what the model says when they are replaced.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 4 and appendix A.3: a cross-section is a set
of components patched at once. May import `patching`, `tasks`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...patching import Component, Tail, activations, first_column, narrow, tail
from ...tasks.labelled import Labelled

Values = Sequence[Float[Array, "example d"]]
"""One array for every component."""

Others = Sequence[Float[Array, "other d"]]
"""The same of other prompts."""

NO_RESOLUTION = 0.9
"""Where the unedited model agrees so often with the patched one, an edit has nothing to show."""

FLOOR = 1.0
"""Logits that mean ablation must cost before shares of them are formed."""


@dataclasses.dataclass(frozen=True)
class CrossSection:
    """Components patched at once, and the attributes edited there.

    >>> CrossSection("residual 20", (Component("resid_post", 20),), ("IO",))
    """

    name: str
    components: tuple[Component, ...]
    attributes: tuple[str, ...]

    @classmethod
    def alone(cls, component: Component, attributes: Sequence[str]) -> "CrossSection":
        """Of one component, with its name."""
        return cls(str(component), (component,), tuple(attributes))

    def said(self) -> dict[str, Any]:
        """As JSON holds it."""
        parts = [str(component) for component in self.components]
        return {"name": self.name, "parts": parts, "attributes": list(self.attributes)}

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> "CrossSection":
        """From what `said` gives."""
        parts = tuple(Component.parse(name) for name in said["parts"])
        return cls(said["name"], parts, tuple(said["attributes"]))


@dataclasses.dataclass(frozen=True)
class Target:
    """The counterfactuals in one attribute.

    - `old`, `new`: the attribute's values. `values`: activations of the counterfactuals. `truth`:
      what the model chooses with those patched in. `same`: where it chooses that anyway.
    """

    attribute: str
    old: Int[np.ndarray, "example"]
    new: Int[np.ndarray, "example"]
    values: Values
    truth: Int[np.ndarray, "example"]
    same: Bool[np.ndarray, "example"]

    @property
    def none(self) -> float:
        """How often the unedited model agrees with the patched one."""
        return float(self.same.mean())

    @property
    def resolved(self) -> bool:
        """Whether there is room for an edit to show."""
        return self.none <= NO_RESOLUTION


class Runs:
    """A model's clean runs on labelled prompts and on their counterfactuals, whatever is asked of
    them computed once: several cross-sections share one.

    >>> Runs(model, labelled).read([Component("resid_post", 12)])
    """

    def __init__(self, model, source: Labelled, seed: int = 0):
        self.model, self.source, self.seed = model, source, seed
        self._read: dict[Component, Array] = {}
        self._tails: dict[int, Tail] = {}
        self._changed: dict[str, Runs] = {}

    def read(self, components: Sequence[Component]) -> list[Float[Array, "example d"]]:
        """What the components carry; all that have not been read yet are, in one pass."""
        left = [c for c in dict.fromkeys(components) if c not in self._read]
        if left:
            with jax.default_matmul_precision("highest"):
                found = activations(self.model, self.source.prompts, left)
            self._read.update(zip(left, found, strict=True))
        return [self._read[c] for c in components]

    def tail(self, first: int) -> Tail:
        """The end of the prompts from a column on."""
        if first not in self._tails:
            self._tails[first] = tail(self.model, self.source.prompts, first)
        return self._tails[first]

    def changed(self, attribute: str) -> "Runs":
        """The counterfactuals in an attribute."""
        if attribute not in self._changed:
            other = self.source.changed(attribute, self.seed)
            self._changed[attribute] = Runs(self.model, other, self.seed)
        return self._changed[attribute]

    @cached_property
    def narrow(self):
        """The model, for candidates alone."""
        return narrow(self.model, self.source.ids)


class Bench:
    """A cross-section with prompts.

    >>> Bench(Runs(model, labelled), section).difference(logits)
    """

    def __init__(self, runs: Runs, section: CrossSection):
        self.runs, self.section, self.source = runs, section, runs.source
        self.components = section.components
        self._targets: dict[str, Target] = {}

    @property
    def values(self) -> list[Float[Array, "example d"]]:
        """The clean activations."""
        return self.runs.read(self.components)

    @property
    def narrow(self):
        """The model, for candidates alone."""
        return self.runs.narrow

    @cached_property
    def ends(self) -> Tail:
        """The end of the prompts from the first component's column on."""
        return self.runs.tail(first_column(self.source.prompts, self.components))

    @property
    def clusters(self) -> Int[np.ndarray, "example"]:
        """What intervals resample."""
        return np.asarray(self.source.prompts.templates)

    def logits(self, values: Values) -> Float[np.ndarray, "example candidate"]:
        """Logits of the candidates with the components set to these values."""
        return self.partly(self.components, values)

    def partly(
        self, components: Sequence[Component], values: Values
    ) -> Float[np.ndarray, "example candidate"]:
        """The same with some of the components set, the others left as they are."""
        with jax.default_matmul_precision("highest"):
            return np.asarray(self.ends.logits(self.narrow, components, values))

    @cached_property
    def clean(self) -> Float[np.ndarray, "example candidate"]:
        return self.logits(self.values)

    @cached_property
    def ways(self) -> Float[np.ndarray, "example candidate"]:
        """What the logit difference weighs every candidate with."""
        prompts = self.source.prompts
        right, wrong = (
            self._share(*side)
            for side in (
                (prompts.answers, prompts.answer_weights),
                (prompts.wrongs, prompts.wrong_weights),
            )
        )
        return right - wrong

    def _share(self, ids: Array, weights: Array) -> np.ndarray:
        hit = np.asarray(ids)[:, :, None] == self.source.ids
        return (hit * np.asarray(weights)[:, :, None]).sum(axis=1)

    def difference(self, logits: Float[np.ndarray, "example candidate"]) -> np.ndarray:
        """The logit difference of answer and wrong: Float[example]."""
        return (logits * self.ways).sum(axis=1)

    def choice(self, logits: Float[np.ndarray, "example candidate"]) -> np.ndarray:
        """The group of the likeliest candidate: Int[example]."""
        return self.source.groups[logits.argmax(axis=1)]

    def target(self, attribute: str) -> Target:
        """The counterfactuals in an attribute, made once."""
        if attribute not in self._targets:
            self._targets[attribute] = self._made(attribute)
        return self._targets[attribute]

    def others(self, attribute: str) -> list[Float[Array, "example d"]]:
        """What the components carry in the counterfactuals."""
        return self.runs.changed(attribute).read(self.components)

    def _made(self, attribute: str) -> Target:
        other, values = self.runs.changed(attribute).source, self.others(attribute)
        truth = self.choice(self.logits(values))
        same = truth == self.choice(self.clean)
        old, new = self.source.labels[attribute], other.labels[attribute]
        return Target(attribute, old, new, values, truth, same)

    def agreement(self, target: Target, edited: Values) -> Bool[np.ndarray, "example"]:
        """Where the edited model chooses what the patched one does."""
        return self.choice(self.logits(edited)) == target.truth

    def means(self, values: Others | None = None) -> list[Float[Array, "example d"]]:
        """Every component at its mean."""
        own = self.values if values is None else values
        shapes = [x.shape for x in self.values]
        return [jnp.broadcast_to(x.mean(axis=0), s) for x, s in zip(own, shapes, strict=True)]
