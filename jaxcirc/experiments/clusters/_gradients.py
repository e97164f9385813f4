r"""Parameter gradients of single samples, projected at random without ever being formed.

A weight W that maps x to x W has the gradient $G = \sum_t x_t \otimes \delta_t$, so that with
random signs P, Q

$$P\, G\, Q^\top = \sum_t (P x_t) \otimes (Q \delta_t)$$

whose inner products are those of the gradients on average (Choe et al. 2024, arXiv 2405.13954).
Gradients as what samples are clustered by: Michaud et al. 2023 (arXiv 2303.13506), without norms
and embeddings. May import `taps`, `tasks`, `circuits`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...circuits.features import Behaviour
from ...taps import AXES, Add, Read, Sites
from ...tasks import Prompts, log_probability

MATRICES = (
    ("attn_normed", "q"),
    ("attn_normed", "k"),
    ("attn_normed", "v"),
    ("z", "attn_out"),
    ("mlp_normed", "mlp_pre"),
    ("mlp_normed", "mlp_up"),
    ("mlp_post", "mlp_out"),
)
"""Where each weight of a block reads, and where it writes."""


class Sketch(eqx.Module):
    """Random signs for both sides of every weight, by (reads, writes)."""

    sides: dict[
        tuple[str, str],
        tuple[Float[Array, "layer side d_in"], Float[Array, "layer side d_out"]],
    ]

    @property
    def width(self) -> int:
        """Numbers that a sample's gradient becomes."""
        return sum(p.shape[0] * p.shape[1] * q.shape[1] for p, q in self.sides.values())


def sketch_of(model, side: int = 8, seed: int = 0) -> Sketch:
    """Signs for a model: `side` times `side` numbers for each weight of each block.

    >>> sketch_of(model).width                                   # 30 layers x 7 weights x 64
    13440
    """
    if side < 1:
        raise ValueError(f"side={side}: give at least 1, sketch_of(model, side=8)")
    rng = np.random.default_rng(seed)

    def signs(site: str) -> Array:
        shape = (model.n_layers, side, _width(model, site))
        return jnp.asarray(rng.choice([-1.0, 1.0], shape) * side**-0.5, model.dtype)

    return Sketch({pair: (signs(pair[0]), signs(pair[1])) for pair in matrices(model)})


def matrices(model) -> tuple[tuple[str, str], ...]:
    """The weights of a model's blocks whose output no norm changes before it can be read."""
    blocks, here = model.blocks, model.sites()
    normed = {"attn_out": blocks.attn_post_norm, "mlp_out": blocks.mlp_post_norm}
    return tuple(
        (reads, writes)
        for reads, writes in MATRICES
        if reads in here and writes in here and normed.get(writes) is None
    )


def _shape(model, site: str) -> tuple[int, ...]:
    return tuple(model.axis_size(axis) for axis in AXES[site][2:])


def _width(model, site: str) -> int:
    return int(np.prod(_shape(model, site)))


@jax.jit
def gradient_rows(model, prompts: Prompts, sketch: Sketch) -> Float[Array, "row projected"]:
    """The projected gradient of -log P(answer) for every prompt by itself.

    One backward pass over activations serves a batch; no gradient of a weight is made.

    >>> gradient_rows(model, samples.prompts().arrays(), sketch_of(model)).shape
    """
    objective = Behaviour(log_probability)
    reads = Sites(**{site: Read() for site in dict.fromkeys(r for r, _ in sketch.sides)})
    outer = (model.n_layers, *prompts.clean.shape)
    writes = [w for _, w in sketch.sides]
    zeros = {site: jnp.zeros((*outer, *_shape(model, site)), model.dtype) for site in writes}

    def loss(nudges: dict[str, Array]) -> tuple[Array, Sites]:
        edits = reads | Sites(**{site: Add(value) for site, value in nudges.items()})
        value, records = objective(model, prompts.clean, prompts, edits)
        return -value.sum(), records

    slopes, records = jax.grad(loss, has_aux=True)(zeros)

    def one(x: dict[str, Array], slope: dict[str, Array]) -> Float[Array, "projected"]:
        """Of one sample, by site: [layer pos width]."""
        found = []
        for (r, w), (p, q) in sketch.sides.items():
            left = jnp.einsum("lti,lai->lta", x[r], p)
            right = jnp.einsum("lto,lbo->ltb", slope[w], q)
            found.append(jnp.einsum("lta,ltb->lab", left, right).ravel())
        return jnp.concatenate(found)

    def flat(x: Array) -> Array:
        return x.reshape(*x.shape[:3], -1)

    seen = {site: flat(getattr(records, site)) for site, _ in reads.items()}
    return jax.vmap(one, in_axes=(1, 1))(seen, jax.tree.map(flat, slopes))
