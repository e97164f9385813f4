"""`--place`, or `--site` and `--layer`: where a dictionary acts, said alike in every command.

May import `dictionaries`.
"""

import dataclasses
import itertools
import re

from ..dictionaries.train import spell_place

SITE, LAYER = "resid_post", 12
"""Where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Where:
    """Which activations: places, or sites and layers."""

    place: tuple[str, ...] = ()
    """Such as resid_post.12, "mlp_normed.12>mlp_out.12" (a transcoder's) or
    resid_post.10+resid_post.14 (a crosscoder's). Default: resid_post.12, or what a card says."""
    site: tuple[str, ...] = ()
    """The same in two words: each of these sites at every --layer; "mlp_normed>mlp_out" for a
    transcoder. Default: resid_post."""
    layer: tuple[int, ...] = ()
    """Layers of --site. Default: 12."""

    @property
    def said(self) -> bool:
        """Whether anything is said."""
        return bool(self.place or self.site or self.layer)

    def places(self, crossed: bool = False) -> list[str]:
        """The names of all places; `crossed`: of one that has every site at every layer.

        Raises `ValueError` for both ways at once, and for what is no place.

        >>> Where(site=("z", "mlp_normed>mlp_out"), layer=(3,)).places()
        ['z.3', 'mlp_normed.3>mlp_out.3']
        """
        if self.place and (self.site or self.layer):
            raise ValueError(f"--place says it all: --place {self.place[0]}, no --site or --layer")
        if self.place:
            return [spell_place(place) for place in self.place]
        pairs = itertools.product(self.site or (SITE,), self.layer or (LAYER,))
        each = [_at(site, layer) for site, layer in pairs]
        return ["+".join(each)] if crossed else each

    def one(self) -> str | None:
        """The only place; None where nothing is said. Raises `ValueError` for several."""
        if not self.said:
            return None
        first, *others = self.places()
        if others:
            raise ValueError(f"{first} and {others[0]}: one place is read here, --place {first}")
        return first


def split(place: str) -> tuple[str, int, str | None]:
    """Site, layer, and a transcoder's target, which must be at the same layer.

    >>> split("mlp_normed.12>mlp_out.12")
    ('mlp_normed', 12, 'mlp_out')
    """
    spots = [spot.rpartition(".") for spot in spell_place(place).split(">")]
    if "+" in place or len(spots) > 2 or len({layer for _, _, layer in spots}) > 1:
        raise ValueError(
            f'place "{place}": one site is read here, or two at one layer, --place resid_post.12,'
            ' --place "mlp_normed.12>mlp_out.12"'
        )
    return spots[0][0], int(spots[0][2]), spots[1][0] if len(spots) > 1 else None


def _at(site: str, layer: int) -> str:
    """Every site of the words at this layer."""
    if re.search(r"\.\d+(>|$)", site):
        raise ValueError(f"--site {site}: a site with its layer is a place, --place {site}")
    return spell_place(">".join(f"{part.strip()}.{layer}" for part in site.split(">")))
