r"""Dead features drawn anew from what the dictionary explains worst.

Bricken et al. 2023 (Towards Monosemanticity, appendix "Neuron resampling"): a dead feature's
direction becomes an input drawn with probability proportional to the square of its loss, here
$(\|x - \hat x\|^2)^2$, its encoder the same at a fifth of the mean length of the living, its bias
0, its moments 0. What else a feature has (a gate, a threshold) begins again too. May import
`_config`, `_mesh`, `_step`.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._coded import Coded
from .._coder import Coder, unit
from .._trained import Trainable
from ..jumprelu import JumpReLU
from ..transcoder import Transcoder
from ._config import Config, fresh
from ._mesh import laid_out
from ._step import State

SHARE = 0.2
"""Of the mean length of the living encoders."""


@partial(jax.jit, static_argnames=("config",))
def resampled(
    config: Config,
    state: State,
    keys: PRNGKeyArray,
    x: Float[Array, "token d_in"],
    y: Float[Array, "token d_out"],
) -> State:
    """A population's states with every dead feature of each member begun again."""

    def one(state: State, key: PRNGKeyArray) -> State:
        dead = state.silent >= config.life
        old = state.dictionary
        new = _with_inner(old, _begun(config, _drawn(old, dead, key, x, y)))

        def clear(moments: Any) -> Any:
            zeros = jax.tree.map(jnp.zeros_like, moments)
            return _chosen(dead, zeros, moments) if _is_dictionary(moments) else moments

        moments = jax.tree.map(clear, state.optimiser, is_leaf=_is_dictionary)
        silent = jnp.where(dead, 0, state.silent)
        return State(_chosen(dead, new, old), moments, silent, state.step)

    return laid_out(jax.vmap(one)(state, keys))


def _begun(config: Config, coder: Coder) -> Coded:
    """All features as they begin; a threshold as much lower as the encoder is shorter."""
    found = fresh(config, coder)
    if isinstance(found, JumpReLU):
        return eqx.tree_at(lambda d: d.threshold, found, SHARE * found.threshold)
    return found


def _drawn(dictionary: Trainable, dead: Array, key: PRNGKeyArray, x: Array, y: Array) -> Coder:
    """The coder with every feature made of some badly explained token."""
    inner = _inner(dictionary)
    whole = dictionary.transcode if isinstance(dictionary, Transcoder) else _autoencoded(inner)
    loss = jnp.square(y - whole(x)).sum(axis=-1)
    chance = jnp.square(loss) + 1e-30
    rows = jax.random.choice(key, len(x), dead.shape, p=chance / chance.sum())
    coder = inner.coder
    along, out = unit(coder.centre(x)[rows]), unit((y - coder.b_dec)[rows])
    lengths = _living(dead, jnp.linalg.norm(coder.w_enc, axis=0)), _living(dead, coder.lengths)
    return eqx.tree_at(
        lambda c: (c.w_enc, c.b_enc, c.w_dec),
        coder,
        (along.T * SHARE * lengths[0], jnp.zeros_like(coder.b_enc), out * lengths[1]),
    )


def _autoencoded(inner):
    return lambda x: inner.decode(inner.encode(x))


def _living(dead: Bool[Array, "feature"], lengths: Float[Array, "feature"]) -> Float[Array, ""]:
    """The mean over the living; 1 if there are none."""
    n = (~dead).sum()
    return jnp.where(n > 0, jnp.where(dead, 0.0, lengths).sum() / jnp.maximum(n, 1), 1.0)


def _inner(dictionary):
    return getattr(dictionary, "inner", dictionary)


def _with_inner(dictionary, inner):
    if isinstance(dictionary, Transcoder):
        return eqx.tree_at(lambda d: d.inner, dictionary, inner)
    return inner


def _is_dictionary(node) -> bool:
    return hasattr(node, "coder") or hasattr(node, "inner")


SHARED = ("b_dec", "skip", "total", "weight")
"""Arrays that belong to no one feature."""


def _chosen(dead: Bool[Array, "feature"], new: Any, old: Any) -> Any:
    """The new arrays of dead features, the old ones of all others."""

    def choose(path, n: Array, o: Array) -> Array:
        name = path[-1].name
        if name in SHARED:
            return o
        return jnp.where(dead[:, None] if name == "w_dec" else dead, n, o)

    return jax.tree_util.tree_map_with_path(choose, new, old)
