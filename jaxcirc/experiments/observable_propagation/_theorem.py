"""Theorem 1 by simulation, and the angles of real norms beside it.

Dunefsky & Cohan 2023 (arXiv 2312.16291): the gradient of n . LN(x) keeps n's direction, with
E[angle] < 2 arccos sqrt(1 - 1/(d - 1)) for x, n ~ N(0, I). For RMSNorm the factor 2 goes. Both say
little of real activations, so their angles are measured, with the gain and without it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ...observables import Observable, head_pull, through_gain, through_norm
from ...taps import Read, Sites, run
from ...tasks import Interval, interval
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ._subject import Ready

WIDTHS = (64, 576, 2048)


def angles(d: int, n: int, kind: str, seed: int = 0) -> np.ndarray:
    """Degrees between a random n and the gradient of n . norm(x) at a random x.

    >>> angles(576, 1000, "RMSNorm").mean()
    """
    rng = np.random.default_rng((seed, d))
    x, y = rng.normal(size=(2, n, d))
    slope = y
    if kind == "LayerNorm":
        x, slope = (v - v.mean(axis=1, keepdims=True) for v in (x, y))
    along = (x * slope).sum(axis=1) / (x * x).sum(axis=1)
    slope = slope - along[:, None] * x
    lengths = np.linalg.norm(slope, axis=1) * np.linalg.norm(y, axis=1)
    return np.degrees(np.arccos(np.clip((slope * y).sum(axis=1) / lengths, -1, 1)))


def bound(d: int, kind: str) -> float:
    """The theorem's bound in degrees."""
    once = float(np.degrees(np.arccos(np.sqrt(1 - 1 / (d - 1)))))
    return 2 * once if kind == "LayerNorm" else once


def theorem(ready: Ready) -> Section:
    """Simulated angles below their bounds, and real ones."""
    rows: list[Row] = []
    claims: list[Claim] = []
    for kind in ("RMSNorm", "LayerNorm"):
        for d in WIDTHS:
            found = interval(angles(d, ready.sizes.simulated, kind, ready.seed))
            limit = bound(d, kind)
            rows.append(
                {
                    "section": "theorem",
                    "norm": kind,
                    "d": d,
                    "angle": found.value,
                    "angle low": found.low,
                    "angle high": found.high,
                    "bound": limit,
                }
            )
            if d == 576:
                claims.append(_claim(kind, found, limit))
    return Section(rows + angle_rows(ready), {}, claims)


def _claim(kind: str, found: Interval, limit: float) -> Claim:
    return Claim(
        f"theorem 1, {kind}, d = 576: the mean angle lies below the bound",
        "bound less mean angle, degrees",
        Interval(
            limit - found.value, limit - found.high, limit - found.low, found.n, found.clusters
        ),
        paper="stated for LayerNorm",
    )


def angle_rows(ready: Ready) -> list[Row]:
    """On real activations: how far a norm's whole gradient turns an observable, and what is lost
    without its gain."""
    own = ready.rows["subject"].spread(16)
    model, asked = ready.model, ready.subject
    reads = Sites(attn_in=Read(), final_resid=Read())
    _, seen = run(model, own.tokens, reads, mask=own.mask, logits_at=-1)
    rows: list[Row] = []
    mask = np.asarray(own.mask)
    if model.final_norm is not None:
        x = np.asarray(seen.final_resid)[mask]
        rows.append(_angle_row("final norm", model.final_norm, asked.direction(model), x))
    if model.blocks.attn_norm is None:
        return rows
    layer, head = ready.top("subject")
    for at in sorted({0, layer // 2, layer}):
        norm = _at(model.blocks.attn_norm, at)
        y = _behind(model, at, asked, head)
        rows.append(_angle_row(f"attention norm {at}", norm, y, np.asarray(seen.attn_in[at])[mask]))
    return rows


def _behind(model, layer: int, asked: Observable, head: int):
    """What a head of a layer reads behind its norm."""
    y = through_gain(model.final_norm, asked.direction(model))
    if model.blocks.attn_post_norm is not None:
        y = through_gain(_at(model.blocks.attn_post_norm, layer), y)
    return head_pull(model.blocks.attn, layer, head, y)


def _at(norm, layer: int):
    return jax.tree.map(lambda leaf: leaf[layer], norm)


def _angle_row(name: str, norm, y, x: np.ndarray) -> Row:
    gained = np.asarray(through_gain(norm, y))
    slopes = np.asarray(jax.vmap(lambda row: through_norm(norm, y, row))(jnp.asarray(x[:200])))
    cosines = slopes @ gained / (np.linalg.norm(slopes, axis=1) * np.linalg.norm(gained))
    plain = np.asarray(y)
    gain = np.asarray(norm.weight) + getattr(norm, "offset", 0.0)
    return {
        "section": "angle",
        "place": name,
        "cosine, mean": float(cosines.mean()),
        "cosine, least": float(cosines.min()),
        "cosine without the gain": float(
            gained @ plain / (np.linalg.norm(gained) * np.linalg.norm(plain))
        ),
        "spread of the gain": float(np.std(gain) / np.abs(np.mean(gain))),
    }
