"""What samples are clustered by: features, linear effects, or parameter gradients, as short rows.

Marks et al. 2024 (arXiv 2403.19647), section 5: feature activations or their linear effects (AtP of
-log P by zero ablation), pooled over positions; or gradients of all weights, projected at random.
Wide rows are projected again (scikit-learn's sparse projection keeps cosines). May import `taps`,
`tasks`, `circuits`.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Progress
from ...circuits.features import Basis, Behaviour
from ...circuits.features._patches import corrupt_run, laid, live
from ...circuits.features._runs import begin
from ...circuits.features._scores import contracted
from ...circuits.features._slopes import Along, slopes
from ...tasks import Prompts, log_probability
from ._gradients import gradient_rows, sketch_of
from ._parts import part
from ._samples import BLOCK, Samples

Kind = Literal["effects", "features", "gradients"]
Pool = Literal["sum", "last", "last5"]

COLUMNS = {"last": 1, "last5": 5}
"""Positions that a pool keeps, from the end."""


def represent(
    model,
    samples: Samples,
    basis: Basis,
    kind: Kind = "effects",
    *,
    pool: Pool = "sum",
    dims: int = 1024,
    seed: int = 0,
    batch: int = 16,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "sample dim"]:
    """Every sample as a row of length 1, whose products are cosine similarities.

    - `kind`: "features" (activations of the dictionaries), "effects" (their linear effects on log
      P of the next token), "gradients" (of all weights). Errors are no part of a row.
    - `pool`: features and effects summed over positions, at the last, or over the last five.
    - `dims`: wider rows are projected to so many. `folder`: keeps rows as they are made.

    Raises `ValueError` for unknown words.

    >>> x = represent(model, samples, basis, "features", pool="last")
    >>> (x @ x.T).max()
    """
    for name, value, known in (("kind", kind, Kind), ("pool", pool, Pool)):
        if value not in get_args(known):
            words = ", ".join(map(repr, get_args(known)))
            raise ValueError(f"{name}={value!r}: use one of {words}")
    rows = _rows(model, basis, kind, pool, seed)
    prompts, found = samples.prompts(), []
    for begin_at in range(0, len(samples), BLOCK):
        at = np.arange(begin_at, min(begin_at + BLOCK, len(samples)))
        path = None if folder is None else folder / f"{kind}-{begin_at // BLOCK:04}.safetensors"
        make = partial(_block, rows, prompts, at, dims, seed, batch)
        found.append(part(path, make)["row"])
        if progress is not None:
            progress(int(at[-1]) + 1, len(samples))
    return unit(np.concatenate(found))


def unit(x: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)


def _rows(model, basis: Basis, kind: Kind, pool: Pool, seed: int) -> Callable[[Prompts], Array]:
    if kind == "gradients":
        sketch = sketch_of(model, seed=seed)
        return lambda prompts: gradient_rows(model, prompts, sketch)
    make = feature_rows if kind == "features" else effect_rows
    return lambda prompts: make(model, basis, prompts, pool=pool)


def _block(rows, prompts: Prompts, at, dims: int, seed: int, batch: int) -> dict[str, np.ndarray]:
    """Some samples' rows, projected where they are wide."""
    found = []
    with jax.default_matmul_precision("highest"):
        for begin_at in range(0, len(at), batch):
            own = at[begin_at : begin_at + batch]
            made = rows(prompts.take(np.resize(own, batch)).arrays())
            found.append(projected(np.asarray(made)[: len(own)], dims, seed))
    return {"row": np.concatenate(found)}


def projected(
    x: Float[np.ndarray, "row width"], dims: int, seed: int
) -> Float[np.ndarray, "row dim"]:
    """Rows projected at random to `dims` numbers; as they are if they have no more."""
    if x.shape[1] <= dims:
        return x.astype(np.float32)
    from scipy import sparse  # imports for a while, which every command would pay

    some = sparse.csr_matrix(x.astype(np.float32))
    return np.asarray(_projection(x.shape[1], dims, seed).transform(some), np.float32)


@lru_cache(maxsize=2)
def _projection(width: int, dims: int, seed: int) -> Any:
    """Drawn once: it is a million numbers."""
    from scipy import sparse
    from sklearn.random_projection import SparseRandomProjection

    options: Any = {"n_components": dims, "random_state": seed, "dense_output": True}
    way = SparseRandomProjection(**options)
    return way.fit(sparse.csr_matrix((1, width), dtype=np.float32))


@partial(jax.jit, static_argnames=("pool",))
def feature_rows(
    model, basis: Basis, prompts: Prompts, *, pool: Pool
) -> Float[Array, "row feature"]:
    """Activations of all features of a basis, pooled over positions."""
    values = activations(model, basis, prompts)
    return pooled(jnp.concatenate(values, axis=-1), pool)


def activations(model, basis: Basis, prompts: Prompts) -> list[Float[Array, "row pos feature"]]:
    """The features of every place, 0 at tokens without nodes."""
    xs = corrupt_run(model, basis, prompts)  # the corrupt run of samples is the clean one
    seen = live(model, basis, prompts, xs)
    codes = [d.encode(x) for d, x in zip(basis.dictionaries, xs, strict=True)]
    return [jnp.where(laid(on, f), f, 0) for on, f in zip(seen, codes, strict=True)]


@partial(jax.jit, static_argnames=("pool",))
def effect_rows(
    model, basis: Basis, prompts: Prompts, *, pool: Pool
) -> Float[Array, "row feature"]:
    """Linear effects of zeroing every feature, on log P of each prompt's answer."""
    objective = Behaviour(log_probability)
    runs = begin(model, objective, basis, prompts, None, patch="zero")
    found = slopes(model, objective, runs, basis.places, Along("atp")).each
    pairs = zip(runs.at, found, strict=True)
    tables = [contracted(*pair, summed=False)[..., :-1] for pair in pairs]
    return pooled(jnp.concatenate(tables, axis=-1), pool)


def pooled(x: Float[Array, "row pos width"], pool: Pool) -> Float[Array, "row width"]:
    """The sum over positions, or over the last ones."""
    return x[:, -COLUMNS.get(pool, x.shape[1]) :].sum(axis=1)


def spread(lengths: Int[np.ndarray, "sample"], most: int) -> Int[np.ndarray, "row"]:
    """Samples to average over: at most about `most`, evenly from all lengths, each length among
    them."""
    order = np.argsort(lengths, kind="stable")
    some = order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)]
    return np.union1d(some, np.unique(lengths, return_index=True)[1])
