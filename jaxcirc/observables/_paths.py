"""Paths: heads and MLPs in the order in which information flows, from the stream to the logits.

May import `taps`.
"""

import dataclasses
import re
from collections.abc import Sequence

from ..taps import Node

Step = Node | str
"""A node, or its name: "23.3" is head 3 of layer 23, "mlp 5" the MLP of layer 5."""

_CALL = 'propagate(model, observable, ["13.3", "mlp 16", "17.14"])'


def path_of(model, path: Sequence[Step] | Step) -> tuple[Node, ...]:
    """The nodes of a path, checked.

    Raises `ValueError` for a name that is none, a layer or head that the model lacks, or a path
    that goes backwards.

    >>> path_of(model, ["13.3", "mlp 16", "17.14"])
    """
    steps = [path] if isinstance(path, Node | str) else list(path)
    nodes = tuple(_parsed(step) if isinstance(step, str) else step for step in steps)
    for node in nodes:
        _check(model, node)
    for earlier, later in zip(nodes, nodes[1:], strict=False):
        if not precedes(model, earlier, later):
            named = ", ".join(f'"{node}"' for node in _ordered(model, nodes))
            raise ValueError(
                f"a path from {earlier} to {later} goes backwards or sideways: a node reads what"
                f" layers before it write, propagate(model, observable, [{named}])"
            )
    return nodes


def precedes(model, earlier: Node, later: Node) -> bool:
    """Whether what one node writes is read by another."""
    if earlier.layer != later.layer:
        return earlier.layer < later.layer
    serial = not model.blocks.parallel
    return serial and earlier.site == "z" and later.site == "mlp_out"


def _ordered(model, nodes: Sequence[Node]) -> list[Node]:
    """The nodes in the order in which they write; of those side by side the first."""
    found: list[Node] = []
    for node in sorted(nodes, key=lambda node: (node.layer, node.site != "z")):
        if not found or precedes(model, found[-1], node):
            found.append(dataclasses.replace(node, pos=None))
    return found


def _parsed(name: str) -> Node:
    head = re.fullmatch(r"(\d+)\.(\d+)", name.strip())
    if head:
        return Node("z", int(head[1]), int(head[2]))
    mlp = re.fullmatch(r"mlp (\d+)", name.strip())
    if mlp:
        return Node("mlp_out", int(mlp[1]))
    raise ValueError(f"no node is called {name!r}: {_CALL}")


def _check(model, node: Node) -> None:
    if node.site not in ("z", "mlp_out") or (node.site == "z") != (node.index is not None):
        raise ValueError(f"{node!r} is neither a head nor an MLP: {_CALL}")
    if isinstance(node.pos, str):
        raise ValueError(f'{node}: a path has columns by number, Node("z", 17, 14, pos=-1)')
    if node.site not in model.sites():
        raise ValueError(f'{model.config.name} has no MLPs: use heads, as in ["0.1", "1.2"]')
    if not 0 <= node.layer < model.n_layers:
        raise ValueError(
            f"{node}: {model.config.name} has layers 0 to {model.n_layers - 1}, as in {_CALL}"
        )
    n_heads = model.axis_size("head")
    if node.index is not None and not 0 <= node.index < n_heads:
        raise ValueError(f"{node}: {model.config.name} has heads 0 to {n_heads - 1} in a layer")
