"""`Tail`: the end of prompts, run again with activations replaced, on the keys and values of the
rest.

What comes before the first column that is edited is computed once; an edit at the last position
costs one token. Several components are replaced at once with values computed beforehand, since
edits made one after another drive activations off their distribution (Makelov, Lange & Nanda 2024,
arXiv 2405.08366, appendix A.3). May import `taps` and `tasks`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..taps import AXES, At, Cone, Read, Set, Sites, Start, cone, head_axis, run
from ..tasks import Prompts


@dataclasses.dataclass(frozen=True, order=True)
class Component:
    """An activation at a token role: a site at a layer, of one head if it has heads, at a span.

    >>> str(Component("z", 23, "end", 3))
    'z.23.3@end'
    """

    site: str
    layer: int
    pos: str = "end"
    head: int | None = None

    def __post_init__(self):
        axis = head_axis(self.site)
        if (axis is None) != (self.head is None):
            fix = "give its head" if axis else "leave the head out"
            raise ValueError(f"{self.site}: {fix}, as in Component('z', 23, 'end', 3)")

    def __str__(self) -> str:
        head = "" if self.head is None else f".{self.head}"
        return f"{self.site}.{self.layer}{head}@{self.pos}"

    @classmethod
    def parse(cls, name: str) -> "Component":
        """From its name. Raises `ValueError` for another form.

        >>> Component.parse("resid_post.12@end").layer
        12
        """
        place, _, pos = name.partition("@")
        site, *numbers = place.split(".")
        if not pos or site not in AXES or not 1 <= len(numbers) <= 2:
            raise ValueError(f"{name!r}: write resid_post.12@end, or z.23.3@end with a head")
        return cls(site, int(numbers[0]), pos, *map(int, numbers[1:]))


def width_of(model, component: Component) -> int:
    """How wide a component's activation is."""
    return model.axis_size(AXES[component.site][-1])


class Tail(eqx.Module):
    """The last columns of prompts: where to resume, and what to resume from.

    - `cone`: the columns and the cache before them. `resid`: `resid_pre` of every layer there.
      `spans`: where each span is in those columns.
    """

    cone: Cone
    resid: Float[Array, "layer batch suffix d_model"]
    spans: dict[str, Bool[Array, "batch suffix"]]

    def logits(
        self, model, components: Sequence[Component], values: Sequence[Float[Array, "batch d"]]
    ) -> Float[Array, "batch vocab"]:
        """The last logits with components set to these values, all at once.

        Differentiable in the values. Raises `ValueError` for a span before the tail.

        >>> ends.logits(model, [Component("resid_post", 20)], [edited])
        """
        if not components:
            return _last(model, self)
        table, begin = self._table(model, components, values)
        return _patched(model, self, table, jnp.asarray(begin))

    def _table(self, model, components, values) -> tuple[dict[str, Any], int]:
        """For every site: layers, values and where they go; and the first layer of all."""
        moved = [_as_input(model, component) for component in components]
        table: dict[str, Any] = {}
        for site in dict.fromkeys(component.site for component in moved):
            own = [(c, v) for c, v in zip(moved, values, strict=True) if c.site == site]
            layers = sorted({component.layer for component, _ in own})
            parts = [self._slot(model, site, [x for x in own if x[0].layer == at]) for at in layers]
            value, where = (jnp.stack(side) for side in zip(*parts, strict=True))
            table[site] = jnp.asarray(layers), value, where
        return table, min(component.layer for component in moved)

    def _slot(self, model, site: str, own) -> tuple[Array, Array]:
        """The values of one site at one layer, and where they go."""
        axis, (batch, columns) = head_axis(site), self.cone.tokens.shape
        heads = () if axis is None else (model.axis_size(axis),)
        value = jnp.zeros((batch, columns, *heads, width_of(model, own[0][0])), self.resid.dtype)
        where = jnp.zeros((batch, columns, *heads, 1), bool)
        for component, rows in own:
            at = self._span(component)[:, :, *[None] * len(heads), None]
            if heads:
                at = at & (jnp.arange(*heads) == component.head)[:, None]
            spread = jnp.expand_dims(rows, tuple(range(1, value.ndim - 1)))
            value, where = jnp.where(at, spread, value), where | at
        return value, where

    def _span(self, component: Component) -> Bool[Array, "batch suffix"]:
        if component.pos not in self.spans:
            known = ", ".join(map(repr, self.spans))
            raise ValueError(f"{component}: this tail has {known}; begin it earlier, tail(first=0)")
        return self.spans[component.pos]


def tail(model, prompts: Prompts, first: int | None = None) -> Tail:
    """The end of the prompts from column `first` on (default: the last column alone).

    Runs the prompts once; what is before the column becomes a cache.

    >>> tail(model, prompts).logits(model, [Component("z", 23, "end", 3)], [values])
    """
    length = prompts.clean.shape[1]
    first = length - 1 if first is None else first
    spans = {name: np.asarray(span) for name, span in prompts.spans.items()}
    kept = {
        name: jnp.asarray(span[:, first:])
        for name, span in spans.items()
        if not span[:, :first].any()
    }
    if first == length - 1:
        kept.setdefault("end", jnp.ones((len(prompts), 1), bool))
    found = _begun(model, prompts.clean, prompts.mask, first)
    return Tail(*found, kept)


@eqx.filter_jit
def _begun(model, tokens, mask, first: int) -> tuple[Cone, Array]:
    found = cone(model, tokens, mask, first)
    _, records = found.run(model, Sites(resid_pre=Read()), layers=model.n_layers)
    return found, records.resid_pre


@jax.jit
def _last(model, ends: Tail) -> Float[Array, "batch vocab"]:
    start = Start(ends.resid[model.n_layers - 1], jnp.asarray(model.n_layers - 1))
    return ends.cone.run(model, start=start, logits_at=-1)[0]


@jax.jit
def _patched(model, ends: Tail, table: dict[str, Any], begin: Array) -> Array:
    edits = {site: At(layers, Set(value, where)) for site, (layers, value, where) in table.items()}
    resid = jax.lax.dynamic_index_in_dim(ends.resid, begin, 0, keepdims=False)
    start = Start(resid, begin)
    return ends.cone.run(model, Sites(**edits), start=start, logits_at=-1)[0]


def _as_input(model, component: Component) -> Component:
    """The same activation as what the next block reads, where it is: one block less to run."""
    if component.site != "resid_post" or component.layer == model.n_layers - 1:
        return component
    return dataclasses.replace(component, site="resid_pre", layer=component.layer + 1)


def first_column(prompts: Prompts, components: Sequence[Component]) -> int:
    """The first column that any of the components' spans has in any prompt."""
    spans = [np.asarray(prompts.span(component.pos)) for component in components]
    return int(min(span.any(axis=0).argmax() for span in spans))


def narrow(model, ids: Int[np.ndarray, "candidate"]):
    """The model with the logits of some tokens alone: what is asked of them costs no vocabulary.

    For runs that begin at a layer or that keep their tokens: the embedding stays as it is.

    >>> run(narrow(model, ids), tokens, logits_at=-1)[0].shape           # (batch, len(ids))
    """
    at = jnp.asarray(ids)
    rows = model.embed[at].T if model.unembed is None else model.unembed[:, at]
    bias = None if model.unembed_bias is None else model.unembed_bias[at]
    return dataclasses.replace(model, unembed=rows, unembed_bias=bias)


def activations(
    model, prompts: Prompts, components: Sequence[Component], *, batch: int = 64
) -> list[Float[Array, "example d"]]:
    """What the components carry in the clean prompts, one array each.

    Raises `ValueError` for a span of more or fewer than one column.

    >>> (x,) = activations(model, prompts, [Component("resid_post", 12)])
    """
    for component in components:
        _check_head(model, component)
    roles = tuple(dict.fromkeys(component.pos for component in components))
    columns = np.stack([_column_of(prompts, pos) for pos in roles], axis=1)
    sites = tuple(dict.fromkeys(component.site for component in components))
    layers = {site: sorted({c.layer for c in components if c.site == site}) for site in sites}
    stop = 1 + max(map(max, layers.values()))
    found: list[list[Array]] = [[] for _ in components]
    width = min(batch, len(prompts))
    for rows in prompts.batches(width):
        some = jnp.asarray(columns[rows])
        pos = {site: jnp.stack([some] * len(layers[site])) for site in sites}
        edits = {s: At(jnp.asarray(layers[s]), Read(pos[s])) for s in sites}
        tokens, mask = prompts.clean[rows], prompts.mask[rows]
        _, records = run(model, tokens, Sites(**edits), mask=mask, layers=stop)
        for i, c in enumerate(components):
            x = getattr(records, c.site)[layers[c.site].index(c.layer), :, roles.index(c.pos)]
            found[i].append(x if c.head is None else x[:, c.head])
    return [jnp.concatenate(parts)[: len(prompts)] for parts in found]


def _check_head(model, component: Component) -> None:
    """A head that is not there would be clamped to the last one."""
    axis = head_axis(component.site)
    if axis is not None and not 0 <= (component.head or 0) < model.axis_size(axis):
        raise ValueError(f"{component}: this model has the heads 0..{model.axis_size(axis) - 1}")


def _column_of(prompts: Prompts, pos: str) -> Int[np.ndarray, "example"]:
    span = np.asarray(prompts.span(pos))
    if (span.sum(axis=1) != 1).any():
        raise ValueError(f"the span {pos!r} must be one column in every prompt: use another")
    return span.argmax(axis=1)
