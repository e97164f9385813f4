"""Where a head reads, and which dictionaries lie below it. May import `taps`, `circuits`."""

from ...circuits.features import Basis
from ...circuits.features._basis import CUTS, order
from ...taps import Node


def placed(model, basis: Basis, place: str | None = None) -> tuple[Node, Basis]:
    """Where the head reads, and the dictionaries that lie below it; the others are left out.

    - `place`: a residual (default: the first one behind every dictionary, or the last of all).

    Raises `ValueError` for a place that is no residual, or with no dictionary below it.

    >>> placed(model, basis, "resid_post.16")
    """
    last = basis.places[-1]
    if place is None:
        layer = min(last.layer + (last.site == "resid_post"), model.n_layers - 1)
        head = Node("resid_post", layer)
    else:
        head = residual(place)
        model.check(head.site)
        if head.layer >= model.n_layers:
            raise ValueError(f"{place!r}: give a residual, as in resid_post.{model.n_layers - 1}")
    kept = [i for i, one in enumerate(basis.places) if order(one) < order(head)]
    if not kept:
        raise ValueError(
            f"no dictionary lies below {head.site}.{head.layer}: give a head further up, as in"
            f" resid_post.{model.n_layers - 1}"
        )
    return head, basis.take(kept)


def residual(place: str) -> Node:
    """A residual by its name. Raises `ValueError` for anything else."""
    site, _, layer = place.rpartition(".")
    if site not in CUTS or not layer.isdigit():
        raise ValueError(f"{place!r}: give a residual, as in resid_post.16")
    return Node(site, int(layer))


def sink_norm_of(basis: Basis) -> float:
    """That of the highest residual that has one."""
    cuts = [i for i, place in enumerate(basis.places) if place.site in CUTS]
    return float(basis.sink_norms[cuts[-1]]) if cuts else float("inf")
