"""Sites: the names of a model's activations, their axes, and the table with one entry for each.

Names are TransformerLens's words without the prefix; full TransformerLens strings are accepted by
`parse_site`. May import `jaxcirc._types` and the edits.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._edit import AbstractEdit, Chain, Set

_STREAM = ("batch", "pos", "d_model")
_QUERY = ("batch", "pos", "head", "d_head")
_COPY = ("batch", "src", "head", "d_head")
_KEY = ("batch", "pos", "kv_head", "d_head")
_HIDDEN = ("batch", "pos", "d_mlp")
_SQUARE = ("batch", "head", "dest", "src")
_SCALE = ("batch", "pos", "one")

AXES: dict[str, tuple[str, ...]] = {
    "embed": _STREAM,
    "resid_pre": _STREAM,
    "attn_in": _STREAM,
    "q_in": ("batch", "pos", "head", "d_model"),
    "k_in": ("batch", "pos", "kv_head", "d_model"),
    "v_in": ("batch", "pos", "kv_head", "d_model"),
    "attn_norm_scale": _SCALE,
    "attn_normed": _STREAM,
    "q": _QUERY,
    "k": _KEY,
    "v": _KEY,
    "q_norm_scale": ("batch", "pos", "head", "one"),
    "k_norm_scale": ("batch", "pos", "kv_head", "one"),
    "rot_q": _QUERY,
    "rot_k": _KEY,
    "k_at_head": _COPY,
    "v_at_head": _COPY,
    "scores": _SQUARE,
    "pattern": _SQUARE,
    "z": _QUERY,
    "attn_post_scale": _SCALE,
    "head_out": ("batch", "pos", "head", "d_model"),
    "attn_out": _STREAM,
    "resid_mid": _STREAM,
    "mlp_in": _STREAM,
    "mlp_norm_scale": _SCALE,
    "mlp_normed": _STREAM,
    "mlp_pre": _HIDDEN,
    "mlp_up": _HIDDEN,
    "mlp_post": _HIDDEN,
    "mlp_post_scale": _SCALE,
    "mlp_out": _STREAM,
    "resid_post": _STREAM,
    "final_resid": _STREAM,
    "final_norm_scale": _SCALE,
    "logits": ("batch", "pos", "vocab"),
}
"""Every site with its axes, in the order in which a run meets them."""

OUTER = ("embed", "final_resid", "final_norm_scale", "logits")
"""Sites outside the layers: their edits and records have no layer axis."""

_ALIASES = {
    "hook_embed": "embed",
    "ln_final.hook_scale": "final_norm_scale",
    "ln1.hook_scale": "attn_norm_scale",
    "ln1.hook_normalized": "attn_normed",
    "ln2.hook_scale": "mlp_norm_scale",
    "ln2.hook_normalized": "mlp_normed",
    "attn.hook_attn_scores": "scores",
    "attn.hook_result": "head_out",
    "hook_q_input": "q_in",
    "hook_k_input": "k_in",
    "hook_v_input": "v_in",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_up",
    "mlp.hook_post": "mlp_post",
}


class Sites(eqx.Module):
    """A table with one entry per site: edits going into a run, records coming out of it.

    `None` is not tapped, and absent from the compiled program. In the per-layer sites array leaves
    lead with a layer axis (`[layer, ...]`); `embed`, `final_resid`, `final_norm_scale` and `logits`
    have none. Axes of every site: `jaxcirc.taps.AXES`.

    >>> run(model, tokens, Sites(z=Read())).records.z        # [layer batch pos head d_head]
    """

    embed: Any = None
    resid_pre: Any = None
    attn_in: Any = None
    q_in: Any = None
    k_in: Any = None
    v_in: Any = None
    attn_norm_scale: Any = None
    attn_normed: Any = None
    q: Any = None
    k: Any = None
    v: Any = None
    q_norm_scale: Any = None
    k_norm_scale: Any = None
    rot_q: Any = None
    rot_k: Any = None
    k_at_head: Any = None
    v_at_head: Any = None
    scores: Any = None
    pattern: Any = None
    z: Any = None
    attn_post_scale: Any = None
    head_out: Any = None
    attn_out: Any = None
    resid_mid: Any = None
    mlp_in: Any = None
    mlp_norm_scale: Any = None
    mlp_normed: Any = None
    mlp_pre: Any = None
    mlp_up: Any = None
    mlp_post: Any = None
    mlp_post_scale: Any = None
    mlp_out: Any = None
    resid_post: Any = None
    final_resid: Any = None
    final_norm_scale: Any = None
    logits: Any = None

    def items(self) -> list[tuple[str, Any]]:
        """The filled entries as (site, entry), in the order of a run."""
        pairs = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return [(name, entry) for name, entry in pairs if entry is not None]

    def __or__(self, other: "Sites") -> "Sites":
        """Both tables of edits; where both edit a site, they chain, the left one first."""
        return Sites(**_merge(dict(self.items()), dict(other.items())))


def _merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    both = {name: Chain(_edits(left[name]) + _edits(right[name])) for name in left if name in right}
    return left | right | both


def _edits(edit: AbstractEdit) -> tuple[AbstractEdit, ...]:
    return edit.edits if isinstance(edit, Chain) else (edit,)


def parse_site(name: str) -> tuple[str, int | None]:
    """A site's own name, and the layer if the string names one.

    `"z"` -> `("z", None)`; `"blocks.3.attn.hook_z"` -> `("z", 3)`. Raises `ValueError` with the
    nearest names for anything else.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    layer, rest = (int(match[1]), match[2]) if match else (None, name)
    plain = _ALIASES.get(rest, rest.removeprefix("attn.").removeprefix("hook_"))
    if plain in AXES:
        return plain, layer
    near = difflib.get_close_matches(plain, AXES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(f"unknown site {name!r}: {hint}the sites are {', '.join(AXES)}")


class Taps:
    """Applies a table of edits by name while one stretch of a model is traced, keeping the records.

    Lives only during tracing, so the traced function stays pure.
    """

    def __init__(self, edits: Sites):
        self._edits = edits
        self._records: dict[str, Any] = {}

    def __call__(self, site: str, x: Any) -> Any:
        """The activation that flows on at `site`."""
        edit: AbstractEdit | None = getattr(self._edits, site)
        if edit is None:
            return x
        x, self._records[site] = edit(x)
        return x

    def make(self, site: str, compute: Callable[["Taps"], Array]) -> Array:
        """`self(site, compute(self))`, but for a lazy `Set` of every cell, where nothing is run."""
        edit = getattr(self._edits, site)
        if not (isinstance(edit, Set) and edit.lazy):
            return self(site, compute(self))

        def live() -> tuple[Array, dict[str, Any]]:
            inner = Taps(self._edits)
            return edit(compute(inner))[0], inner._records

        def spared() -> tuple[Array, dict[str, Any]]:
            x, records = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(live))
            return edit(x)[0], records

        x, records = lax.cond(edit.whole(), spared, live)
        self._records |= records
        return x

    def wants(self, *sites: str) -> bool:
        """Whether any of the sites is tapped."""
        return any(getattr(self._edits, site) is not None for site in sites)

    @property
    def records(self) -> Sites:
        """The records so far, as a table."""
        return Sites(**self._records)
