"""`Place`: which activations a dictionary reads and which it rebuilds, from a name.

    resid_post.12                          an autoencoder of one site at one layer
    mlp_normed.12>mlp_out.12               a transcoder, from the first to the second
    resid_post.10+resid_post.14            a crosscoder over both

May import `taps`.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...taps import AXES, At, Read, Sites, parse_site


@dataclasses.dataclass(frozen=True, order=True)
class Spot:
    """A site at a layer."""

    site: str
    layer: int

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Inputs and targets: spots whose activations are stacked if there are several."""

    inputs: tuple[Spot, ...]
    targets: tuple[Spot, ...]

    @property
    def spots(self) -> tuple[Spot, ...]:
        """All spots, each once."""
        return tuple(dict.fromkeys(self.inputs + self.targets))

    def __str__(self) -> str:
        sides = ["+".join(map(str, side)) for side in (self.inputs, self.targets)]
        return sides[0] if self.inputs == self.targets else ">".join(sides)


def parse_place(name: str, model) -> Place:
    """A place from its name. Raises `ValueError` for a site or layer that the model lacks.

    >>> parse_place("resid_post.12", model)
    """
    sides = [tuple(_spot(part, model) for part in side.split("+")) for side in name.split(">")]
    if len(sides) > 2:
        raise ValueError(f'place "{name}": write "mlp_normed.12>mlp_out.12"')
    for side in sides:
        if len(side) > 1 and len({_width(spot, model) for spot in side}) > 1:
            raise ValueError(f'place "{name}": only sites of one width stand side by side')
    return Place(sides[0], sides[-1])


def spell_place(name: str) -> str:
    """A place in this library's words; those of TransformerLens are understood. No model is needed.

    Raises `ValueError` for what is no place, with the nearest names of sites.

    >>> spell_place("blocks.12.ln2.hook_normalized>blocks.12.hook_mlp_out")
    'mlp_normed.12>mlp_out.12'
    """
    parts = re.split("([>+])", name)
    return "".join(part if part in (">", "+") else _spelled(part.strip(), name) for part in parts)


def _spelled(spot: str, name: str) -> str:
    if spot.startswith("blocks."):
        site, layer = parse_site(spot)
        return f"{site}.{layer}"
    match = re.fullmatch(r"(\w[\w.]*)\.(\d+)", spot)
    if match is None:
        raise ValueError(f'place "{name}": write a site and a layer, as in "resid_post.12"')
    return f"{parse_site(match[1])[0]}.{match[2]}"


def _width(spot: Spot, model) -> int:
    """Numbers a token has there; 0 where positions are no rows, as of `pattern`."""
    rows, rest = AXES[spot.site][:2], AXES[spot.site][2:]
    return math.prod(map(model.axis_size, rest)) if rows == ("batch", "pos") else 0


def _spot(name: str, model) -> Spot:
    site, _, layer = name.strip().rpartition(".")
    if not site or not layer.isdigit():
        raise ValueError(f'place "{name}": write a site and a layer, as in "resid_post.12"')
    if int(layer) >= model.n_layers:
        raise ValueError(f"{name}: this model has layers 0..{model.n_layers - 1}")
    model.check(site)
    return Spot(site, int(layer))


def reads(spots: Sequence[Spot]) -> Sites:
    """The table of edits that reads some spots."""
    layers: dict[str, list[int]] = {}
    for spot in sorted(spots):
        layers.setdefault(spot.site, []).append(spot.layer)
    return Sites(**{site: At(jnp.asarray(found), Read()) for site, found in layers.items()})


def rows_of(records: Sites, spots: Sequence[Spot]) -> dict[Spot, Float[Array, "token d"]]:
    """What was read at each spot, one row a token, heads side by side."""
    slots: dict[str, int] = {}
    found = {}
    for spot in sorted(spots):
        slot = slots.get(spot.site, 0)
        slots[spot.site] = slot + 1
        x = getattr(records, spot.site)[slot]
        found[spot] = x.reshape(x.shape[0] * x.shape[1], int(np.prod(x.shape[2:])))
    return found


def joined(rows: dict[Spot, jax.Array], side: Sequence[Spot]) -> Array:
    """One side of a place: [token d], or [token site d] for several spots."""
    if len(side) == 1:
        return rows[side[0]]
    return jnp.stack([rows[spot] for spot in side], axis=1)
