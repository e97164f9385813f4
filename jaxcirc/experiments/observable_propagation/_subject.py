"""A model with its observables and rows, and the runs over them, made when first asked for.

May import `observables` and `tasks`.
"""

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from ..._types import Tell
from ...observables import Observable, features
from ...tasks import words
from ...tasks._example import single
from ...tasks._pronouns import TEMPLATES as SUBJECTS
from . import _words
from ._look import Look, look
from ._presets import Sizes
from ._rows import Rows, filled


class Ready:
    """What the sections share: a model, observables, rows of names, and looks at them."""

    def __init__(self, model, tokenizer, sizes: Sizes, seed: int, tell: Tell | None):
        self.model, self.tokenizer, self.sizes, self.seed = model, tokenizer, sizes, seed
        self._tell = tell
        of = Observable.of
        self.subject = of(tokenizer, " she", " he")
        self.object = of(tokenizer, " her", " him")
        self.bias = of(tokenizer, *_words.BIASED, name="biased occupations")

    def tell(self, stage: str):
        """Progress of a stage."""

        def told(done: int, total: int) -> None:
            if self._tell is not None:
                self._tell(stage, done, total)

        return told

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """Women's and men's names of one token, as many of each."""
        kinds = [single(self.tokenizer, kind) for kind in (words.WOMEN, words.MEN)]
        n = min(self.sizes.names, *map(len, kinds))
        return kinds[0][:n], kinds[1][:n]

    def _rows(self, templates) -> Rows:
        return filled(self.tokenizer, templates[: self.sizes.templates], self.names)

    @cached_property
    def observables(self) -> dict[str, Observable]:
        """By what they ask for."""
        return {"subject": self.subject, "object": self.object, "occupation": self.bias}

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Names in prompts that each observable answers."""
        sets = {"subject": SUBJECTS, "object": _words.OBJECT, "occupation": _words.OCCUPATION}
        return {name: self._rows(templates) for name, templates in sets.items()}

    def look(self, name: str) -> Look:
        """The run over a set of rows, with all observables."""
        if name not in self._looks:
            every = list(self.observables.values())
            self._looks[name] = look(self.model, self.rows[name], every, self.tell(name))
        return self._looks[name]

    @cached_property
    def _looks(self) -> dict[str, Look]:
        return {}

    @cached_property
    def features(self) -> dict[str, Float[np.ndarray, "layer head d_model"]]:
        """Every head's feature for each observable."""
        found: dict[str, Any] = {}
        for name, observable in self.observables.items():
            found[name] = np.asarray(features(self.model, observable), np.float64)
        return found

    def norms(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Their lengths."""
        return np.linalg.norm(self.features[name], axis=-1)

    def top(self, name: str) -> tuple[int, int]:
        """The head whose feature is longest."""
        norms = self.norms(name)
        layer, head = np.unravel_index(norms.argmax(), norms.shape)
        return int(layer), int(head)

    @property
    def order(self) -> list[str]:
        """The observables' names as a look has them."""
        return list(self.observables)
