"""Path patching: what a sender tells some receivers, with all else left as it was.

Wang et al. 2022 (arXiv 2211.00593), appendix B; Goldowsky-Dill et al. 2023 (arXiv 2304.05969). A
first run, everything frozen but the sender, finds by how much each receiver's input moves; in a
second run that is added to what the receivers alone read. May import `taps`, `tasks`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Direction
from ..taps import AXES, OUTER, Add, Cone, Node, Read, Set, Sites, cone, head_axis
from ..tasks import Metrics, Prompts, ends, logit_difference, name_metrics, with_reference
from ._effects import per_node

Through = Literal["nothing", "mlps"]

READERS = {
    "q": ("q_in",),
    "k": ("k_in",),
    "v": ("v_in",),
    "z": ("q_in", "k_in", "v_in"),
    "mlp_out": ("mlp_in",),
    "logits": ("final_resid",),
}
"""What each kind of receiver reads."""

_LINEAR = {"q_in": "q", "k_in": "k", "v_in": "v", "mlp_in": "mlp_normed", "final_resid": "logits"}
"""Where the linear shortcut adds instead: behind the reader's frozen norm."""

_SCALES = ("attn_norm_scale", "mlp_norm_scale", "final_norm_scale")
_WIDTH = 8  # senders in one compiled call


def path(
    model,
    prompts: Prompts,
    senders: Sequence[Node | Sequence[Node]],
    receivers: Sequence[Node],
    metric=logit_difference,
    direction: Direction = "noise",
    *,
    through: Through = "nothing",
    precision: str = "highest",
    batch: int = 32,
) -> Any:
    """Path patching from each sender to a set of receivers, by exact re-evaluation.

    The receivers read their input moved by what the sender's change does to it; all else runs on.
    To all later receivers and the logits it is the sender's activation patch.

    - `senders`: nodes at "z", "mlp_out" or "attn_out", each taken by itself (a sequence of them:
      together). `receivers`: `Node("q", layer, head)`, "k" and "v" (by key/value head), "z" (all
      three), "mlp_out", and `Node("logits", 0)`.
    - `through`: "nothing" leaves the direct path, attention and MLPs frozen in between; "mlps"
      freezes attention alone.

    Returns `Effects` with axes ("example", "node"), one for each sender, or a dictionary of them.
    Raises `ValueError` for nodes that cannot send or receive.

    >>> path(model, prompts, [Node("z", 7, 3)], [Node("q", 9, 6), Node("q", 9, 9)]).mean()
    """
    return _paths(model, prompts, senders, receivers, metric, direction, through, precision, batch)


def path_linear(
    model,
    prompts: Prompts,
    senders: Sequence[Node | Sequence[Node]],
    receivers: Sequence[Node],
    metric=logit_difference,
    direction: Direction = "noise",
    *,
    through: Through = "nothing",
    precision: str = "highest",
    batch: int = 32,
) -> Any:
    """`path` with the receivers' norms frozen too: what a sender adds goes through them linearly.

    The usual shortcut. It leaves out that a change of the input changes the norm's denominator.

    >>> path_linear(model, prompts, [Node("z", 7, 3)], [Node("q", 9, 6)]).mean()
    """
    frozen = True
    return _paths(
        model, prompts, senders, receivers, metric, direction, through, precision, batch, frozen
    )


def _paths(
    model, prompts, senders, receivers, metric, direction, through, precision, batch, linear=False
):
    if through not in ("nothing", "mlps"):
        raise ValueError(f'through={through!r}: use through="nothing" or through="mlps"')
    groups = [(one,) if isinstance(one, Node) else tuple(one) for one in senders]
    if not groups or not all(groups) or not receivers:
        example = 'path(model, prompts, [Node("z", 7, 3)], [Node("q", 9, 6)])'
        raise ValueError(f"path needs senders and receivers: {example}")
    reads = _reads(model, receivers, linear)
    metrics = name_metrics(metric)
    sends = [
        _sends(model, groups[i : i + _WIDTH], min(_WIDTH, len(groups)))
        for i in range(0, len(groups), _WIDTH)
    ]
    first = int(prompts.first_difference().min()) if model.causal else 0
    parts = []
    with jax.default_matmul_precision(precision):
        for rows in prompts.batches(batch):
            chunk = prompts.take(rows).arrays()
            options = {"first": first, "heard": tuple(s for s, _ in reads.items())}
            ends = _both(model, chunk, **options, direction=direction, metrics=metrics)
            found = [_sent(model, ends, s, reads, through=through, metrics=metrics) for s in sends]
            raw = {
                n: jnp.concatenate([one[n] for one in found])[: len(groups)].T for n, _ in metrics
            }
            parts.append((raw, ends.base_value, ends.source_value))
    raw, base, source = jax.tree.map(lambda *xs: jnp.concatenate(xs)[: len(prompts)], *parts)
    return per_node(raw, base, source, prompts, metric, direction, "paths")


class _Ends(eqx.Module):
    """Base and source of a batch: the base's records `here`, and the source's of the senders."""

    cone: Cone
    here: Sites
    there: Sites
    prompts: Prompts
    base_value: dict[str, Float[Array, "batch"]]
    source_value: dict[str, Float[Array, "batch"]]


@partial(jax.jit, static_argnames=("first", "heard", "metrics", "direction"))
def _both(
    model,
    prompts: Prompts,
    *,
    first: int,
    heard: tuple[str, ...],
    metrics: Metrics,
    direction: Direction,
) -> _Ends:
    base, source = ends(prompts, direction)
    suffix = cone(model, base.tokens, prompts.mask, first, base.added)
    writes = Sites(**{site: Read() for site in _writers(model)})
    scales = [
        site for site in _SCALES if site in model.sites() and set(heard) & set(_LINEAR.values())
    ]
    at_source, there = suffix.of(*source).run(model, writes, logits_at=-1)
    norms = Sites(**{site: Read() for site in scales})
    at_base, here = suffix.run(model, writes | norms, logits_at=-1)
    prompts = with_reference(prompts, at_base if direction == "noise" else at_source)
    return _Ends(
        suffix,
        here,
        there,
        prompts,
        {name: metric(at_base, prompts) for name, metric in metrics},
        {name: metric(at_source, prompts) for name, metric in metrics},
    )


@partial(jax.jit, static_argnames=("metrics", "through"))
def _sent(
    model, both: _Ends, sends: Sites, reads: Sites, *, metrics: Metrics, through: Through
) -> dict[str, Float[Array, "sender batch"]]:
    """metric(sent) - metric(nothing sent) for every sender; the last one is nothing, left out."""
    stages = {site: _stage(model, site) for site, _ in reads.items()}
    scales = {site: Set(x) for site, x in both.here.items() if site in _SCALES}
    streams = all(stage.startswith(("resid", "final")) for stage in stages.values())

    def inputs(where: Sites) -> Sites:
        frozen = _frozen(both, where, through, lazy=streams) | Sites(**scales)
        listen = Sites(**{site: Read() for site in set(stages.values())})
        return both.cone.run(model, frozen | listen, logits_at=-1)[1]

    heard = jax.vmap(inputs)(sends)
    delta = jax.tree.map(lambda x: x - x[-1], heard)

    def one(delta: Sites) -> Float[Array, "batch vocab"]:
        def add(site: str, mask: Array) -> Add:
            moved = getattr(delta, stages[site])
            return Add(
                moved[:, :, :, None] if head_axis(site) and site.endswith("_in") else moved, mask
            )

        edits = Sites(**{site: add(site, mask) for site, mask in reads.items()})
        return both.cone.run(model, edits, logits_at=-1)[0]

    logits = jax.vmap(one)(delta)
    values = {name: jax.vmap(lambda x, f=f: f(x, both.prompts))(logits) for name, f in metrics}
    return {name: value[:-1] - value[-1] for name, value in values.items()}


def _stage(model, site: str) -> str:
    """Where the stream that a reader reads is seen; the linear sites are read themselves."""
    if site in ("q_in", "k_in", "v_in"):
        return "resid_pre"
    if site == "mlp_in":
        return "resid_mid" if "resid_mid" in model.sites() else "resid_pre"
    return site


def _writers(model) -> list[str]:
    return [site for site in ("z", "attn_out", "mlp_out") if site in model.sites()]


def _frozen(both: _Ends, where: Sites, through: Through, lazy: bool) -> Sites:
    """Everything as in the base run but the senders, which write what they write in the source."""

    def mixed(site: str) -> Array:
        own, value = getattr(both.here, site), getattr(both.there, site)
        return jnp.where(getattr(where, site), value, own)

    edits = Sites(z=Set(mixed("z"), lazy=lazy), attn_out=Set(both.there.attn_out, where.attn_out))
    if where.mlp_out is None:
        return edits
    live = through == "mlps"
    mlp = Set(both.there.mlp_out, where.mlp_out) if live else Set(mixed("mlp_out"), lazy=lazy)
    return edits | Sites(mlp_out=mlp)


def _sends(model, groups: Sequence[tuple[Node, ...]], width: int) -> Sites:
    """Which cells each sender sets, Bool[sender layer batch pos ...], filled up to `width` and
    followed by one that sets nothing."""
    sites = _writers(model)
    sizes = {site: model.axis_size("head") if site == "z" else 1 for site in sites}
    where = {s: np.zeros((width + 1, model.n_layers, 1, 1, n), bool) for s, n in sizes.items()}
    for row, group in enumerate(groups):
        for node in group:
            if node.site not in where:
                raise ValueError(f"{node}: senders are nodes at {', '.join(map(repr, sites))}")
            head = slice(None) if node.index is None else _within(model, node)
            where[node.site][row, _layer(model, node), ..., head] = True
    where["z"] = where["z"][..., None]
    return Sites(**{site: jnp.asarray(mask) for site, mask in where.items()})


def _reads(model, receivers: Sequence[Node], linear: bool) -> Sites:
    """Which readers hear: Bool[layer batch pos ...] per site, without the layer outside it."""
    where: dict[str, Bool[np.ndarray, ...]] = {}
    for node in receivers:
        if node.site not in READERS or (node.site == "mlp_out" and "mlp_out" not in model.sites()):
            raise ValueError(f"{node}: receivers are nodes at {', '.join(map(repr, READERS))}")
        for reader in READERS[node.site]:
            site = _LINEAR[reader] if linear else reader
            axes, axis = AXES[site], head_axis(site)
            sizes = [model.axis_size(a) if a == axis else 1 for a in axes]
            lead = () if site in OUTER else (model.n_layers,)
            mask = where.setdefault(site, np.zeros((*lead, *sizes), bool))
            index: list[Any] = [slice(None)] * len(axes)
            if axis is not None and node.index is not None:
                index[axes.index(axis)] = _reader(model, node, axis)
            mask[(*[_layer(model, node) for _ in lead], *index)] = True
    return Sites(**{site: jnp.asarray(mask) for site, mask in where.items()})


def _reader(model, node: Node, axis: str) -> int:
    """A receiver's head, or the key/value head that a query head reads."""
    head = _within(model, node)
    if node.site == "z" and axis == "kv_head":
        return head // (model.axis_size("head") // model.axis_size("kv_head"))
    return head


def _within(model, node: Node) -> int:
    axis = head_axis(node.site)
    size = 0 if axis is None else model.axis_size(axis)
    if node.index is None or not 0 <= node.index < size:
        raise ValueError(f"{node}: {node.site!r} has {size} heads")
    return node.index


def _layer(model, node: Node) -> int:
    if not 0 <= node.layer < model.n_layers:
        raise ValueError(f"{node}: layer out of range, use 0..{model.n_layers - 1}")
    return node.layer
