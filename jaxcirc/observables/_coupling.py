"""Coupling: what one feature's reading tells of another's.

Dunefsky & Cohan 2023 (arXiv 2312.16291), theorem 2, with the standard deviation that the paper
leaves out: in many dimensions its range says nothing. Imports nothing of jaxcirc.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._feature import Feature


class Coupling(eqx.Module):
    """The reading of one feature given another's, for x uniform on a sphere.

    - `coefficient`: of `mean` in the given reading. `sd`, `low`, `high`: spread and range.
    - `cosine`: of the two.
    """

    coefficient: Float[Array, ""]
    cosine: Float[Array, ""]
    mean: Float[Array, "*reading"]
    sd: Float[Array, "*reading"]
    low: Float[Array, "*reading"]
    high: Float[Array, "*reading"]


def coupling(
    y1: Feature | ArrayLike, y2: Feature | ArrayLike, s: ArrayLike, k: ArrayLike
) -> Coupling:
    r"""The mean, spread and range of x . y2 given x . y1 = k, for x uniform on |x| = s.

    $$C(y_1, y_2) = \frac{y_1 \cdot y_2}{\|y_1\|^2}, \qquad E[x \cdot y_2] = k\, C, \qquad
      \mathrm{sd} = \|y_2\| |\sin\theta| \sqrt{\frac{s^2 - k^2 / \|y_1\|^2}{d - 1}}$$

    C(y1, y2) C(y2, y1) is the squared cosine (the paper's preprint says the cosine).

    - `y1`, `y2`: features, or Float[d]. `s`: length of x. `k`: the reading of y1.

    Raises `ValueError` for vectors of different width.

    >>> coupling(subject, object, s=24.0, k=1.0).coefficient
    """
    a, b = (y.vector if isinstance(y, Feature) else jnp.asarray(y) for y in (y1, y2))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"features of shapes {a.shape} and {b.shape}: coupling(y1, y2, s=1, k=0)")
    lengths = jnp.linalg.norm(a), jnp.linalg.norm(b)
    cosine = jnp.clip(a @ b / (lengths[0] * lengths[1]), -1, 1)
    coefficient = a @ b / lengths[0] ** 2
    k, s = jnp.asarray(k, a.dtype), jnp.asarray(s, a.dtype)
    across = jnp.sqrt(jnp.maximum(s**2 - (k / lengths[0]) ** 2, 0))
    reach = lengths[1] * jnp.sqrt(1 - cosine**2) * across
    mean = k * coefficient
    sd = reach / jnp.sqrt(jnp.asarray(a.shape[0] - 1, a.dtype))
    return Coupling(coefficient, cosine, mean, sd, mean - reach, mean + reach)
