r"""Dictionaries made from labels: one code for every value of every attribute.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 3 and appendix A.5: an activation is its
mean and a code for each attribute, all with the coefficient 1,

$$\hat a(p) = \bar a + \sum_i u_{i, a_i(p)}.$$

Mean codes are $u_{iv} = \mathbb{E}[a \mid a_i = v] - \bar a$; least-squares codes solve $\min_U \|A
- C U\|_F^2$, C one-hot. C lacks one rank an attribute, so that its codes are fixed up to a shift:
here $\sum_v n_v u_{iv} = 0$, which both kinds of codes meet. May import nothing of the package.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Labels = Mapping[str, Int[np.ndarray, "example"]]
"""The value of every attribute on every example, as numbers from 0."""

Rows = Float[Array, "example d"] | Float[np.ndarray, "example d"]
"""Activations, numpy or JAX."""

Method = Literal["mean", "least_squares"]


class Supervised(eqx.Module):
    """A mean, and a code for every value of every attribute: Float[value d] by name.

    >>> codes = supervised(activations, {"IO": io, "S": subject, "Pos": order})
    >>> codes.edited(x, "IO", old, new)
    """

    mean: Float[Array, "d"]
    codes: dict[str, Float[Array, "value d"]]

    def parts(self, labels: Labels) -> Float[Array, "example attribute d"]:
        """The code of every attribute on every example, attributes in the order of `codes`."""
        named = [rows[_values(labels, name, len(rows))] for name, rows in self.codes.items()]
        return jnp.stack(named, axis=1)

    def rebuilt(self, labels: Labels) -> Float[Array, "example d"]:
        """The reconstruction from labels alone."""
        return self.mean + self.parts(labels).sum(axis=1)

    def edited(
        self,
        x: Rows,
        name: str,
        old: Int[np.ndarray, "example"],
        new: Int[np.ndarray, "example"],
    ) -> Float[Array, "example d"]:
        r"""The supervised edit: $a - u_{i, v} + u_{i, v'}$."""
        rows = self.codes[name]
        return jnp.asarray(x) - rows[jnp.asarray(old)] + rows[jnp.asarray(new)]

    def weights(self, labels: Labels) -> Float[Array, "example attribute"]:
        r"""The share of the reconstruction that each attribute makes up, $u_i^\top (\hat a - \bar
        a) / \|\hat a - \bar a\|^2$: they add up to 1."""
        parts = self.parts(labels)
        whole = parts.sum(axis=1)
        size = jnp.maximum(jnp.square(whole).sum(axis=-1), 1e-20)
        return jnp.einsum("nad,nd->na", parts, whole) / size[:, None]


def supervised(
    x: Rows,
    labels: Labels,
    sizes: Mapping[str, int] | None = None,
    method: Method = "least_squares",
) -> Supervised:
    """Codes for every value of some attributes.

    - `x`: activations. `labels`: values from 0. `sizes`: how many values each attribute has
      (default: as many as occur). A value that never occurs has a code of 0.
    - `method`: "least_squares" in general; "mean" where attributes are independent of each other:
      it counts twice what two attributes share.

    Raises `ValueError` for labels of another length, or out of range.

    >>> supervised(activations, {"number": number}, method="mean").codes["number"]
    """
    rows = np.asarray(x, np.float64)
    sizes = sizes_of(labels) if sizes is None else sizes
    hot = one_hot(labels, sizes, len(rows))
    mean = rows.mean(axis=0)
    centred = rows - mean
    counts = hot.sum(axis=0)
    if method == "mean":
        table = (hot.T @ centred) / np.maximum(counts, 1)[:, None]
    elif method == "least_squares":
        table = np.linalg.lstsq(hot, centred, rcond=None)[0]
    else:
        raise ValueError(f'method={method!r}: use "mean" or "least_squares"')
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
    split = np.split(np.arange(len(table)), np.cumsum(list(sizes.values()))[:-1])
    codes = {
        name: jnp.asarray(_settled(table[at], counts[at]), dtype)
        for name, at in zip(sizes, split, strict=True)
    }
    return Supervised(jnp.asarray(mean, dtype), codes)


def sizes_of(labels: Labels) -> dict[str, int]:
    """How many values each attribute has, by the largest that occurs."""
    return {name: int(np.max(values)) + 1 for name, values in labels.items()}


def one_hot(labels: Labels, sizes: Mapping[str, int], n: int) -> Float[np.ndarray, "example value"]:
    """The design: a column for every value of every attribute."""
    if not sizes:
        raise ValueError('no attribute: supervised(x, {"number": values})')
    blocks = []
    for name, size in sizes.items():
        values = _values(labels, name, size)
        if values.shape != (n,):
            raise ValueError(f"{name} has shape {values.shape}: give a value for each of {n} rows")
        blocks.append(np.eye(size)[values])
    return np.concatenate(blocks, axis=1)


def _values(labels: Labels, name: str, size: int) -> Int[np.ndarray, "example"]:
    if name not in labels:
        raise ValueError(f"there is no attribute {name!r}: the labels have {', '.join(labels)}")
    values = np.asarray(labels[name])
    if len(values) and not 0 <= values.min() <= values.max() < size:
        raise ValueError(f"{name} has values {values.min()}..{values.max()}: use 0..{size - 1}")
    return values


def _settled(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same differences with the mean code of the examples at 0, and 0 for what never occurs."""
    shift = counts @ table / max(counts.sum(), 1)
    return np.where(counts[:, None] > 0, table - shift, 0.0)


def crossed(
    labels: Labels, sizes: Mapping[str, int], groups: Sequence[tuple[str, ...]]
) -> tuple[dict[str, Int[np.ndarray, "example"]], dict[str, int]]:
    """Labels of combined attributes, a value for every combination: the coupled parametrisation.

    >>> crossed(labels, {"IO": 48, "S": 48, "Pos": 2}, [("IO", "Pos"), ("S", "Pos")])[1]
    {'IO,Pos': 96, 'S,Pos': 96}
    """
    found, wide = {}, {}
    for group in groups:
        shape = tuple(sizes[name] for name in group)
        values = [np.asarray(labels[name]) for name in group]
        found[",".join(group)] = np.ravel_multi_index(values, shape)
        wide[",".join(group)] = int(np.prod(shape))
    return found, wide


def explained(x: Rows, rebuilt: Rows) -> float:
    r"""The share of variance explained: $1 - \sum |x - \hat x|^2 / \sum |x - \bar x|^2$.

    Exactly 0 for the mean of x, less for what is worse.

    >>> explained(x, codes.rebuilt(labels))
    """
    rows = np.asarray(x, np.float64)
    mean = rows.mean(axis=0)
    guess = np.asarray(rebuilt)
    guess = np.where(guess == mean.astype(guess.dtype), mean, guess)
    return float(1 - np.square(rows - guess).sum() / np.square(rows - mean).sum())


def shuffled(labels: Labels, rng: np.random.Generator) -> dict[str, Int[np.ndarray, "example"]]:
    """The labels of other examples, those of one example kept together: what codes explain then is
    what they fit by chance."""
    order = rng.permutation(len(next(iter(labels.values()))))
    return {name: np.asarray(values)[order] for name, values in labels.items()}


def decoded(
    x: Rows,
    codes: Supervised,
    name: str,
    labels: Labels,
) -> Int[np.ndarray, "example"]:
    """The value of an attribute read off activations: the nearest code, the others' taken off.

    >>> (decoded(held, codes, "IO", labels) == labels["IO"]).mean()
    """
    others = codes.rebuilt(labels) - codes.codes[name][jnp.asarray(labels[name])]
    left, rows = np.asarray(x - others), np.asarray(codes.codes[name])
    along = left @ rows.T - np.square(rows).sum(axis=1) / 2
    return along.argmax(axis=1)


def simulates(
    coupled: Supervised, single: Supervised, name: str, by: str
) -> Float[np.ndarray, "value"]:
    r"""How far the codes of a combination are the sums of codes: for every value of `name`, the
    cosine of $u_{v, 0} - u_{v, 1}$ of the attribute (name, by) with $u_0 - u_1$ of `by`.

    Near 1 where the coupled parametrisation does what the independent one does; chance is
    $1 / \sqrt d$.

    >>> simulates(coupled, independent, "IO", "Pos").mean()
    """
    pairs = np.asarray(coupled.codes[f"{name},{by}"]).reshape(-1, 2, coupled.mean.shape[0])
    apart, step = pairs[:, 0] - pairs[:, 1], np.asarray(single.codes[by])
    way = step[0] - step[1]
    lengths = np.linalg.norm(apart, axis=1) * np.linalg.norm(way)
    return apart @ way / np.maximum(lengths, 1e-20)


def interactions(
    queries: Float[Array, "example part d"], keys: Float[Array, "example part d"], scale: float
) -> Float[Array, "example query_part key_part"]:
    r"""Attention scores as sums over pairs of features: $c q^\top k = \sum_{ij} c v_i^\top u_j$.

    - `queries`, `keys`: the parts that add up to a query and a key (mean, codes, error), after the
      rotation. `scale`: of the scores.

    Returns the terms, whose sum is the score.

    >>> interactions(split(query_codes, q, labels), split(key_codes, k, labels), 64**-0.5)
    """
    return jnp.einsum("npd,nqd->npq", jnp.asarray(queries), jnp.asarray(keys)) * scale


def split(codes: Supervised, x: Rows, labels: Labels) -> Float[Array, "example part d"]:
    """Mean, the codes of all attributes, and what is left: they add up to x."""
    parts = codes.parts(labels)
    mean = jnp.broadcast_to(codes.mean, x.shape)
    error = jnp.asarray(x) - mean - parts.sum(axis=1)
    return jnp.concatenate([mean[:, None], parts, error[:, None]], axis=1)


def part_names(codes: Supervised) -> tuple[str, ...]:
    """What `split` gives, in words."""
    return tuple(itertools.chain(("mean",), codes.codes, ("error",)))
