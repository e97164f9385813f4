"""A training step without arrays: what it takes, in shapes and shardings, to compile it for devices
that need not exist. May import `_config`, `_mesh`, `_run`, `_step`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..._ops import DATA
from ._config import Config
from ._mesh import check_divides, layout
from ._run import population
from ._step import Hyper, State

Shape = jax.ShapeDtypeStruct


def shardings(
    config: Config, mesh: Mesh, d_out: int | None = None, sites: int | None = None
) -> State:
    """The sharding of every array of a population's state, whatever its width.

    - `d_out`: given for a transcoder; `sites`: for a crosscoder.

    Raises `ValueError` for features that the mesh cannot share out.

    >>> shardings(Config("topk"), make_mesh(2, 4)).dictionary.coder.w_enc.spec
    PartitionSpec(None, None, 'dictionary')
    """
    check_divides(config.d_dict, mesh)
    make = partial(population, (config,), d_in=1, d_out=d_out, sites=sites)
    return layout(jax.eval_shape(make), mesh)


def arguments(
    config: Config,
    d_in: int,
    mesh: Mesh | None = None,
    *,
    members: int = 1,
    d_out: int | None = None,
    sites: int | None = None,
) -> tuple[State, Hyper, Any, Any, Any]:
    """What `steps` takes after its config: state, hyper, x, y and share, as shapes on a mesh.

    - `members`: of the population. `d_out`: given for a transcoder; `sites`: for a crosscoder.

    >>> with jax.set_mesh(mesh):
    ...     steps.lower(alike(config), *arguments(config, 576, mesh)).compile().memory_analysis()
    """
    make = partial(population, (config,) * members, d_in=d_in, d_out=d_out, sites=sites)
    state = jax.eval_shape(make)
    rates = jax.eval_shape(lambda: Hyper(jnp.zeros(members), jnp.zeros(members)))
    share = Shape((), jnp.float32)
    rows = (config.batch,) if sites is None else (config.batch, sites)
    x = Shape((*rows, d_in), jnp.float32)
    y = x if d_out is None else Shape((config.batch, d_out), jnp.float32)
    if mesh is None:
        return state, rates, x, y, share
    check_divides(config.d_dict, mesh)
    tokens, rest = NamedSharding(mesh, P(DATA)), NamedSharding(mesh, P())
    state = jax.tree.map(_at, state, layout(state, mesh))
    rates = jax.tree.map(lambda leaf: _at(leaf, rest), rates)
    return state, rates, _at(x, tokens), _at(y, tokens), _at(share, rest)


def _at(leaf: Any, sharding: Any) -> Any:
    return Shape(leaf.shape, leaf.dtype, sharding=sharding)
