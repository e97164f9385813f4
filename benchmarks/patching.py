"""How fast are exact patching sweeps beside TransformerLens's own?

    sh benchmarks/peers/make_transformer_lens.sh   # once: the peer's own environment
    uv run python benchmarks/patching.py           # about 10 minutes on two quiet cores

The full layer x position sweep of `resid_pre` and the sweep of every head at all positions, on a
random model of GPT-2 small's shape with 8 pairs of 15 tokens that differ at one (the second subject
of an IOI prompt), denoising. The peer runs `transformer_lens.patching` with the same weights, at
its best of three thread settings; the contestants alternate; compile time is apart; a machine that
others use voids the run. Exits non-zero when a sweep is less than 6 times as fast.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _protocol import (
    ROOT,
    Peer,
    alternate,
    best_of,
    check_load,
    matmul_rate,
    settings,
    summary,
    timed,
    warm_up,
)

import jaxcirc
from jaxcirc.models import toy
from jaxcirc.tasks import Prompts

WORKER = "benchmarks/peers/transformer_lens_sweep.py"
PYTHON = ROOT / ".peers/transformer_lens/bin/python"
PAIRS, LENGTH, CHANGED, ROUNDS, GOAL = 8, 15, 10, 3, 6.0
SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_mlp": 3072}
MATMULS = ((600, 768, 3072), (1200, 768, 3072), (1536, 1536, 1536))
SWEEPS = {"resid": ("resid_pre", ("pos",)), "heads": ("z", ("head",))}


def main() -> None:
    check_load()
    model, prompts = gpt2_shaped(), random_pairs(PAIRS, LENGTH, range(CHANGED, CHANGED + 1))
    rate = max(matmul_rate(MATMULS).values())
    print(f"matmul rate: {rate:.0f} GFLOP/s (best of the shapes used)")
    missed = 0
    with contextlib.ExitStack() as stack:
        peer = best_peer(stack, weights_of(stack, model), prompts)
        for command, (site, by) in SWEEPS.items():
            missed += not compare(model, prompts, peer, command, site, by, rate)
    sys.exit(int(missed > 0))


def gpt2_shaped():
    """A random model of GPT-2 small's shape, biases and norm gains included."""
    options = {"n_kv_heads": 12, "vocab": 50257, "norm": "layer", "positions": "learned"}
    return toy(
        jax.random.key(0), **SHAPE, **options, gated=False, activation="gelu_tanh", biases=True
    )


def random_pairs(n: int, length: int, changed: range) -> Prompts:
    """Random pairs of GPT-2's tokens that differ at some columns."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 50257, (n, length))
    corrupt = clean.copy()
    corrupt[:, list(changed)] = rng.integers(0, 50257, (n, len(changed)))
    answers, wrongs = (jnp.asarray(rng.integers(0, 50257, (n, 1))) for _ in range(2))
    one = jnp.ones((n, 1))
    return Prompts(
        clean=jnp.asarray(clean),
        corrupt=jnp.asarray(corrupt),
        mask=jnp.ones(clean.shape, bool),
        answers=answers,
        answer_weights=one,
        wrongs=wrongs,
        wrong_weights=one,
        spans={},
        templates=jnp.arange(n),
    )


def weights_of(stack: contextlib.ExitStack, model) -> Path:
    """The model's weights under TransformerLens's names, in a temporary file."""
    b, found = model.blocks, {"embed.W_E": model.embed, "pos_embed.W_pos": model.pos_embed}
    found |= {"unembed.W_U": model.embed.T, "unembed.b_U": jnp.zeros(model.config.vocab)}
    found |= {"ln_final.w": model.final_norm.weight, "ln_final.b": model.final_norm.bias}
    layers = {"ln1.w": b.attn_norm.weight, "ln1.b": b.attn_norm.bias}
    layers |= {"ln2.w": b.mlp_norm.weight, "ln2.b": b.mlp_norm.bias}
    for name in "qkv":
        layers[f"attn.W_{name.upper()}"] = jnp.swapaxes(getattr(b.attn, f"w_{name}"), 1, 2)
        layers[f"attn.b_{name.upper()}"] = getattr(b.attn, f"b_{name}")
    layers |= {"attn.W_O": b.attn.w_o, "attn.b_O": b.attn.b_o}
    layers |= {"mlp.W_in": b.mlp.w_in, "mlp.b_in": b.mlp.b_in}
    layers |= {"mlp.W_out": b.mlp.w_out, "mlp.b_out": b.mlp.b_out}
    for name, stacked in layers.items():
        found |= {f"blocks.{i}.{name}": stacked[i] for i in range(model.n_layers)}
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights.npz"
    np.savez(path, **{name: np.asarray(value) for name, value in found.items()})
    return path


def best_peer(stack: contextlib.ExitStack, weights: Path, prompts: Prompts) -> Peer:
    """The peer under the setting in which a layer's sweep is fastest."""
    shape = SHAPE | {"d_vocab": 50257, "n_ctx": 64}
    peers = {}
    for setting in settings():
        peer = peers[setting.name] = stack.enter_context(Peer(WORKER, setting, PYTHON))
        peer.ask("load", weights=str(weights), shape=shape)
        columns = {"clean": prompts.clean, "corrupt": prompts.corrupt}
        answers = {"answer": prompts.answers[:, 0], "wrong": prompts.wrongs[:, 0]}
        peer.ask("prompts", **{k: np.asarray(x).tolist() for k, x in (columns | answers).items()})
    runs = {name: peer.runner("resid", layers=1) for name, peer in peers.items()}
    warm_up(runs)
    best = best_of(runs)
    print(f"TransformerLens: best with {best}")
    for name, peer in peers.items():
        if name != best:
            peer.close()
    return peers[best]


def compare(model, prompts: Prompts, peer: Peer, command: str, site: str, by, rate: float) -> bool:
    """Both sweeps, agreeing and alternating; whether ours is fast enough."""

    def sweep():
        effects = jaxcirc.patching.sweep(model, prompts, site, direction="denoise", by=by)
        return jax.block_until_ready(effects.raw)

    start = time.perf_counter()
    effects = np.asarray(sweep()).mean(axis=0)
    first = time.perf_counter() - start
    warm_up({"jaxcirc": timed(sweep)})
    start = time.perf_counter()
    sweep()
    print(f"{site}: compile time {first - (time.perf_counter() - start):.1f} s, not counted below")
    error = float(np.abs(np.asarray(peer.ask(command)["effects"]) - effects).max())
    print(f"{site}: largest difference from TransformerLens: {error:.1e} logits")
    if error > 2e-3:
        sys.exit(f"TransformerLens disagrees by {error:.1e} logits")
    seconds = alternate({"jaxcirc": timed(sweep), "TransformerLens": peer.runner(command)}, ROUNDS)
    print(summary(seconds, "jaxcirc"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    floor = sweep_flops(model, prompts, site) / rate / 1e9
    print(f"{site}: arithmetic floor {floor:.2f} s: {floor / medians['jaxcirc']:.0%} is reached")
    ratio = medians["TransformerLens"] / medians["jaxcirc"]
    print(
        f"{site}: {ratio:.1f} times as fast, goal {GOAL:g}: {'met' if ratio >= GOAL else 'MISSED'}"
    )
    return ratio >= GOAL


def sweep_flops(model, prompts: Prompts, site: str) -> float:
    """What the patched rows need through the causal cone, layer by layer and column by column."""
    c, changed = model.config, int(prompts.first_difference().min())
    per_layer = 2.0 * (4 * c.d_model * c.n_heads * c.d_head + 2 * c.d_model * c.d_mlp)
    depth = c.n_layers * (c.n_layers + 1) / 2
    if site == "resid_pre":
        suffixes = [LENGTH - column for column in range(changed, LENGTH)]
        tokens, rows = depth * sum(suffixes), c.n_layers * len(suffixes)
    else:
        tokens, rows = depth * c.n_heads * (LENGTH - changed), c.n_layers * c.n_heads
    return len(prompts) * (tokens * per_layer + rows * 2.0 * c.d_model * c.vocab)


if __name__ == "__main__":
    main()
