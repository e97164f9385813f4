"""`Basis`: dictionaries spliced at places of a model, and the nodes that this gives.

Marks et al. 2024 (arXiv 2403.19647), section 2: every feature, and one error for each place and
position, whose value is the whole vector x - decode(encode(x)). The neuron baseline is the same
with `Identity`. May import `taps`,
`_layout`.
"""

import math
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...taps import AXES, AbstractDictionary, Identity, Node, parse_site
from ._layout import Layout

STREAM = ("resid_pre", "resid_post")
"""Places at which a change is a change of the stream between two blocks."""

CUTS = ("resid_pre", "resid_mid", "resid_post")
"""Places that every path crosses."""

_ORDER = {site: i for i, site in enumerate(AXES)}


class Basis(eqx.Module):
    """Dictionaries and where they are spliced, in the order of a run.

    - `sink_norms`: tokens of a larger norm pass a place unspliced, and so does each prompt's first
      token in a causal model. They have no nodes, and no ablation changes them there.

    >>> Basis.of(model, {"resid_post.12": dictionary, "mlp_out.13": other})
    """

    dictionaries: tuple[AbstractDictionary, ...]
    sink_norms: Float[Array, "place"]
    places: tuple[Node, ...] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        model,
        dictionaries: Mapping[str, AbstractDictionary],
        sink_norms: Mapping[str, float] | None = None,
    ) -> "Basis":
        """The basis of dictionaries by place.

        - `dictionaries`: by names like "resid_post.12" (or TransformerLens's).
        - `sink_norms`: by the same names, as a dictionary's card says; default: none.

        Raises `ValueError` for a place that the model lacks, a dictionary of another width, one
        that does not rebuild what it reads, or the same place named twice.
        """
        if not dictionaries:
            raise ValueError('no dictionaries: Basis.of(model, {"resid_post.12": dictionary})')
        norms = dict(sink_norms or {})
        unknown = sorted(set(norms) - set(dictionaries))
        if unknown:
            raise ValueError(f"sink_norms: {unknown[0]!r} has no dictionary")
        found = [(_place(name, model), name) for name in dictionaries]
        found.sort(key=lambda pair: order(pair[0]))
        _check_once([place for place, _ in found])
        for place, name in found:
            _check_fits(model, place, dictionaries[name])
        return cls(
            tuple(dictionaries[name] for _, name in found),
            jnp.asarray([norms.get(name, math.inf) for _, name in found], jnp.float32),
            tuple(place for place, _ in found),
        )

    @classmethod
    def neurons(cls, model, places: Sequence[str]) -> "Basis":
        """The neuron baseline: every coordinate of some places is a feature, errors are 0.

        >>> Basis.neurons(model, [f"mlp_post.{layer}" for layer in range(model.n_layers)])
        """
        sites = {name: _place(name, model).site for name in places}
        widths = {name: _shape(model, site) for name, site in sites.items()}
        deep = [name for name, shape in widths.items() if len(shape) > 1]
        if deep:
            raise ValueError(f"{deep[0]}: neurons need a site [batch pos width], as mlp_post.3")
        return cls.of(model, {name: Identity(shape[0]) for name, shape in widths.items()})

    def since(self, layer: int) -> "Basis":
        """The same without the places below a layer. Raises `ValueError` if none is left."""
        kept = [i for i, place in enumerate(self.places) if place.layer >= layer]
        if not kept:
            last = self.places[-1].layer
            raise ValueError(f"no place lies at layer {layer} or above: use since({last}) or less")
        return self.take(kept)

    def take(self, numbers: Sequence[int]) -> "Basis":
        """Some of the places, by number."""
        dictionaries = tuple(self.dictionaries[i] for i in numbers)
        places = tuple(self.places[i] for i in numbers)
        return Basis(dictionaries, self.sink_norms[np.asarray(numbers)], places)

    def layout(self, n_pos: int | None) -> "Layout":
        """The columns of all nodes, at each of `n_pos` positions, or at all of them at once."""
        widths = tuple(d.d_dict for d in self.dictionaries)
        return Layout(self.places, widths, tuple(d.d_in for d in self.dictionaries), n_pos)


def order(place: Node) -> tuple[int, int]:
    """Where a place comes in a run."""
    return place.layer, _ORDER[place.site]


def _place(name: str, model) -> Node:
    site, _, layer = name.rpartition(".")
    plain, named = (site, int(layer)) if layer.isdigit() else parse_site(name)
    if named is None:
        raise ValueError(f"{name!r}: a dictionary needs a site and a layer, as 'resid_post.12'")
    site, _ = parse_site(plain)
    model.check(site)
    if not 0 <= named < model.n_layers or AXES[site][:2] != ("batch", "pos"):
        raise ValueError(
            f"{name!r}: give a site with positions at a layer 0..{model.n_layers - 1}, as"
            " 'resid_post.3'"
        )
    return Node(site, named)


def _shape(model, site: str) -> tuple[int, ...]:
    return tuple(model.axis_size(axis) for axis in AXES[site][2:])


def _check_once(places: Sequence[Node]) -> None:
    where = {
        Node("resid_post", p.layer - 1) if p.site == "resid_pre" and p.layer else p for p in places
    }
    if len(where) < len(places):
        raise ValueError("a place is named twice (resid_pre.4 is resid_post.3): name it once")


def _check_fits(model, place: Node, dictionary: AbstractDictionary) -> None:
    shape = _shape(model, place.site)
    name = f"{place.site}.{place.layer}"
    if dictionary.d_in != math.prod(shape):
        raise ValueError(
            f"the dictionary for {name} takes {dictionary.d_in} numbers, {model.config.name} has"
            f" {math.prod(shape)} there: give the place that it was trained at"
        )
    made = _rebuilt(dictionary, jax.ShapeDtypeStruct((1, 1, *shape), model.dtype))
    if made != shape:
        raise ValueError(
            f"the dictionary for {name} makes {made} of {shape}: nodes need one that rebuilds what"
            " it reads (for z, Heads(dictionary, n_heads))"
        )


def _rebuilt(dictionary: AbstractDictionary, x: jax.ShapeDtypeStruct) -> tuple[int, ...] | None:
    """The shape of one token's reconstruction, None if it cannot be encoded."""
    try:
        return jax.eval_shape(lambda d, x: d.decode(d.encode(x)), dictionary, x).shape[2:]
    except (TypeError, ValueError):
        return None
