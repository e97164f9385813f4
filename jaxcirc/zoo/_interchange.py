"""Interchange interventions: parts of a model take the values that they have on another prompt, and
variables of its causal model do the same; both should then give the same answer.

Geiger et al. 2021 (arXiv 2106.02997), definition of interchange intervention accuracy; Gupta et al.
2024 (arXiv 2407.14494) for the parts outside the circuit. May import `taps` and `models`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._types import Tokens
from ..models import LM
from ..taps import Node, Read, Set, Sites, Wiring, run
from ._causal import Causal


def components(model: LM) -> tuple[Node, ...]:
    """The heads and MLPs of a model, in the order of a run."""
    wiring = Wiring.of(model)
    return wiring.sources[wiring.first :]


def circuit(causal: Causal, model: LM) -> Bool[np.ndarray, "component"]:
    """Which components play a variable."""
    return np.asarray([node in causal.nodes.values() for node in components(model)])


def solved(
    causal: Causal, tokens: Tokens, others: Tokens, swaps: Bool[Array, "batch component"], nodes
) -> Int[Array, "batch"]:
    """The causal model's answers where the variables of swapped components take the values they
    have on the other prompts.

    - `tokens`, `others`: Int[batch pos]. `nodes`: the components of the columns of `swaps`.
    """
    seen: dict[str, Array] = {}

    def record(name: str, value: Array) -> Array:
        return seen.setdefault(name, value)

    def exchange(name: str, value: Array) -> Array:
        swap = swaps[:, nodes.index(causal.nodes[name])]
        return jnp.where(swap.reshape(-1, *[1] * (value.ndim - 1)), seen[name], value)

    causal.solve(others, record)
    return causal.solve(tokens, exchange)


def exchanged(
    model: LM, tokens: Tokens, records: Sites, swaps: Bool[Array, "batch component"]
) -> Float[Array, "batch vocab"]:
    """The last logits where swapped components take their values from `records`, at all positions.

    - `records`: of "z" and "mlp_out" on the other prompts.
    """
    c = model.config
    by_layer = swaps.reshape(len(tokens), c.n_layers, c.n_heads + 1).swapaxes(0, 1)
    edits = Sites(
        z=Set(records.z, by_layer[:, :, None, :-1, None]),
        mlp_out=Set(records.mlp_out, by_layer[:, :, None, -1:]),
    )
    return run(model, tokens, edits, logits_at=-1)[0]


def recorded(model: LM, tokens: Tokens) -> tuple[Float[Array, "batch vocab"], Sites]:
    """The last logits, and what every component does."""
    return run(model, tokens, Sites(z=Read(), mlp_out=Read()), logits_at=-1)


def agreement(causal: Causal, model: LM, key: PRNGKeyArray, n: int = 1024) -> dict[str, float]:
    """How well a model follows its causal model on fresh prompts, as shares of answers.

    - `key`: of prompts and exchanges. `n`: prompts.

    Returns "accuracy" without exchanges; "interchange", the least over the variables, each
    exchanged by itself; "together", random sets of variables exchanged; "strict", the least over
    the components outside the circuit, where the answer must not change; "outside", all of those
    exchanged at once.

    >>> agreement(CAUSAL["induction"], model, jax.random.key(1))["strict"]
    """
    nodes = components(model)
    inside = circuit(causal, model)
    tokens, others = (causal.draw(k, n) for k in jax.random.split(key))
    one = np.eye(len(nodes), dtype=bool)
    some = np.random.default_rng(0).random((n, len(nodes))) < 0.5

    def share(swaps) -> float:
        swaps = jnp.broadcast_to(swaps, (n, len(nodes)))
        return float(_right(model, tokens, others, swaps, causal))

    return {
        "accuracy": share(np.zeros(len(nodes), bool)),
        "interchange": min(share(one[i]) for i in np.flatnonzero(inside)),
        "together": share(some & inside),
        "strict": min(share(one[i]) for i in np.flatnonzero(~inside)),
        "outside": share(~inside),
    }


@partial(jax.jit, static_argnames="causal")
def _right(model: LM, tokens: Tokens, others: Tokens, swaps, causal: Causal) -> Array:
    nodes = components(model)
    logits = exchanged(model, tokens, recorded(model, others)[1], swaps)
    return jnp.mean(logits.argmax(axis=1) == solved(causal, tokens, others, swaps, nodes))
