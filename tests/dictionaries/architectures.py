"""The table of dictionaries that the tests share, and their losses in plain numpy.

A transcription takes the arrays twice: those that a gradient moves, and those that the paper holds
still. Finite differences of the first then are the gradient that training must have.
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcirc.dictionaries import (
    L1,
    BatchTopK,
    Coder,
    Crosscoder,
    Gated,
    JumpReLU,
    Matryoshka,
    Stage,
    TopK,
    Transcoder,
)
from jaxcirc.dictionaries.batchtopk import Threshold

D, F, OUT, TOKENS, SITES = 5, 9, 4, 7, 2
ALPHA = 1 / 32


def coder(dtype=np.float32, norm="free", d_out=D, centred=True, seed=0) -> Coder:
    """Random directions of unlike lengths (or of length 1), random biases."""
    rng = np.random.default_rng(seed)
    w_dec = rng.normal(size=(F, d_out)) * rng.uniform(0.5, 2.0, (F, 1))
    if norm == "unit":
        w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    parts = rng.normal(size=(D, F)), rng.normal(size=F) * 0.3, w_dec, rng.normal(size=d_out) * 0.3
    return Coder(*(jnp.asarray(part, dtype) for part in parts), centred, norm)


def vector(seed: int, dtype, scale=0.3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=F) * scale, dtype)


def threshold(value: float, dtype) -> Threshold:
    return Threshold(jnp.asarray(0.5 * value, dtype), jnp.asarray(0.5, dtype))


def jump(dtype, penalty, **of):
    levels = jnp.abs(vector(3, dtype)) + jnp.asarray(0.05, dtype)
    return JumpReLU(coder(dtype, **of), levels, penalty, target=3.0, width=0.2)


def cross(dtype, k=None):
    rng = np.random.default_rng(5)
    shapes = (SITES, D, F), (F,), (F, SITES, D), (SITES, D)
    parts = (jnp.asarray(rng.normal(size=shape) * 0.5, dtype) for shape in shapes)
    return Crosscoder(*parts, k, threshold(0.4, dtype))


def across(dtype) -> dict[str, Any]:
    """For a transcoder: another width comes out, and x is not centred."""
    return {"dtype": dtype, "d_out": OUT, "centred": False}


CASES = {
    "l1": lambda t: L1(coder(t)),
    "l1_unit": lambda t: L1(coder(t, "unit")),
    "p_anneal": lambda t: L1(coder(t)),
    "topk": lambda t: TopK(coder(t), 3),
    "topk_by_length": lambda t: TopK(coder(t), 3, by_length=True),
    "topk_annealed": lambda t: TopK(coder(t), 3, most=5),
    "batchtopk": lambda t: BatchTopK(coder(t), 3, threshold(0.4, t)),
    "matryoshka": lambda t: Matryoshka(coder(t), 3, (2, 5, F), threshold(0.4, t)),
    "gated": lambda t: Gated(coder(t, "unit"), vector(1, t), vector(2, t)),
    "jumprelu_l0": lambda t: jump(t, "l0"),
    "jumprelu_quadratic": lambda t: jump(t, "quadratic"),
    "jumprelu_tanh": lambda t: jump(t, "tanh"),
    "transcoder": lambda t: Transcoder(TopK(coder(**across(t)), 3)),
    "skip_transcoder": lambda t: Transcoder(
        L1(coder(**across(t))), jnp.asarray(np.random.default_rng(8).normal(size=(D, OUT)), t)
    ),
    "crosscoder": lambda t: cross(t),
    "crosscoder_topk": lambda t: cross(t, 3),
}
"""Every architecture, by a function of the dtype."""

AUTOENCODERS = tuple(name for name in CASES if "coder" not in name)


def made(name: str, dtype=np.float32) -> Any:
    return CASES[name](dtype)


def batch(name: str, dtype=np.float32, n: int = TOKENS, seed: int = 11):
    """(inputs, targets) that fit a case; the same array twice for autoencoders."""
    rng = np.random.default_rng(seed)
    shape = (n, SITES, D) if "crosscoder" in name else (n, D)
    x = jnp.asarray(rng.normal(size=shape) * 1.5, dtype)
    return (x, jnp.asarray(rng.normal(size=(n, OUT)), dtype)) if "transcoder" in name else (x, x)


def stage(name: str, dtype=np.float32, dead=()) -> Stage:
    """The middle of a run: some sparsity, k = 4 where it is annealed, power 0.5."""
    power = 0.5 if name == "p_anneal" else 1.0
    flags = jnp.zeros(F, bool).at[jnp.asarray(dead, int)].set(True)
    k = 4 if name == "topk_annealed" else 3
    return Stage(jnp.asarray(0.7, dtype), jnp.asarray(k), jnp.asarray(power, dtype), flags)


def arrays(tree) -> SimpleNamespace:
    """The arrays of a dictionary, or of its gradient, by their own names."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return SimpleNamespace(**{p[-1].name: np.array(leaf) for p, leaf in found})


def relu(x):
    return np.maximum(x, 0)


def mean_square(error):
    return (error**2).reshape(len(error), -1).sum(axis=1).mean()


def lengths(p):
    return np.linalg.norm(p.w_dec, axis=-1)


def pre(p, x, centred=True):
    return (x - p.b_dec if centred else x) @ p.w_enc + p.b_enc


def decoded(p, f):
    return f @ p.w_dec + p.b_dec


def keep_rows(values, k, rank=None):
    """The k largest of each row."""
    order = np.argsort(-(values if rank is None else rank), axis=1, kind="stable")[:, :k]
    kept = np.zeros_like(values)
    np.put_along_axis(kept, order, np.take_along_axis(values, order, 1), 1)
    return kept


def keep_all(values, n):
    """The n largest of all."""
    order = np.argsort(-values.ravel(), kind="stable")[:n]
    kept = np.zeros(values.size)
    kept[order] = values.ravel()[order]
    return kept.reshape(values.shape)


def l1(p, held, x, y, at, norm="free", skip=None, centred=True):
    f = relu(pre(p, x, centred))
    weighted = f if norm == "unit" else f * lengths(p)
    raised = np.where(weighted > 0, np.maximum(weighted, 1e-300) ** at.power, 0).sum(1).mean()
    if at.power != 1:  # the coefficient keeps the term at the size of L1
        h = relu(pre(held, x, centred)) * lengths(held)
        h_raised = np.where(h > 0, np.maximum(h, 1e-300) ** at.power, 0).sum(1).mean()
        raised = raised * h.sum(1).mean() / h_raised
    out = decoded(p, f) + (0 if skip is None else x @ p.skip)
    return mean_square(y - out) + at.sparsity * raised


def auxk(p, z, left_held, dead):
    k = max(1, left_held.shape[1] // 2)
    found = keep_rows(np.where(dead, relu(z), 0), k) @ p.w_dec
    return ALPHA * mean_square(left_held - found)


def by_rows(p, held, x, y, at, k=3, by_length=False, centred=True):
    def kept(q):
        z = relu(pre(q, x, centred))
        return keep_rows(z, k, z * lengths(held) if by_length else None)

    left_held = y - decoded(held, kept(held))
    error = mean_square(y - decoded(p, kept(p)))
    return error + (auxk(p, pre(p, x, centred), left_held, at.dead) if at.dead.any() else 0)


def by_batch(p, held, x, y, at, widths=(F,)):
    f, f_held = (keep_all(relu(pre(q, x)), 3 * len(x)) for q in (p, held))
    errors = [mean_square(y - f[:, :m] @ p.w_dec[:m] - p.b_dec) for m in widths]
    aux = auxk(p, pre(p, x), y - decoded(held, f_held), at.dead) if at.dead.any() else 0
    return np.mean(errors) + aux


def gated(p, held, x, y, at):
    shared = (x - p.b_dec) @ p.w_enc
    gate = shared + p.b_enc
    f = (gate > 0) * relu(shared * np.exp(p.r_mag) + p.b_mag)
    opened = relu(gate)
    auxiliary = mean_square(y - decoded(held, opened))
    return mean_square(y - decoded(p, f)) + at.sparsity * opened.sum(1).mean() + auxiliary


def jumprelu(p, held, x, y, at, penalty):
    z = pre(p, x)
    f = z * (z > held.threshold)
    if penalty == "tanh":
        asked = np.tanh(4 * f * lengths(p)).sum(1).mean()
    else:
        count = (z > held.threshold).sum(1).mean()
        asked = D * (count if penalty == "l0" else (count / 3.0 - 1) ** 2)
    return mean_square(y - decoded(p, f)) + at.sparsity * asked


def crossed(p, held, x, y, at, k=None):
    def parts(q):
        f = relu(np.einsum("tsd,sdf->tf", x, q.w_enc) + q.b_enc)
        weighted = f * lengths(q).sum(axis=1)
        kept = f if k is None else f * (keep_all(weighted, k * len(x)) > 0)
        return f, weighted, y - np.einsum("tf,fsd->tsd", kept, q.w_dec) - q.b_dec

    f, weighted, left = parts(p)
    if k is None:
        return mean_square(left) + at.sparsity * weighted.sum(1).mean()
    _, rank, left_held = parts(held)
    found = keep_rows(np.where(at.dead, f, 0), D // 2, np.where(at.dead, rank, 0))
    aux = mean_square(left_held - np.einsum("tf,fsd->tsd", found, p.w_dec))
    return mean_square(left) + (ALPHA * aux if at.dead.any() else 0)


PAPERS = {
    "l1": l1,
    "l1_unit": lambda *a: l1(*a, norm="unit"),
    "p_anneal": l1,
    "topk": by_rows,
    "topk_by_length": lambda *a: by_rows(*a, by_length=True),
    "topk_annealed": lambda *a: by_rows(*a, k=4),
    "batchtopk": by_batch,
    "matryoshka": lambda *a: by_batch(*a, widths=(2, 5, F)),
    "gated": gated,
    "jumprelu_l0": lambda *a: jumprelu(*a, "l0"),
    "jumprelu_quadratic": lambda *a: jumprelu(*a, "quadratic"),
    "jumprelu_tanh": lambda *a: jumprelu(*a, "tanh"),
    "transcoder": lambda *a: by_rows(*a, centred=False),
    "skip_transcoder": lambda *a: l1(*a, skip=True, centred=False),
    "crosscoder": crossed,
    "crosscoder_topk": lambda *a: crossed(*a, k=3),
}
"""The loss of every case as its paper has it."""
