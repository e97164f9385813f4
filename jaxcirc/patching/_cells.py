"""From nodes to cells: what of a model is patched, and what words for it are right.

May import `taps` and `tasks`.
"""

from collections.abc import Sequence

from ..taps import AXES, OUTER, Node, head_axis, parse_site
from ..tasks import Prompts
from ._patch import Cell, Group

INSTEAD = {
    "embed": 'site="resid_pre", layers=[0]',
    "final_resid": 'site="resid_post", layers=[-1]',
    "final_norm_scale": "an edit, at('final_norm_scale').set(value)",
    "logits": "the metric itself",
}


def complement(model, nodes: Sequence[Node]) -> list[Node]:
    """All nodes of the same sites but these: "all heads but the name movers".

    >>> patch(model, prompts, [complement(model, [Node("z", 9, 9), Node("z", 10, 0)])])
    """
    every = [node for site in dict.fromkeys(n.site for n in nodes) for node in _all(model, site)]
    return [node for node in every if node not in set(nodes)]


def _all(model, site: str) -> list[Node]:
    axis = head_axis(site)
    heads = [None] if axis is None else range(model.axis_size(axis))
    return [Node(site, layer, head) for layer in range(model.n_layers) for head in heads]


def group_of(node: Node | Cell | Sequence[Node | Cell], model) -> Group:
    if isinstance(node, Node | Cell):
        return (cell_of(node, model),)
    return tuple(cell_of(one, model) for one in node)


def cell_of(node: Node | Cell, model) -> Cell:
    if isinstance(node, Cell):
        return node
    site = layered(node.site)
    model.check(site)
    layer = layers_of(model, [node.layer])[0]
    axis, choice = head_axis(site), []
    if axis is not None and node.index is not None:
        if not 0 <= node.index < model.axis_size(axis):
            raise ValueError(f"{node}: {site!r} has {model.axis_size(axis)} along {axis} (from 0)")
        choice.append((axis, node.index))
    if node.pos is not None:
        choice.append(("dest" if "dest" in AXES[site] else "pos", node.pos))
    return Cell(site, layer, tuple(choice))


def layered(name: str) -> str:
    site, layer = parse_site(name)
    if site in OUTER:
        raise ValueError(f"{site!r} lies outside the layers: patch {INSTEAD[site]} instead")
    if layer is not None:
        raise ValueError(f"{name!r} names one layer: use site={site!r}, layers=[{layer}]")
    return site


def axes_of(site: str, by: Sequence[str] | None) -> tuple[str, ...]:
    head = head_axis(site)
    by = ((head,) if head else ()) if by is None else tuple(by)
    for axis in by:
        if axis not in AXES[site][1:]:
            raise ValueError(
                f"{site!r} has no axis {axis!r}: by= may name {', '.join(AXES[site][1:])}"
            )
    return by


def layers_of(model, layers: Sequence[int] | None) -> list[int]:
    layers = list(range(model.n_layers)) if layers is None else list(layers)
    for layer in layers:
        if not -model.n_layers <= layer < model.n_layers:
            raise ValueError(f"layer {layer} is out of range: use 0..{model.n_layers - 1}")
    return [layer % model.n_layers for layer in layers]


def size_of(model, prompts: Prompts, axis: str) -> int:
    return prompts.clean.shape[1] if axis in ("pos", "dest", "src") else model.axis_size(axis)
