r"""Head importance: the slope of the metric in a mask on every component.

Michel, Levy & Neubig 2019 (arXiv 1905.10650), equation 2; as a baseline of circuit discovery,
Conmy et al. 2023 (arXiv 2304.14997), section 4. May import `taps`, `tasks`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..taps import Add, Read, Sites, Wiring, run
from ..tasks import Metric, Prompts, logit_difference, with_reference

_AT = ("q", "k", "v", "mlp_out")


def head_importance(
    model,
    prompts: Prompts,
    metric: Metric = logit_difference,
    *,
    wiring: Wiring | None = None,
    precision: str = "highest",
    batch: int = 16,
) -> Float[np.ndarray, "example edge"]:
    r"""HISP scores of components, and of an edge the smaller one of its two ends.

    $$I_h = \Big| \frac{\partial m}{\partial \xi_h} \Big|, \quad
      \tilde I_h = I_h \Big/ \Big(\sum_{h' \text{ in the layer}} I_{h'}^2\Big)^{1/2}$$

    with a mask of 1 on every head's q, k and v and on every MLP's output; per prompt in size, then
    normalised within each layer. A circuit of nodes holds all edges between them, so an edge is in
    when both its ends are; input and logits always are.

    Returns Float[example edge], not negative.

    >>> head_importance(model, prompts).mean(axis=0)
    """
    wiring = Wiring.of(model) if wiring is None else wiring
    parts = []
    with jax.default_matmul_precision(precision):
        for rows in prompts.batches(min(batch, len(prompts))):
            chunk = prompts.take(rows).arrays()
            parts.append(jax.tree.map(np.asarray, _slopes(model, chunk, metric=metric)))
    slopes = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1)[:, : len(prompts)], *parts)
    return _edges(wiring, {site: np.abs(x) for site, x in slopes.items()})


@partial(jax.jit, static_argnames=("metric",))
def _slopes(model, prompts: Prompts, *, metric: Metric) -> Sites:
    """dm/dmask: Float[layer example head] at q, k, v, and [layer example] at mlp_out."""
    sites = [site for site in _AT if site in model.sites()]
    plain = Sites(**{site: Read() for site in sites})
    logits, seen = run(model, prompts.clean, plain, mask=prompts.mask, logits_at=-1)
    prompts = with_reference(prompts, logits)

    def value(nudges: Sites) -> Array:
        edits = Sites(**{site: Add(nudge) for site, nudge in nudges.items()})
        moved, _ = run(model, prompts.clean, edits, mask=prompts.mask, logits_at=-1)
        return metric(moved, prompts).sum()

    slopes = jax.grad(value)(jax.tree.map(jnp.zeros_like, seen))

    def contracted(site: str) -> Array:
        product = getattr(seen, site) * getattr(slopes, site)
        return product.sum(axis=(2, 3) if site == "mlp_out" else (2, 4))

    return Sites(**{site: contracted(site) for site in sites})


def _edges(wiring: Wiring, size: dict[str, np.ndarray]) -> Float[np.ndarray, "example edge"]:
    """Normalise within layers, score components, and take the smaller of an edge's two ends."""
    squares = sum(np.square(x).sum(axis=-1) if x.ndim == 3 else np.square(x) for x in size.values())
    norm = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))  # [layer example]
    size = {s: x / (norm[..., None] if x.ndim == 3 else norm) for s, x in size.items()}
    group = wiring.n_heads // wiring.n_kv_heads
    per_head = [size["q"], *(np.repeat(size[s], group, axis=2) for s in ("k", "v"))]
    node = np.max(per_head, axis=0)
    if wiring.mlp:
        node = np.concatenate([node, size["mlp_out"][:, :, None]], axis=2)
    n = node.shape[1]
    top = np.inf
    source = np.concatenate([np.full((wiring.first, n), top), *node.transpose(0, 2, 1)])
    return np.minimum(source[wiring.source], _reader(wiring, size, n)).T


def _reader(wiring: Wiring, size: dict[str, np.ndarray], n: int) -> Float[np.ndarray, "edge n"]:
    found = np.full((wiring.n_edges, n), 2.0)  # normalised sizes are at most 1
    for number, site in enumerate(_AT):
        rows = np.flatnonzero(wiring.kind == number)
        if len(rows):
            layer, index = wiring.layer[rows], wiring.index[rows]
            values = size[site]
            found[rows] = values[layer, :, index] if values.ndim == 3 else values[layer]
    return found
