"""Edits: rewrites of one activation. The dial of every method in the library.

An edit maps an activation x to (what flows on, what is recorded). In a table its array leaves lead
with a layer axis, and `at_layer` hands out one layer's slice; scalars serve every layer.
May import `jaxcirc._types` only.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Shaped

from .._types import Record


def take_layer(tree: PyTree, layer: Int[Array, ""]) -> PyTree:
    """One layer of a stacked pytree, by a gather that copies that layer alone."""

    def take(leaf):
        return leaf if jnp.ndim(leaf) == 0 else lax.dynamic_index_in_dim(leaf, layer, 0, False)

    return jax.tree.map(take, tree)


def _leafwise(part: PyTree, x: PyTree[Array]) -> PyTree:
    """`part` for every leaf of x: its own leaves if it has x's structure, else itself for each."""
    same = jax.tree.structure(part) == jax.tree.structure(x)
    return part if same else jax.tree.map(lambda _: part, x)


def _same(edited: Array, x: Array) -> Array:
    """The edited activation, which must have kept its shape."""
    if edited.shape != x.shape:
        raise ValueError(
            f"an edit would turn shape {x.shape} into {edited.shape}: its value and mask must"
            " broadcast against the activation (with logits_at= only the scored columns are there;"
            ' in generate, edits by position need during="prompt")'
        )
    return edited


class AbstractEdit(eqx.Module):
    """A rewrite of one activation: `edit(x) -> (x', record)`."""

    @abc.abstractmethod
    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        """The activation that flows on, and what is recorded of the one that came in."""

    def at_layer(self, layer: Int[Array, ""]) -> "AbstractEdit":
        """The edit of one layer, where array leaves lead with a layer axis."""
        return take_layer(self, layer)

    def check(self, n_layers: int) -> None:
        """Raise `ValueError` for a leaf that does not lead with an axis of `n_layers`."""
        for leaf in jax.tree.leaves(self):
            if jnp.ndim(leaf) > 0 and jnp.shape(leaf)[0] != n_layers:
                raise ValueError(
                    f"an array of shape {jnp.shape(leaf)} in {type(self).__name__} needs {n_layers}"
                    " in front, one entry a layer: for one value at all layers, or at some, say"
                    ' resolve(at("resid_post", layer=3).add(value), model)'
                )

    def alone(self) -> tuple[int, ...]:
        """Layers at which the edit has a structure of its own, so that a run must split there."""
        return ()

    def segment(self, low: int) -> "AbstractEdit":
        """The edit that serves the segment of layers beginning at `low`."""
        return self

    def join(self, records: list[tuple[int, Record]]) -> Record:
        """The record of the whole run from those of its segments, (first layer, record) each."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *(part for _, part in records))


class Read(AbstractEdit):
    """Record the activation and let it pass: x -> (x, x).

    `pos` (Int[layer batch n], optional) records those positions only, along the axis after batch.
    """

    pos: Int[Array, "*layer batch n"] | None = None

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        return x, x if self.pos is None else jax.tree.map(self._gather, x)

    def _gather(self, x: Array) -> Array:
        index = jnp.expand_dims(jnp.asarray(self.pos), tuple(range(2, x.ndim)))
        return jnp.take_along_axis(x, index, axis=1)


class Set(AbstractEdit):
    """Replace the chosen cells: x -> where(where, value, x). Records nothing.

    `value` and `where` (boolean) broadcast against x behind their layer axis. If x is a pytree (a
    dictionary's `Code`), each is one for all leaves, or has x's structure. `lazy`: a layer whose
    every cell is replaced does not compute x at all (sites "z" and "mlp_out"), and what would be
    read on the way to x is zero there.
    """

    value: PyTree[Shaped[ArrayLike, "..."]]
    where: PyTree[Bool[ArrayLike, "..."]] = True
    lazy: bool = eqx.field(static=True, default=False)

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        def put(x, value, where):
            return _same(jnp.where(where, jnp.asarray(value, x.dtype), x), x)

        return jax.tree.map(put, x, _leafwise(self.value, x), _leafwise(self.where, x)), None

    def whole(self) -> Bool[Array, ""]:
        """Whether every cell is replaced."""
        return jnp.stack([jnp.all(where) for where in jax.tree.leaves(self.where)]).all()


class Add(AbstractEdit):
    """Add to the chosen cells: x -> x + where * value. Records nothing. Broadcasts like `Set`."""

    value: PyTree[Float[ArrayLike, "..."]]
    where: PyTree[Bool[ArrayLike, "..."]] = True

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        def add(x, value, where):
            return _same(jnp.where(where, x + jnp.asarray(value, x.dtype), x), x)

        return jax.tree.map(add, x, _leafwise(self.value, x), _leafwise(self.where, x)), None


class Mix(AbstractEdit):
    """The dial: x -> (1 - alpha) x + alpha value. Records x. Broadcasts like `Set`.

    Written this way alpha = 1 gives `value` to the bit; x + alpha (value - x) does not.
    """

    value: PyTree[Float[ArrayLike, "..."]]
    alpha: PyTree[Float[ArrayLike, "..."]]

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        def mix(x, value, alpha):
            alpha = jnp.asarray(alpha, x.dtype)
            return _same((1 - alpha) * x + alpha * jnp.asarray(value, x.dtype), x)

        return jax.tree.map(mix, x, _leafwise(self.value, x), _leafwise(self.alpha, x)), x


class Stop(AbstractEdit):
    """The identity in value with no gradient through the chosen cells. Records nothing."""

    where: PyTree[Bool[ArrayLike, "..."]] = True

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        def stop(x, where):
            return jnp.where(where, lax.stop_gradient(x), x)

        return jax.tree.map(stop, x, _leafwise(self.where, x)), None


class Chain(AbstractEdit):
    """Several edits of one activation, first to last. Records the tuple of their records."""

    edits: tuple[AbstractEdit, ...]

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        records = []
        for edit in self.edits:
            x, record = edit(x)
            records.append(record)
        return x, tuple(records)

    def at_layer(self, layer: Int[Array, ""]) -> AbstractEdit:
        return Chain(tuple(edit.at_layer(layer) for edit in self.edits))

    def check(self, n_layers: int) -> None:
        for edit in self.edits:
            edit.check(n_layers)

    def alone(self) -> tuple[int, ...]:
        return tuple(layer for edit in self.edits for layer in edit.alone())

    def segment(self, low: int) -> AbstractEdit:
        return Chain(tuple(edit.segment(low) for edit in self.edits))

    def join(self, records: list[tuple[int, Record]]) -> Record:
        def nth(i):
            return [(low, record[i]) for low, record in records]

        return tuple(edit.join(nth(i)) for i, edit in enumerate(self.edits))


class At(AbstractEdit):
    """An edit at some layers, which may be traced; its leaves lead with a slot axis.

    What it reads lands in a buffer with the slot axis in front. The other layers pay for one
    `lax.cond`. Layers in one `At` must differ; one outside the model never fires.
    """

    layers: Int[Array, "slot"]
    edit: AbstractEdit

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        raise TypeError("`At` acts in the per-layer table of `run`, not at `embed` or `logits`")

    def at_layer(self, layer: Int[Array, ""]) -> AbstractEdit:
        layers = jnp.asarray(self.layers)
        hits = layers == layer
        slot = jnp.argmax(hits)
        return _Slot(jnp.any(hits), slot, self.edit.at_layer(slot), layers.shape[0])

    def check(self, n_layers: int) -> None:
        self.edit.check(jnp.shape(self.layers)[0])

    def join(self, records: list[tuple[int, Record]]) -> Record:
        # A slot is filled in one segment and zero in the others.
        return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *(part for _, part in records))


class ByLayer(AbstractEdit):
    """Edits of different structure at different layers (a dictionary at some layers only).

    `layers` is static; `edits[i]` acts at `layers[i]` and has no layer axis. Records a dictionary
    from layer to record. The run splits its stack there; layers not named run no edit at all.
    """

    edits: tuple[AbstractEdit, ...]
    layers: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        raise TypeError("`ByLayer` acts in the per-layer table of `run`")

    def __check_init__(self):
        if len(self.layers) != len(self.edits) or len(set(self.layers)) != len(self.layers):
            raise ValueError(
                "ByLayer needs one edit per layer: ByLayer((edit, edit), layers=(3, 7))"
            )

    def check(self, n_layers: int) -> None:
        for layer in self.layers:
            if not 0 <= layer < n_layers:
                raise ValueError(f"ByLayer: layer {layer} is out of range, use 0..{n_layers - 1}")

    def alone(self) -> tuple[int, ...]:
        return self.layers

    def segment(self, low: int) -> AbstractEdit:
        return _Fixed(self.edits[self.layers.index(low)] if low in self.layers else _Pass())

    def join(self, records: list[tuple[int, Record]]) -> Record:
        found = {low: record for low, record in records if low in self.layers}
        return {low: jax.tree.map(lambda leaf: leaf[0], found[low]) for low in found}


class SlotRecord(eqx.Module):
    """What a slot saw at the present layer; the run gathers these into buffers."""

    value: Record
    hit: Bool[Array, ""]
    slot: Int[Array, ""]
    n_slots: int = eqx.field(static=True)


class _Slot(AbstractEdit):
    hit: Bool[Array, ""]
    slot: Int[Array, ""]
    edit: AbstractEdit
    n_slots: int = eqx.field(static=True)

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        _, shapes = jax.eval_shape(self.edit, x)

        def skip(edit, x):
            return x, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        x, record = lax.cond(self.hit, lambda edit, x: edit(x), skip, self.edit, x)
        return x, SlotRecord(record, self.hit, self.slot, self.n_slots)


class _Fixed(AbstractEdit):
    edit: AbstractEdit

    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        return self.edit(x)

    def at_layer(self, layer: Int[Array, ""]) -> AbstractEdit:
        return self.edit


class _Pass(AbstractEdit):
    def __call__(self, x: PyTree[Array]) -> tuple[PyTree[Array], Record]:
        return x, None
