"""One pass over a text: every dictionary judged and spliced on the same tokens.

May import `dictionaries` and `taps`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._types import Progress, Resid
from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary
from ._baselines import Moments
from ._judge import distance, judge
from ._numbers import Measured
from ._runs import Chunk, Clean, Losses, Where, chunks, clean_run, losses, spliced_run

OWN = "dictionary"
"""The name of the dictionary among its baselines."""

Parts = dict[str, list[np.ndarray]]
"""Columns of single tokens, a batch after the other."""


class Pass:
    """Judges and splices dictionaries by name; all but "dictionary" rebuild targets from targets.

    - `fitted`: whose means by position mean ablation puts in. `judged_on`: whose mean is the one
      that FVE measures against.
    """

    def __init__(
        self,
        model,
        where: Where,
        each: Mapping[str, AbstractDictionary],
        fitted: Moments,
        judged_on: Moments,
    ):
        self.model, self.where, self.each = model, where, each
        self.by_position = jnp.asarray(fitted.by_position, jnp.float32)
        self.mean = jnp.asarray(judged_on.mean, jnp.float32)

    def over(self, contexts: Contexts, batch: int, progress: Progress | None) -> Measured:
        """All numbers of every token."""
        parts: Parts = defaultdict(list)
        for i, chunk in enumerate(chunks(contexts, batch)):
            clean = clean_run(self.model, *chunk.arrays(), self.where.spots)
            columns, finals = self.spliced(chunk, clean, tuple(self.each), ablated=True)
            runs = jnp.stack(list(finals.values()))
            found = losses(self.model, clean.final, runs, chunk.arrays()[0])
            for name, values in (columns | told(found, tuple(finals), chunk)).items():
                parts[name].append(values)
            if progress is not None:
                progress(min(len(contexts), (i + 1) * batch), len(contexts))
        return Measured.of(parts, tuple(self.each))

    def spliced(
        self, chunk: Chunk, clean: Clean, names: Sequence[str], ablated: bool = False
    ) -> tuple[dict[str, np.ndarray], dict[str, Resid]]:
        """Numbers of a batch's tokens by column, and the last stream with each of some dictionaries
        in place (`ablated`: and with zero, and with the mean by position)."""
        keep = self.where.kept(chunk, clean.rows)
        x, y = self.where.sides(clean.rows)
        columns, values = self._judged(x, y, keep, names)
        values |= self._ablated(y) if ablated else {}
        document = np.asarray(chunk.contexts.document)
        columns["document"] = np.repeat(document, chunk.contexts.length)[keep]
        columns["scored_document"] = np.repeat(document, chunk.scored.sum(axis=1))
        finals = {name: self._spliced(chunk, clean, each, keep) for name, each in values.items()}
        return columns, finals

    def _judged(
        self, x: Array, y: Array, keep: Bool[np.ndarray, "token"], names: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, Array]]:
        """Numbers of dictionaries by column, and what each puts in the place of y."""
        mean = jnp.broadcast_to(self.mean.reshape(y.shape[1:]), y.shape)
        columns, values = {"spread": np.asarray(distance(y, mean))[keep]}, {}
        for name in names:
            source = x if name == OWN else y.reshape(len(y), -1)
            found = judge(self.each[name], source, y, jnp.asarray(keep))
            values[name] = found.rebuilt.reshape(y.shape)
            columns[f"error.{name}"] = np.asarray(distance(y, values[name]))[keep]
            columns[f"l0.{name}"] = np.asarray(found.l0)[keep]
            columns[f"cosine.{name}"] = np.asarray(found.cosine)[keep]
            columns[f"fired.{name}"] = np.asarray(found.fired)[None]
        return columns, values

    def _ablated(self, y: Array) -> dict[str, Array]:
        """Zero, and the mean by position."""
        rows = len(y) // len(self.by_position)
        means = jnp.tile(self.by_position, (rows, 1)).reshape(y.shape)
        return {"zero": jnp.zeros_like(y), "mean": means}

    def _spliced(
        self, chunk: Chunk, clean: Clean, values: Array, keep: Bool[np.ndarray, "token"]
    ) -> Float[Array, "batch pos d"]:
        targets = self.where.place.targets
        each = (values,) if len(targets) == 1 else tuple(values[:, i] for i in range(len(targets)))
        wanted = jnp.asarray(keep)
        return spliced_run(self.model, *chunk.arrays(), clean.start, each, wanted, targets)


def told(
    found: Losses, names: Sequence[str], chunk: Chunk, first: int = 0
) -> dict[str, np.ndarray]:
    """Losses by column; the runs of `names` are those from the `first` on."""
    columns = {"clean": np.asarray(found.clean)[chunk.scored]}
    for i, name in enumerate(names, first):
        columns[f"entropy.{name}"] = np.asarray(found.spliced[i])[chunk.scored]
        columns[f"kl.{name}"] = np.asarray(found.kl[i])[chunk.scored]
    return columns
