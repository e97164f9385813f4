"""One step of training, compiled: loss, gradient, optimiser, constraints, counts.

May import `_config`, `_mesh` and the architectures.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int

from .._trained import Seen, Stage, Trainable, squared
from ._config import Config, stage
from ._mesh import laid_out


class Hyper(eqx.Module):
    """What may differ between the dictionaries of one population."""

    learning_rate: Float[Array, "*member"]
    sparsity: Float[Array, "*member"]


class State(eqx.Module):
    """All that training changes.

    - `silent`: tokens since each feature last fired. `step`: steps taken.
    """

    dictionary: Trainable
    optimiser: optax.OptState
    silent: Int[Array, "*member feature"]
    step: Int[Array, "*member"]


class Report(eqx.Module):
    """What one step says: the loss, what the loss saw, explained variance, dead features."""

    loss: Float[Array, "*member"]
    seen: Seen
    explained: Float[Array, "*member"]
    dead: Float[Array, "*member"]


def optimiser(config: Config) -> optax.GradientTransformation:
    """The transform of gradients before the learning rate.

    Muon steps are brought to the size of Adam's (a root mean square of 0.2 an entry, Liu et al.
    2025, arXiv 2502.16982), so that learning rates carry over; vectors take Adam (Nesterov).
    """
    mask = partial(_decayed, config.frozen)
    if config.optimiser == "muon":  # optax turns the sign for descent, `descend` does as well
        decay = {"weight_decay": config.weight_decay, "weight_decay_mask": mask}
        return optax.contrib.muon(-1.0, consistent_rms=0.2, **decay)
    adam = optax.scale_by_adam(b1=0.9, b2=0.999)
    if config.optimiser == "adam":
        return adam
    return optax.chain(adam, optax.add_decayed_weights(config.weight_decay, mask=mask))


def _decayed(frozen: bool, params: Any) -> Any:
    """Weight decay is for matrices that train."""

    def decays(path, leaf) -> bool:
        return leaf.ndim >= 2 and not (frozen and getattr(path[-1], "name", None) == "w_dec")

    return jax.tree_util.tree_map_with_path(decays, params)


def begin(config: Config, dictionary: Trainable) -> State:
    """The state before the first step."""
    arrays = eqx.filter(dictionary, eqx.is_inexact_array)
    silent = jnp.zeros(dictionary.d_dict, jnp.int32)
    return State(dictionary, optimiser(config).init(arrays), silent, jnp.zeros((), jnp.int32))


Objective = Callable[[Trainable, Stage], tuple[Float[Array, ""], tuple[Seen, Any]]]
"""What is minimised: of a dictionary, and of where training stands. Returns the loss, and what it
saw: `Seen`, and whatever else."""


def step(
    config: Config,
    state: State,
    hyper: Hyper,
    x: Float[Array, "token d_in"],
    y: Float[Array, "token d_out"],
    share: Float[Array, ""],
) -> tuple[State, Report]:
    """One step. `share`: of the peak learning rate, by now."""

    def objective(dictionary: Trainable, at: Stage) -> tuple[Array, tuple[Seen, None]]:
        value, seen = dictionary.loss(x.astype(config.dtype), y.astype(config.dtype), at)
        return value, (seen, None)

    dead = state.silent >= config.life
    state, value, (seen, _) = descend(config, state, hyper, objective, len(x), share)
    spread = squared(y - y.mean(axis=0))
    report = Report(value, seen, 1 - seen.error / spread, dead.mean(dtype=jnp.float32))
    return state, report


def descend(
    config: Config,
    state: State,
    hyper: Hyper,
    objective: Objective,
    tokens: int,
    share: Float[Array, ""],
) -> tuple[State, Float[Array, ""], tuple[Seen, Any]]:
    """One step down any objective that saw so many tokens; returns also its value and what it
    saw."""
    dead = state.silent >= config.life
    at = stage(config, state.step, hyper.sparsity, dead)
    params, static = eqx.partition(state.dictionary, eqx.is_inexact_array)

    def loss(params) -> tuple[Array, tuple[Seen, Any]]:
        return objective(eqx.combine(_cast(params, config.dtype), static), at)

    (value, saw), slope = jax.value_and_grad(loss, has_aux=True)(params)
    slope = state.dictionary.tangent(eqx.combine(slope, static))
    slope = eqx.filter(slope, eqx.is_inexact_array)
    moves, opt = optimiser(config).update(slope, state.optimiser, params)
    rate = -hyper.learning_rate * share
    params = jax.tree.map(lambda p, m: p + (rate * m).astype(p.dtype), params, moves)
    dictionary = eqx.combine(params, static).settled(saw[0])
    silent = jnp.where(saw[0].fired > 0, 0, jnp.minimum(state.silent + tokens, LONG))
    return State(dictionary, opt, silent, state.step + 1), value, saw


LONG = 2**30
"""Silence is counted up to here: billions of tokens would turn an int32 negative."""


def _cast(params, dtype: str):
    """Everything but thresholds, which bfloat16 would round to a standstill."""

    def cast(path, leaf):
        names = {getattr(part, "name", None) for part in path}
        return leaf if "threshold" in names else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


@partial(jax.jit, static_argnames=("config",), donate_argnames=("state",))
def steps(
    config: Config,
    state: State,
    hyper: Hyper,
    x: Float[Array, "token d_in"],
    y: Float[Array, "token d_out"],
    share: Float[Array, ""],
) -> tuple[State, Report]:
    """`step` for a whole population (leading axes of `state` and `hyper`) on the same tokens.

    On a mesh (`with jax.set_mesh(mesh):`) the new state lies as `shardings` says.
    """
    if state.step.ndim == 0:
        return laid_out(step(config, state, hyper, x, y, share))
    if len(state.step) == 1:  # a map over one would compute both sides of every branch
        one, own = jax.tree.map(lambda leaf: leaf[0], (state, hyper))
        found = step(config, one, own, x, y, share)
        return laid_out(jax.tree.map(lambda leaf: leaf[None], found))
    return laid_out(jax.vmap(partial(step, config, x=x, y=y, share=share))(state, hyper))


def alike(config: Config) -> Config:
    """The config without what a population may vary: members of one must agree in it."""
    return dataclasses.replace(config, seed=0, learning_rate=1.0, sparsity=1.0)
