"""`propagate`: an observable pulled back along a path of heads and MLPs to the stream.

Dunefsky & Cohan 2023 (arXiv 2312.16291), section 2, "general algorithm": from the last sublayer to
the first, the transpose of each (an MLP's gradient), then of the norm before it. Two routes, by
weights and by `jax.vjp` of the run with patterns and scales held by edits, give the same. May
import `nn` and `taps`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..nn import AbstractNorm
from ..taps import Node, Sites, Taps, take_layer
from . import _linear
from ._by_vjp import final_slope, head_slope, mlp_slope
from ._feature import Feature, Norms, Provenance
from ._linear import Vector
from ._observable import Observable
from ._paths import Step, path_of
from ._point import Point, Segment

Route = Literal["weights", "vjp"]
MLPPoint = Segment | Float[Array, "d_model"] | Float[Array, "layer d_model"]


class Read(NamedTuple):
    """A norm at one place: its module, its input there, and its scale (1 where there is no
    point)."""

    norm: AbstractNorm | None
    x: Vector
    scale: Array


def propagate(
    model,
    observable: Observable,
    path: Sequence[Step] | Step = (),
    norms: Norms = "direction",
    *,
    point: Point | None = None,
    source: int = -1,
    mlp_point: MLPPoint | None = None,
    route: Route = "weights",
) -> Feature:
    r"""What the first node of a path reads of the stream for an observable of the logits.

    $$y = N_1^\top W_{OV,1}^\top \cdots N_k^\top W_{OV,k}^\top N_f^\top W_U^\top n$$

    Patterns are held at 1, so a contribution is pattern * (y . x). Norms keep their gains always.

    - `path`: nodes or names ("23.3", "mlp 5"), from the stream to the logits; a node's `pos` is the
      column at which it writes (default: the last), `source` the column that the first head reads.
    - `norms`: "direction" passes norms by their gain alone and needs no data; "frozen" divides by
      the scale they have at the point; "gradient" takes their whole gradient there (that of a norm
      behind attention stays frozen).
    - `point`: of one prompt, for the latter two. `mlp_point`: where an MLP is linearised,
      Float[d_model] behind its norm (or one a layer), or a segment on which to find the
      observable's zero (default: the point itself).
    - `route`: by weights, or by `jax.vjp` of the run.

    Returns `Feature`. Raises `ValueError` for a path that goes backwards, a missing point, or a
    segment on which the observable has one sign.

    >>> propagate(model, pronoun, ["13.3", "17.14"]).vector
    """
    nodes = path_of(model, path)
    _check(model, nodes, norms, point, mlp_point, route)
    with jax.default_matmul_precision("highest"):
        walk = _Walk(model, observable, nodes, norms, point, source, mlp_point, route)
        vector, offset = walk.back()
    origin = Provenance(model.config.name, model.config.sha256, route, _words(point, source))
    return Feature(vector, offset, nodes, norms, observable, origin)


def _check(model, nodes, norms: str, point, mlp_point, route: str) -> None:
    if norms not in ("direction", "frozen", "gradient") or route not in ("weights", "vjp"):
        raise ValueError(
            'propagate(..., norms="direction", "frozen" or "gradient", route="weights" or "vjp")'
        )
    if norms != "direction" and point is None:
        raise ValueError(
            f'norms="{norms}" needs a prompt: propagate(..., point=point_of(model, tokens))'
        )
    if any(node.site == "mlp_out" for node in nodes) and point is None and mlp_point is None:
        raise ValueError(
            "an MLP needs a point: propagate(..., mlp_point=segment_of(model, positive, negative))"
        )
    width = model.axis_size("d_model")
    if mlp_point is not None and not isinstance(mlp_point, Segment):
        if jnp.shape(mlp_point) not in ((width,), (model.n_layers, width)):
            raise ValueError(
                f"mlp_point is Float[{width}], or Float[{model.n_layers} {width}] by layer, not"
                f" {jnp.shape(mlp_point)}"
            )


def _words(point: Point | None, source: int) -> str:
    return "" if point is None else f"{point.tokens.tolist()}, source {source}"


class _Walk:
    """One walk from the logits to the stream."""

    def __init__(self, model, observable, nodes, norms, point, source, mlp_point, route):
        self.model, self.observable, self.nodes = model, observable, nodes
        self.norms, self.point, self.source = norms, point, source
        self.mlp_point, self.route = mlp_point, route

    def back(self) -> tuple[Vector, Float[Array, ""]]:
        """The vector and the offset of the whole path."""
        end = -1 if not self.nodes or self.nodes[-1].pos is None else int(self.nodes[-1].pos)
        y, offset = self._final(end)
        for i, node in reversed(list(enumerate(self.nodes))):
            before = self.nodes[i - 1].pos if i else self.source
            reads = -1 if before is None else int(before)
            writes = -1 if node.pos is None else int(node.pos)
            step = self._head if node.site == "z" else self._mlp
            y, offset = step(node, reads, writes, y)
        return y, offset

    def _final(self, end: int) -> tuple[Vector, Float[Array, ""]]:
        logits = None
        if self.norms != "direction" and self.point is not None:
            logits = self.point.logits[end]
        u = self.observable.direction(self.model, logits)
        still = self.observable.constant(self.model, logits)
        read = self._read(self.model.final_norm, "final_resid", None, end)
        if self.route == "vjp":
            y = final_slope(self.model, self.observable, self.norms, self.point, end)
        else:
            y = self._through(read, u)
        return y, self._offset(read, y, still + u @ self._normed(read))

    def _head(self, node: Node, reads: int, writes: int, y: Vector) -> tuple[Vector, Array]:
        assert node.index is not None
        block, attn = take_layer(self.model.blocks, jnp.asarray(node.layer)), self.model.blocks.attn
        read = self._read(block.attn_norm, "attn_in", node.layer, reads)
        scale = self._scale("attn_post_scale", node.layer, writes)
        behind = _linear.through_gain(block.attn_post_norm, y) / scale
        pulled = _linear.head_pull(attn, node.layer, node.index, behind)
        if self.route == "vjp":
            vector = head_slope(self.model, node, reads, writes, y, self.norms, self.point)
        else:
            vector = self._through(read, pulled)
        bias = jnp.zeros((), y.dtype)
        if attn.b_v is not None:
            group = attn.w_q.shape[-2] // attn.w_v.shape[-2]
            own = attn.b_v[node.layer, node.index // group]
            bias = own @ (attn.w_o[node.layer, node.index] @ behind)
        return vector, self._offset(read, vector, pulled @ self._normed(read) + bias)

    def _mlp(self, node: Node, reads: int, writes: int, y: Vector) -> tuple[Vector, Array]:
        if reads != writes and node != self.nodes[0]:
            raise ValueError(
                f"{node} writes at {writes} what is read at {reads}: an MLP stays where it is, give"
                " both nodes the same pos"
            )
        block, mlp = take_layer(self.model.blocks, jnp.asarray(node.layer)), self.model.blocks.mlp
        shared = block.attn_norm if self.model.blocks.parallel else None
        norm = shared if block.mlp_norm is None else block.mlp_norm
        read = self._read(norm, "mlp_in", node.layer, writes)
        layer = jnp.asarray(node.layer)
        x = self._mlp_x(node, layer, writes, self._behind_mlp(block, node, writes, y, None))
        behind = self._behind_mlp(block, node, writes, y, x)
        pulled = _linear.mlp_pull(mlp, layer, behind, x)
        if self.route == "vjp":
            vector = mlp_slope(self.model, node, writes, y, x, self.norms, self.point)
        else:
            vector = self._through(read, pulled)
        at_x = _linear.mlp_value(mlp, layer, behind, x) - pulled @ x
        return vector, self._offset(read, vector, pulled @ self._normed(read) + at_x)

    def _behind_mlp(self, block, node: Node, writes: int, y: Vector, x: Vector | None) -> Vector:
        """y behind the MLP's post-norm; its sign along a segment does not depend on the scale."""
        norm = block.mlp_post_norm
        if norm is None or self.norms != "gradient" or x is None:
            gained = _linear.through_gain(norm, y)
            return gained / self._scale("mlp_post_scale", node.layer, writes)
        return _linear.through_norm(norm, y, _mlp_out(self.model, node.layer, x))

    def _mlp_x(self, node: Node, layer, pos: int, y: Vector) -> Vector:
        """Where the MLP is linearised."""
        if isinstance(self.mlp_point, Segment):
            low, high = self.mlp_point.low[node.layer], self.mlp_point.high[node.layer]
            x, ends = _linear.mlp_root(self.model.blocks.mlp, layer, y, low, high)
            if not ends[0] * ends[1] < 0:
                raise ValueError(
                    f"{self.observable.name} has one sign on the segment at {node}"
                    f" ({float(ends[0]):.3g} to {float(ends[1]):.3g}): give two examples that"
                    " differ, mlp_point=segment_of(model, positive, negative), or a point"
                )
            return x
        if self.mlp_point is not None:
            x = jnp.asarray(self.mlp_point, self.model.dtype)
            return x if x.ndim == 1 else x[node.layer]
        assert self.point is not None
        return self.point.seen.mlp_normed[node.layer, pos]

    def _read(self, norm, site: str, layer: int | None, pos: int) -> Read:
        if self.norms == "direction" or self.point is None:
            zero = jnp.zeros(self.model.axis_size("d_model"), self.model.dtype)
            return Read(norm, zero, jnp.ones((), zero.dtype))
        stream = getattr(self.point.seen, site)
        x = stream[pos] if layer is None else stream[layer, pos]
        return Read(norm, x, jnp.ones(()) if norm is None else norm.scale(x)[0])

    def _scale(self, site: str, layer: int, pos: int) -> Array:
        """The scale of a post-norm; 1 without one, and where there is no point."""
        held = None if self.point is None else getattr(self.point.seen, site)
        if held is None or self.norms == "direction":
            return jnp.ones((), self.model.dtype)
        return held[layer, pos, 0].astype(self.model.dtype)

    def _through(self, read: Read, y: Vector) -> Vector:
        """y in front of a norm."""
        if self.norms == "gradient":
            return _linear.through_norm(read.norm, y, read.x)
        return (_linear.through_gain(read.norm, y) / read.scale).astype(y.dtype)

    def _normed(self, read: Read) -> Vector:
        """The norm's output at the origin of the expansion: its point for a gradient, else 0."""
        x = read.x if self.norms == "gradient" else jnp.zeros_like(read.x)
        return x if read.norm is None else read.norm.apply(x, read.scale)

    def _offset(self, read: Read, vector: Vector, value: Array) -> Float[Array, ""]:
        """What is left at the origin of the stream."""
        return value - vector @ read.x if self.norms == "gradient" else value


def _mlp_out(model, layer: int, x: Vector) -> Vector:
    return take_layer(model.blocks.mlp, jnp.asarray(layer))(x[None, None], Taps(Sites()))[0, 0]
