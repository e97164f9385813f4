"""Patching a subspace: directions, a learned rotation, and the checks against the illusion.

Geiger et al. 2023 (arXiv 2303.02536), distributed alignment search; Makelov, Lange & Nanda 2023
(arXiv 2311.17030), whose illusion is a direction that works because a part which the model ignores
carries the information and a part which carries none drives the output. May import `taps`, `tasks`.
"""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._types import Direction
from ..taps import AXES, AbstractEdit, At, Cone, Node, Read, Sites, cone, head_axis, take_layer
from ..tasks import (
    Interval,
    Metric,
    Prompts,
    ends,
    logit_difference,
    name_metrics,
    sign,
    with_reference,
)
from ._ablation import along
from ._effects import Effects
from ._patch import Cell
from ._sweep import patch


class Interchange(AbstractEdit):
    """Replace the part of an activation within a subspace: x -> x + where * (value - x) P.

    `basis`: Float[slot d k], orthonormal columns, P = basis basis^T along the last axis; `read` and
    `write` may differ, x + ((value - x) read) write^T, for the parts of a direction. Records
    nothing.
    """

    value: Float[Array, "slot batch ..."]
    read: Float[Array, "slot d k"]
    write: Float[Array, "slot d k"]
    where: Bool[Array, "slot batch ..."]

    def __call__(self, x: Array) -> tuple[Array, None]:
        moved = ((self.value - x) @ self.read) @ jnp.swapaxes(self.write, -1, -2)
        return jnp.where(self.where, x + moved.astype(x.dtype), x), None


def subspace(
    model,
    prompts: Prompts,
    node: Node,
    basis: Float[Array, "d k"] | np.ndarray,
    metric: Metric = logit_difference,
    direction: Direction = "noise",
    *,
    pos: str | None = None,
    write: Float[Array, "d k"] | np.ndarray | None = None,
) -> Effects:
    r"""Patch the part of one node within a subspace.

    $$h \leftarrow h + P (h_\text{source} - h), \quad P = B B^\top$$

    - `basis`: vectors, made orthonormal; a single direction is Float[d]. `write`: put the source's
      coordinates along other vectors than they were read from.
    - `pos`: the name of a span.

    Returns `Effects` with axes ("example", "node"). Raises `ValueError` for a basis of the wrong
    width.

    >>> subspace(model, prompts, Node("resid_post", 12), direction, pos="S2").recovered(0)
    """
    basis = _orthonormal(model, node, basis)
    write = basis if write is None else jnp.asarray(write, basis.dtype).reshape(basis.shape)
    name, f = name_metrics(metric)[0]
    first = int(prompts.first_difference().min()) if model.causal else 0
    options = {"metric": f, "direction": direction, "first": first, "node": node, "pos": pos}
    with jax.default_matmul_precision("highest"):
        found = _interchanged(model, prompts.arrays(), basis, write, **options)
    raw, base, source = found
    templates, axes = jnp.asarray(prompts.templates), ("example", "node")
    s = sign(direction, f)
    return Effects(raw[:, None], base, source, templates, node.site, name, direction, s, axes)


def _orthonormal(model, node: Node, basis) -> Float[Array, "d k"]:
    basis = jnp.asarray(basis, model.dtype)
    basis = basis[:, None] if basis.ndim == 1 else basis
    width = model.axis_size(AXES[node.site][-1])
    if basis.ndim != 2 or basis.shape[0] != width:
        raise ValueError(f"{node}: a basis is Float[{width} k], not {basis.shape}")
    return jnp.linalg.qr(basis)[0]


class _Ends(eqx.Module):
    """Base and source of a batch at one node: where to resume, and what to interchange."""

    cone: Cone
    there: Array
    prompts: Prompts
    at_base: Float[Array, "batch vocab"]
    at_source: Float[Array, "batch vocab"]


def _both(model, prompts: Prompts, node: Node, direction: Direction, first: int) -> _Ends:
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    reads = Sites(**{node.site: At(jnp.asarray([node.layer]), Read())})
    at_source, there = suffix.of(*source).run(model, reads, logits_at=-1)
    at_base, _ = suffix.run(model, logits_at=-1)
    prompts = with_reference(prompts, at_base if direction == "noise" else at_source)
    return _Ends(suffix, getattr(there, node.site), prompts, at_base, at_source)


def _mask(model, prompts: Prompts, node: Node, pos: str | None, first: int) -> Array:
    axes, axis = AXES[node.site], head_axis(node.site)
    where = jnp.ones((1,) * len(axes), bool)
    if pos is not None:
        where = where & along(node.site, prompts.span(pos)[:, first:])
    if axis is not None and node.index is not None:
        heads = jnp.arange(model.axis_size(axis)) == node.index
        where = where & heads.reshape([-1 if a == axis else 1 for a in axes])
    return where[None]


def _edited(model, both: _Ends, node: Node, where, read, write) -> Float[Array, "batch vocab"]:
    edit = Interchange(both.there, read[None], write[None], where)
    edits = Sites(**{node.site: At(jnp.asarray([node.layer]), edit)})
    return both.cone.run(model, edits, logits_at=-1)[0]


@partial(jax.jit, static_argnames=("node", "metric", "direction", "first", "pos"))
def _interchanged(model, prompts: Prompts, read, write, *, node, metric, direction, first, pos):
    both = _both(model, prompts, node, direction, first)
    where = _mask(model, prompts, node, pos, first)
    reads = jnp.stack([read, jnp.zeros_like(read)])
    logits = jax.vmap(lambda r: _edited(model, both, node, where, r, write))(reads)
    patched, still = (metric(x, both.prompts) for x in logits)
    base, source = (metric(x, both.prompts) for x in (both.at_base, both.at_source))
    return patched - still, base, source


class Aligned(eqx.Module):
    """A learned subspace: `basis` Float[d k], and the loss of every step."""

    basis: Float[Array, "d k"]
    losses: Float[Array, "step"]


def das(
    model,
    prompts: Prompts,
    node: Node,
    k: int = 1,
    *,
    pos: str | None = None,
    direction: Direction = "noise",
    steps: int = 100,
    learning_rate: float = 0.05,
    key: PRNGKeyArray | None = None,
) -> Aligned:
    r"""Distributed alignment search: the subspace whose interchange best moves base to source.

    $$\max_{B^\top B = 1} \mathbb{E}\; \pm \big(\mathrm{ld}(h + B B^\top (h_s - h)) \big)$$

    The sign makes the patched run say what the source run says. The orthonormal basis is the Q of
    an unconstrained matrix, trained with Adam.

    - `node`: where; `k`: dimensions. `pos`: the name of a span.

    Returns `Aligned`. Check what it found with `illusion`.

    >>> das(model, prompts, Node("resid_post", 12), pos="S2").basis.shape        # (d_model, 1)
    """
    width = model.axis_size(AXES[node.site][-1])
    if not 1 <= k <= width:
        raise ValueError(f"k={k}: {node} has {width} dimensions; use 1..{width}")
    begin = jax.random.normal(jax.random.key(0) if key is None else key, (width, k), model.dtype)
    first = int(prompts.first_difference().min()) if model.causal else 0
    options = {"direction": direction, "first": first, "node": node, "pos": pos, "steps": steps}
    with jax.default_matmul_precision("highest"):
        return Aligned(*_aligned(model, prompts.arrays(), begin, learning_rate, **options))


@partial(jax.jit, static_argnames=("node", "direction", "first", "pos", "steps"))
def _aligned(model, prompts: Prompts, begin, learning_rate, *, node, direction, first, pos, steps):
    both = _both(model, prompts, node, direction, first)
    where = _mask(model, prompts, node, pos, first)
    toward = -1.0 if direction == "noise" else 1.0

    def loss(raw: Array) -> Array:
        basis = jnp.linalg.qr(raw)[0]
        logits = _edited(model, both, node, where, basis, basis)
        return -toward * logit_difference(logits, both.prompts).mean()

    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry, _):
        raw, state = carry
        value, slope = jax.value_and_grad(loss)(raw)
        update, state = adam.update(slope, state)
        return (raw + update, state), value

    (raw, _), losses = jax.lax.scan(step, (begin, adam.init(begin)), length=steps)
    return jnp.linalg.qr(raw)[0], losses


@dataclasses.dataclass(frozen=True)
class Illusion:
    """How far patching a direction, its parts and the whole node go from base to source.

    - `direction`: v itself. `row`, `null`: the normalised parts of v in the row space of the next
      linear map and in its null space, each patched as a direction of its own. By the algebra null
      is 0 where the map alone reads the node.
    - `whole`: the whole node. `elsewhere`: v on prompts it was not found on, or None.
    - `row_share`: |v_row|^2 / |v|^2.
    """

    direction: Interval
    row: Interval
    null: Interval
    whole: Interval
    elsewhere: Interval | None
    row_share: float

    @property
    def suspected(self) -> bool:
        """v outdoes the whole node, or its parts do nothing that v does: a dormant pathway."""
        parts = max(self.row.value, self.null.value)
        return self.direction.value > max(self.whole.value, 0) + 0.1 or (
            self.direction.value > 0.1 and parts < 0.5 * self.direction.value
        )


def illusion(
    model,
    prompts: Prompts,
    node: Node,
    v: Float[Array, "d"] | np.ndarray,
    *,
    pos: str | None = None,
    direction: Direction = "noise",
    elsewhere: Prompts | None = None,
    metric: Metric = logit_difference,
) -> Illusion:
    """The three checks of a direction: its row and null parts apart, the whole node, other prompts.

    - `node`: at "mlp_post", whose next linear map is W_out, or at "z" of a head (W_O of it).
    - `v`: Float[d]. `elsewhere`: prompts off the distribution on which v was found.

    Raises `ValueError` for other sites: they have no one linear map behind them.

    >>> illusion(model, prompts, Node("mlp_post", 8), das(...).basis[:, 0]).suspected
    """
    weight = _next_map(model, node)
    unit = np.asarray(_orthonormal(model, node, v), np.float64)[:, 0]
    rows = np.linalg.svd(np.asarray(weight, np.float64), full_matrices=False)
    kept = rows[0][:, rows[1] > rows[1].max() * 1e-6]
    in_row = kept @ (kept.T @ unit)
    parts = {"row": in_row, "null": unit - in_row}

    def patched(some: Prompts, vector: np.ndarray) -> Interval:
        return subspace(model, some, node, vector, metric, direction, pos=pos).recovered(0)

    clusters = len(set(np.asarray(prompts.templates).tolist()))
    nothing = Interval(0.0, 0.0, 0.0, len(prompts), clusters)
    found = {
        name: patched(prompts, part) if np.linalg.norm(part) > 1e-6 else nothing
        for name, part in parts.items()
    }
    cell = Cell(node.site, node.layer, () if node.index is None else ((_axis(node), node.index),))
    return Illusion(
        patched(prompts, unit),
        found["row"],
        found["null"],
        patch(model, prompts, [cell], metric, direction, pos=pos).recovered(0),
        None if elsewhere is None else patched(elsewhere, unit),
        float(in_row @ in_row),
    )


def _axis(node: Node) -> str:
    return head_axis(node.site) or ""


def _next_map(model, node: Node) -> Float[Array, "d d_model"]:
    """The one linear map that reads a node."""
    block = take_layer(model.blocks, jnp.asarray(node.layer))
    if node.site == "mlp_post" and block.mlp is not None:
        return block.mlp.w_out
    if node.site == "z" and node.index is not None:
        return block.attn.w_o[node.index]
    raise ValueError(f'{node}: the checks need Node("mlp_post", layer) or Node("z", layer, head)')
