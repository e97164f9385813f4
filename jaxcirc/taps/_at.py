"""`at(...)`: what a user says about an edit; `resolve` turns it into the table that `run` takes.

    at("z", layer=23, head=3, pos="S2").set(0) | at("mlp_out", layer=5).mix(v, 0.5)

May import the edits, the sites and numpy; prompts are anything with `clean` and `span(name)`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._edit import AbstractEdit, Add, At, Mix, Read, Set, Stop
from ._sites import AXES, OUTER, Sites, parse_site

Choice = int | Sequence[int] | np.ndarray | None
Place = int | str | Sequence[int] | np.ndarray | None


@runtime_checkable
class HasSpans(Protocol):
    """Prompts as `resolve` needs them."""

    @property
    def clean(self) -> Any: ...
    def span(self, name: str) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Edits:
    """Unresolved edits, in order; `|` puts more behind them."""

    specs: tuple[tuple["Where", str, tuple], ...]

    def __or__(self, other: "Edits") -> "Edits":
        return Edits(self.specs + other.specs)


@dataclasses.dataclass(frozen=True, eq=False)
class Where:
    """Chosen cells of a site, waiting for a verb: `set`, `add`, `mix`, `stop` or `read`."""

    site: str
    layer: Choice = None
    head: Choice = None
    pos: Place = None
    index: Choice = None
    dest: Place = None
    src: Place = None

    def set(self, value: Any) -> Edits:
        """Replace the cells by `value` (broadcast against the activation)."""
        return Edits(((self, "set", (value,)),))

    def add(self, value: Any) -> Edits:
        """Add `value` to the cells."""
        return Edits(((self, "add", (value,)),))

    def mix(self, value: Any, alpha: float | Float[Array, "..."]) -> Edits:
        """Move the cells by `alpha` towards `value`."""
        return Edits(((self, "mix", (value, alpha)),))

    def stop(self) -> Edits:
        """Let no gradient through the cells."""
        return Edits(((self, "stop", ()),))

    def read(self) -> Edits:
        """Record the site at the chosen layers (a slot each) and, if given, positions."""
        return Edits(((self, "read", ()),))


def at(
    site: str,
    layer: Choice = None,
    head: Choice = None,
    pos: Place = None,
    index: Choice = None,
    dest: Place = None,
    src: Place = None,
) -> Where:
    """Choose cells of a site; everything left out means all of it.

    - `site`: a name of `AXES`, or TransformerLens's string (`"blocks.3.attn.hook_z"`).
    - `layer`, `head`: an int or several. `index`: along the last axis (neurons, coordinates).
    - `pos` (`dest` and `src` at scores and patterns): an int (negative counts from the end),
      several, a span's name, or Bool[batch pos].

    >>> at("z", layer=23, head=3, pos="S2").set(0) | at("mlp_out", layer=5).mix(v, 0.5)
    """
    name, named_layer = parse_site(site)
    return Where(name, named_layer if layer is None else layer, head, pos, index, dest, src)


def resolve(edits: Edits, model: Any, prompts: HasSpans | None = None) -> Sites:
    """The table of edits for a model: `Sites` for `run`.

    Several edits of one site compose in the order in which they were said. Raises `ValueError` for
    a site the model lacks, a layer, head or position out of range, and an unknown span.

    >>> run(model, prompts.clean, resolve(at("z", layer=3, head=1).set(0), model, prompts))
    """
    table = Sites()
    for where, verb, values in edits.specs:
        table = table | Sites(**{where.site: _edit(where, verb, values, model, prompts)})
    model.check(*(site for site, _ in table.items()))
    return table


def _edit(where: Where, verb: str, values: tuple, model: Any, prompts) -> AbstractEdit:
    axes = AXES[where.site]
    model.check(where.site)
    mask = _mask(where, axes, model, prompts)
    if where.site in OUTER:
        if where.layer is not None:
            raise ValueError(
                f"{where.site!r} lies outside the layers: at({where.site!r}) without layer="
            )
        return _verb(where, verb, values, mask, prompts, ())
    layers = _indices(where.layer, model.n_layers, "layer", where.site)
    if len(set(layers.tolist())) < len(layers):
        raise ValueError(f"layer={where.layer} of {where.site!r} names a layer twice: name it once")
    return At(jnp.asarray(layers), _verb(where, verb, values, mask, prompts, (len(layers),)))


def _verb(
    where: Where, verb: str, values: tuple, mask, prompts, lead: tuple[int, ...]
) -> AbstractEdit:
    """The edit with its leaves led by the slot axis `lead`."""

    def slots(value):
        value = jnp.asarray(value)
        rank = len(AXES[where.site])
        if value.ndim > rank:  # already one value per layer
            if value.shape[: value.ndim - rank] != lead:
                raise ValueError(
                    f"{where.site!r}: the value leads with {value.shape[: value.ndim - rank]} and"
                    f" {lead} layers are chosen: choose those layers from it"
                )
            return value
        value = value.reshape((1,) * (rank - value.ndim) + value.shape)
        return jnp.broadcast_to(value, lead + value.shape)

    if verb == "read":
        if any(getattr(where, name) is not None for name in ("head", "index", "dest", "src")):
            raise ValueError(
                f"read takes layer and pos only: at({where.site!r}, layer=, pos=).read(), then"
                " index the record"
            )
        return Read(None if where.pos is None else _columns(where.pos, prompts, lead))
    mask = jnp.broadcast_to(mask, lead + mask.shape)
    if verb == "stop":
        return Stop(mask)
    if verb == "mix":
        return Mix(jnp.where(mask, slots(values[0]), 0.0), jnp.where(mask, slots(values[1]), 0.0))
    makers: dict[str, Callable] = {"set": Set, "add": Add}
    return makers[verb](slots(values[0]), mask)


def _columns(pos: Place, prompts, lead: tuple[int, ...]) -> Array:
    """Positions to read, Int[*lead batch n]; their count must be the same for all prompts."""
    if prompts is None:
        raise ValueError("positions to read need the prompts: resolve(edits, model, prompts)")
    batch, length = np.shape(prompts.clean)
    if isinstance(pos, str) or np.asarray(pos).dtype == bool:
        chosen = np.asarray(_span(pos, prompts) if isinstance(pos, str) else pos)
        if len(set(chosen.sum(axis=1).tolist())) != 1:
            raise ValueError(f"{pos!r} differs in length between prompts: read all positions")
        columns = np.nonzero(chosen)[1].reshape(batch, -1)
    else:
        columns = _indices(pos, length, "pos", "tokens")
        columns = np.broadcast_to(columns, (batch, len(columns)))
    return jnp.broadcast_to(jnp.asarray(columns), lead + columns.shape)


def _mask(where: Where, axes: tuple[str, ...], model: Any, prompts) -> Array:
    """Bool mask of the chosen cells, broadcastable against the site."""
    mask = np.ones((1,) * len(axes), bool)
    for axis, choice in _choices(where, axes).items():
        if choice is None:
            continue
        if axis in ("pos", "dest", "src"):
            mask = mask & _place(choice, axes, axis, prompts)
        else:
            mask = mask & _one_hot(choice, axes, axis, model.axis_size(axis), where.site)
    return jnp.asarray(mask)


def _choices(where: Where, axes: tuple[str, ...]) -> dict[str, Any]:
    heads = [axis for axis in axes if axis in ("head", "kv_head")]
    offered = {"head": heads, "pos": ["pos"], "dest": ["dest"], "src": ["src"], "index": [axes[-1]]}
    chosen: dict[str, Any] = {}
    for option, targets in offered.items():
        choice = getattr(where, option)
        if choice is None:
            continue
        target = [axis for axis in targets if axis in axes]
        if not target:
            raise ValueError(
                f"{where.site!r} has axes {axes}: at({where.site!r}) without {option}="
            )
        chosen[target[0]] = choice
    return chosen


def _shaped(flags: np.ndarray, axes: tuple[str, ...], axis: str) -> np.ndarray:
    """Flags [size] or [batch size] laid along the site's axes."""
    shape = [1] * len(axes)
    shape[axes.index(axis)] = flags.shape[-1]
    if flags.ndim == 2:
        shape[0] = flags.shape[0]
    return flags.reshape(shape)


def _one_hot(choice: Choice, axes, axis: str, size: int, site: str) -> np.ndarray:
    flags = np.zeros(size, bool)
    flags[_indices(choice, size, axis, site)] = True
    return _shaped(flags, axes, axis)


def _place(choice: Place, axes, axis: str, prompts) -> np.ndarray:
    if isinstance(choice, str):
        return _shaped(np.asarray(_span(choice, prompts)), axes, axis)
    if isinstance(choice, np.ndarray | Array) and np.asarray(choice).dtype == bool:
        return _shaped(np.asarray(choice), axes, axis)
    if prompts is None:
        raise ValueError("positions need the prompts: resolve(edits, model, prompts)")
    return _one_hot(choice, axes, axis, np.shape(prompts.clean)[1], "tokens")


def _span(name: str, prompts) -> Any:
    if prompts is None:
        raise ValueError(f"the span {name!r} needs the prompts: resolve(edits, model, prompts)")
    return prompts.span(name)


def _indices(choice: Choice, size: int, axis: str, site: str) -> np.ndarray:
    """Non-negative indices of a choice along an axis, or a `ValueError` naming the range."""
    chosen = np.arange(size) if choice is None else np.atleast_1d(np.asarray(choice))
    if chosen.dtype == bool and chosen.shape == (size,):
        chosen = np.nonzero(chosen)[0]
    chosen = chosen.astype(int)
    if chosen.size == 0 or chosen.min() < -size or chosen.max() >= size:
        hint = ""
        if axis == "kv_head":
            name = site.removeprefix("rot_")[0]
            hint = f"; for one query head's copy use at('{name}_at_head', head={choice})"
        raise ValueError(
            f"{axis} {choice} of {site!r} is out of range: it has {size} (0..{size - 1}){hint}"
        )
    return chosen % size
