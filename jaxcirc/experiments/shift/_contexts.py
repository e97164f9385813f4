"""Where the features of a basis are active in some texts, so that one can say what they are.

All places are encoded in one run, and kept sparse. May import `taps`, `circuits`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..._types import TokenizerLike
from ...circuits.features import Basis, FeatureNode
from ._head import usual
from ._rows import Rows
from ._runs import BATCH, below, held, start_layer


@dataclasses.dataclass(frozen=True)
class Context:
    """A text where a feature is active: its tokens in words, the activations, and the peak."""

    words: tuple[str, ...]
    values: Float[np.ndarray, "token"]
    peak: int

    @property
    def word(self) -> str:
        """The whole word that holds the peak, in lower case, letters alone."""
        first = last = self.peak
        while first > 0 and not _begins(self.words[first]):
            first -= 1
        while last + 1 < len(self.words) and not _begins(self.words[last + 1]):
            last += 1
        found = "".join(self.words[first : last + 1]).lower()
        return found.strip(" \n\t.,;:!?\"'()")


def _begins(token: str) -> bool:
    return not token or not token[0].isalnum()


@dataclasses.dataclass(frozen=True)
class Activity:
    """The feature activations of some texts: a sparse [token feature] for every place."""

    rows: Rows
    basis: Basis
    codes: tuple[Any, ...]
    word: Callable[[int], str]

    @cached_property
    def _columns(self) -> dict[Any, int]:
        return {place: i for i, place in enumerate(self.basis.places)}

    def of(self, node: FeatureNode) -> Float[np.ndarray, "row pos"]:
        """A feature's activation on every token."""
        column = self.codes[self._columns[node.place]][:, [int(node.index)]]
        return column.toarray().reshape(self.rows.tokens.shape)

    def top(self, node: FeatureNode, n: int = 10) -> tuple[Context, ...]:
        """The texts where a feature is most active, by their peak, strongest first."""
        value = self.of(node)
        peaks = value.max(axis=1)
        order = [i for i in np.argsort(-peaks, kind="stable")[:n] if peaks[i] > 0]
        return tuple(self._context(int(i), value[i]) for i in order)

    def _context(self, row: int, value: Float[np.ndarray, "pos"]) -> Context:
        real = self.rows.mask[row]
        words = tuple(self.word(int(token)) for token in self.rows.tokens[row][real])
        return Context(words, value[real], int(value[real].argmax()))


def activity(
    model, tokenizer: TokenizerLike, rows: Rows, basis: Basis, batch: int = BATCH
) -> Activity:
    """Encode some texts at every place of a basis; tokens that have no nodes have no activations.

    >>> activity(model, tokenizer, rows, basis).top(FeatureNode("resid_post", 12, 317))
    """
    from scipy import sparse  # imports for a while, which every command would pay

    start = start_layer(basis)
    stream = below(model, rows, start, batch)
    parts: list[list[Any]] = [[] for _ in basis.places]
    for some, new in rows.batches(batch):
        own = rows.take(some)
        tokens, mask = jnp.asarray(own.tokens), jnp.asarray(own.mask)
        xs = held(model, tokens, mask, jnp.asarray(stream[some]), jnp.asarray(start), basis.places)
        for part, code in zip(parts, _encoded(basis, usual(model, mask), xs), strict=True):
            part.append(sparse.csr_array(np.asarray(code[:new]).reshape(-1, code.shape[-1])))
    codes = tuple(sparse.vstack(part, format="csc") for part in parts)
    return Activity(rows, basis, codes, _words(tokenizer))


@jax.jit
def _encoded(basis: Basis, usual, xs):
    found = []
    for dictionary, bound, x in zip(basis.dictionaries, basis.sink_norms, xs, strict=True):
        norm = jnp.linalg.norm(x.reshape(*x.shape[:2], -1), axis=-1)
        seen = (usual & (norm <= bound))[..., None]
        found.append(jnp.where(seen, dictionary.encode(x), 0))
    return tuple(found)


def _words(tokenizer: TokenizerLike) -> Callable[[int], str]:
    """A token as text, each asked for once."""
    known: dict[int, str] = {}
    ask = getattr(tokenizer, "token", lambda i: tokenizer.decode([i]))

    def word(token: int) -> str:
        if token not in known:
            known[token] = ask(token)
        return known[token]

    return word


def peak_words(contexts: Sequence[Context]) -> dict[str, int]:
    """The words at the peaks, and how often each."""
    words = [context.word for context in contexts]
    return {word: words.count(word) for word in sorted(set(words), key=lambda w: -words.count(w))}


def rows_of_contexts(tokens: Int[np.ndarray, "row pos"], mask: np.ndarray) -> Rows:
    """Contexts of any text, padded on the left."""
    order = np.argsort(mask, axis=1, kind="stable")
    return Rows(np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1))
