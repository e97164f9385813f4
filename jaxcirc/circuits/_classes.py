"""What heads do, by stated definitions: name movers, negative, S-inhibition, and what feeds them.

The classes of Wang et al. 2022 (arXiv 2211.00593), each from attention between named spans and
from what the head writes, so that any model has them or has not. May import `attribution`,
`patching`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import attribution, patching
from ..taps import Node
from ..tasks import Prompts

SPANS = ("IO", "S1", "S1+1", "S2", "end")


@dataclasses.dataclass(frozen=True)
class HeadClasses:
    """The heads of every class, and what each definition looked at, Float[layer head].

    With a the least mean attention and d a number of standard deviations over heads:

    - "name mover": the end attends to IO by a, and the direct effect on the logit difference is at
      least d.
    - "negative": the end attends to IO or S by a, and the direct effect is at most -d.
    - "S-inhibition": the end attends to S2 by a, and the path to the name movers' queries helps by
      at least d over all heads' paths.
    - "duplicate token": S2 attends to S1 by a. "induction": S2 attends to the token behind S1.
      "previous token": that token attends to S1.
    """

    heads: dict[str, list[Node]]
    direct: Float[np.ndarray, "layer head"]
    attention: dict[str, Float[np.ndarray, "layer head"]]
    to_queries: Float[np.ndarray, "layer head"]

    def of(self, node: Node) -> str:
        """The class of a head, or "".

        >>> head_classes(model, prompts).of(Node("z", 23, 3))
        """
        return ", ".join(name for name, heads in self.heads.items() if node in heads)


def head_classes(
    model, prompts: Prompts, *, attends: float = 0.25, deviations: float = 2.0
) -> HeadClasses:
    """Classify the heads of a model on IOI prompts, by the definitions of `HeadClasses`.

    - `prompts`: with the spans "IO", "S1", "S1+1", "S2" and "end" (`tasks.ioi` makes them).
    - `attends`: a; `deviations`: d.

    Raises `ValueError` for prompts that lack a span.

    >>> head_classes(model, ioi(tokenizer)).heads["negative"]
    """
    spans = {name: prompts.span(name) for name in SPANS}
    asked = {"end": ("IO", "S1", "S2"), "S2": ("S1", "S1+1"), "S1+1": ("S1",)}
    batch, looks = prompts.arrays(), {}
    with jax.default_matmul_precision("highest"):
        for dest, sources in asked.items():
            stacked = jnp.stack([jnp.asarray(spans[src]) for src in sources])
            mass = attribution.attention(model, batch, spans[dest], stacked)
            looks |= {f"{dest}>{s}": np.asarray(mass[i]) for i, s in enumerate(sources)}
    direct = np.asarray(attribution.direct(model, prompts).heads.mean(axis=0))
    least = deviations * direct.std()
    to_io, to_s = looks["end>IO"] >= attends, looks["end>S1"] + looks["end>S2"] >= attends
    found = {
        "name mover": _nodes(to_io & (direct >= least)),
        "negative": _nodes((to_io | to_s) & (direct <= -least)),
    }
    to_queries = _to_queries(model, prompts, found["name mover"])
    helps = (to_queries != 0) & (to_queries >= deviations * to_queries.std())
    found["S-inhibition"] = _nodes((looks["end>S2"] >= attends) & helps)
    for name, at in (("duplicate token", "S2>S1"), ("induction", "S2>S1+1")):
        found[name] = _nodes(looks[at] >= attends)
    found["previous token"] = _nodes(looks["S1+1>S1"] >= attends)
    return HeadClasses(found, direct, looks, to_queries)


def _nodes(flags: np.ndarray) -> list[Node]:
    return [Node("z", int(layer), int(head)) for layer, head in np.argwhere(flags)]


def _to_queries(model, prompts: Prompts, movers: Sequence[Node]) -> Float[np.ndarray, "layer head"]:
    """The importance of every head's direct path to the queries of the name movers."""
    found = np.zeros((model.n_layers, model.config.n_heads))
    if not movers:
        return found
    last = max(node.layer for node in movers)
    senders = [Node("z", layer, head) for layer in range(last) for head in range(found.shape[1])]
    receivers = [Node("q", node.layer, node.index) for node in movers]
    if senders:
        effects = patching.path(model, prompts, senders, receivers)
        found[:last] = np.asarray(effects.importance.mean(axis=0)).reshape(last, -1)
    return found
