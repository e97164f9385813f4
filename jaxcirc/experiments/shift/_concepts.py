r"""Concept bottleneck probing: a linear probe on cosines with words about the labels.

$$h_j = \cos(\bar x - \mu,\; c_j - \bar c), \quad z = \mathrm{head}(h)$$

c_j is the last token's residual behind a concept word, mu the mean over the training texts. Yan et
al. 2023 (arXiv 2310.07911), as Marks et al. 2024 (arXiv 2403.19647) use it. A word alone would be
its text's first token, a sink, so it comes behind `CARRIER`. May import `taps`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Mask, TokenizerLike, Tokens
from ...taps import At, Node, Read, Sites, run
from ._head import Head, fit
from ._rows import length_of, rows_of

CARRIER = "This text is about"


def concept_vectors(
    model, tokenizer: TokenizerLike, words: Sequence[str], place: Node
) -> Float[np.ndarray, "concept d"]:
    """The residual at the last token of every word, less the mean over words.

    Raises `ValueError` for fewer than two words.

    >>> concept_vectors(model, tokenizer, ["nurse", "professor"], Node("resid_post", 15))
    """
    if len(words) < 2:
        raise ValueError(f"{len(words)} concept words: give two or more, concepts=('nurse', ..)")
    texts = [f"{CARRIER} {word}" for word in words]
    rows = rows_of(tokenizer, texts, length_of(tokenizer, texts, 64))
    found = _last(model, jnp.asarray(rows.tokens), jnp.asarray(rows.mask), place)
    return np.asarray(found - found.mean(axis=0))


def _last(model, tokens: Tokens, mask: Mask, place: Node) -> Float[Array, "concept d"]:
    edits = Sites(**{place.site: At(jnp.asarray([place.layer]), Read())})
    with jax.default_matmul_precision("highest"):
        _, records = run(model, tokens, edits, mask=mask, layers=place.layer + 1)
    return getattr(records, place.site)[0, :, -1]


def cosines(
    x: Float[np.ndarray, "text d"],
    centre: Float[np.ndarray, "d"],
    concepts: Float[np.ndarray, "concept d"],
) -> Float[np.ndarray, "text concept"]:
    """The cosine of every mean residual, less a centre, with every concept.

    >>> cosines(x, x.mean(axis=0), concepts).shape
    """
    moved = x - centre
    sizes = np.linalg.norm(moved, axis=1)[:, None] * np.linalg.norm(concepts, axis=1)
    return moved @ concepts.T / np.maximum(sizes, 1e-12)


def concept_head(
    x: Float[np.ndarray, "text d"],
    y: Float[np.ndarray, "text"],
    concepts: Float[np.ndarray, "concept d"],
    seed: int,
) -> tuple[Head, Float[np.ndarray, "d"]]:
    """A probe on the cosines of training texts, and the centre they are taken about."""
    centre = x.mean(axis=0)
    return fit(cosines(x, centre, concepts), y, seed), centre
