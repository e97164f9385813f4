r"""Counting codes: which occur on positive texts and on no negative one, by head and by pair.

$$u_h = |P_h \setminus N_h|, \qquad U_{h_1 h_2} = |P_{h_1 h_2} \setminus N_{h_1 h_2}|$$

with P the codes (or pairs of codes) that occur on positive texts and N those on negative ones
(O'Neill & Bui 2024, arXiv 2405.12522, section 3). The published code builds a table [head head code
code], 6.6 GB for GPT-2 small. Here a text is counted if no negative has both of its codes and no
earlier positive has: with the texts that share a head's code as bits of words, that is an `and` of
the two heads' words. Exact, and a few MB. Imports nothing of jaxcirc.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

WORD = 32
Codes = Int[Array, "example pos component"]


@partial(jax.jit, static_argnames=("features", "normalise"))
def unique_counts(
    codes: Codes,
    positive: Bool[Array, "example"],
    seen: Bool[Array, "example pos"],
    *,
    features: int,
    normalise: bool = False,
) -> Float[Array, "pos component"]:
    r"""Codes unique to positives, for every component at every position.

    - `seen`: False at padding. `normalise`: divide by $|P_h \cup N_h|$ (published as an option).

    >>> unique_counts(codes, positive, seen, features=200)
    """
    ours, theirs = (_present(codes, kind, seen, features) for kind in (positive, ~positive))
    found = (ours & ~theirs).sum(axis=-1).astype(jnp.float32)
    return found / jnp.maximum((ours | theirs).sum(axis=-1), 1) if normalise else found


@partial(jax.jit, static_argnames=("features",))
def distinct(
    codes: Codes,
    positive: Bool[Array, "example"],
    seen: Bool[Array, "example pos"],
    *,
    features: int,
) -> Bool[Array, "example pos component"]:
    """Whether a positive text's code occurs on no negative one.

    >>> distinct(codes, positive, seen, features=200).mean(axis=0)
    """
    theirs = _present(codes, ~positive, seen, features)
    there = jnp.take_along_axis(theirs[None], codes[..., None], axis=-1)[..., 0]
    return ~there & positive[:, None, None] & seen[:, :, None]


def _present(codes: Codes, some, seen, features: int) -> Bool[Array, "pos component feature"]:
    """Which codes occur on some of the texts."""
    _, n_pos, n = codes.shape
    counts = (some[:, None] & seen)[:, :, None]
    at = jnp.arange(n_pos)[None, :, None], jnp.arange(n)[None, None, :], codes
    return jnp.zeros((n_pos, n, features), bool).at[at].max(counts)


@partial(jax.jit, static_argnames=("n_positive", "normalise"))
def pair_counts(
    codes: Codes, seen: Bool[Array, "example pos"], *, n_positive: int, normalise: bool = False
) -> Float[Array, "component component"]:
    r"""Pairs of codes unique to positives, for every pair of components, summed over positions.

    - `codes`: of the positive texts first, `n_positive` of them. `normalise`: divide by $|P| + |N|$
      (published as an option).

    Symmetric; on the diagonal are `unique_counts`.

    >>> pair_counts(codes, seen, n_positive=250)
    """

    def at_one(pos):
        codes, seen = pos
        ours, theirs = (
            (codes[:n_positive], seen[:n_positive]),
            (codes[n_positive:], seen[n_positive:]),
        )
        before = _shared(ours, ours, earlier=True)
        new = _counted(jnp.concatenate([before, _shared(ours, theirs)]), ours[1])
        if not normalise:
            return new
        own = _counted(before, ours[1])
        other = _counted(_shared(theirs, theirs, earlier=True), theirs[1])
        return new / jnp.maximum(own + other, 1)

    return jax.lax.map(at_one, (jnp.moveaxis(codes, 1, 0), seen.T)).sum(axis=0)


def _shared(ours, others, earlier: bool = False) -> UInt32[Array, "word component example"]:
    """For every text of ours, by component, the texts of others with the same code, as bits of
    words; `earlier`: those that come before it alone."""
    (codes, _), (theirs, seen) = ours, others
    n, m = len(codes), len(theirs)
    words = -(-m // WORD)
    allowed = jnp.tri(n, m, -1, dtype=bool) if earlier else jnp.ones((n, m), bool)
    bit = jnp.left_shift(jnp.uint32(1), jnp.arange(WORD, dtype=jnp.uint32))

    def of(columns):
        same = (columns[0][:, None] == columns[1][None]) & allowed & seen[None]
        bits = jnp.pad(same, ((0, 0), (0, words * WORD - m))).reshape(n, words, WORD)
        return jnp.where(bits, bit, 0).sum(axis=-1, dtype=jnp.uint32).T

    return jnp.moveaxis(jax.lax.map(of, (codes.T, theirs.T)), 0, 1)


def _counted(
    words: UInt32[Array, "word component example"], seen: Bool[Array, "example"]
) -> Float[Array, "component component"]:
    """For every pair of components, the texts that share no bit of both."""

    def row(one: UInt32[Array, "word example"]):
        common = jax.lax.reduce(one[:, None] & words, jnp.uint32(0), jax.lax.bitwise_or, (0,))
        return ((common == 0) & seen).sum(axis=-1).astype(jnp.float32)

    return jax.lax.map(row, jnp.moveaxis(words, 1, 0))
