"""How fast is a plain forward pass of SmolLM2-135M, beside transformers in PyTorch?

    sh benchmarks/peers/make_torch.sh           # once: the PyTorch peers' own environment
    uv run python benchmarks/forward.py         # about 3 minutes on two quiet cores
    uv run python benchmarks/forward.py --smoke # few texts, two calls; busy machine or not

Two shapes: 16 texts of 128 tokens, and 32 of 16. Both sides compute every layer at every position
and the logits of the last position only (`logits_at=-1`; `logits_to_keep=1` in transformers), in
float32, from the same GGUF file. The peer has its best of three thread settings; the contestants
alternate; compile time is apart; a machine that others use voids the run. Printed: the ratio, and
the share of the measured matmul rate that our arithmetic reaches. Exits non-zero when the two
disagree.
"""

import argparse
import contextlib
import math
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from _protocol import (
    OTHERS_LIMIT,
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
from sweep import WORKER, layer_flops

import jaxcirc
from jaxcirc.models import MODELS

SHAPES = ((16, 128), (32, 16))
SMOKE = ((2, 128), (4, 16))
ROUNDS = 7
TOLERANCE = 2e-3  # logits


def main() -> None:
    smoke = arguments().smoke
    limit, rounds, shapes = (math.inf, 2, SMOKE) if smoke else (OTHERS_LIMIT, ROUNDS, SHAPES)
    check_load(limit=limit)
    model, _ = jaxcirc.load_model("smollm2-135m")
    rate = max(matmul_rate().values())
    print(f"matmul rate: {rate:.0f} GFLOP/s (best of the shapes used)")
    with contextlib.ExitStack() as stack:
        peers = {setting.name: loaded(stack, setting) for setting in settings()}
        errors = [compare(model, peers, shape, rate, rounds, limit) for shape in shapes]
    if max(errors) > TOLERANCE:
        sys.exit(f"transformers disagrees with our forward by {max(errors):.1e} logits")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--smoke", action="store_true", help="few texts, two calls each, machine not watched"
    )
    return parser.parse_args()


def loaded(stack: contextlib.ExitStack, setting) -> Peer:
    peer = stack.enter_context(Peer(WORKER, setting))
    peer.ask("load", gguf=str(MODELS["smollm2-135m"].paths()[0]))
    return peer


def compare(model, peers: dict[str, Peer], shape, rate: float, rounds: int, limit: float) -> float:
    """Print the times of one shape; returns the largest difference in the logits compared."""
    tokens = jax.random.randint(jax.random.key(0), shape, 0, model.config.vocab)
    print(f"\n{shape[0]} texts of {shape[1]} tokens")
    ours = our_forward(model, tokens)
    for peer in peers.values():
        peer.ask("prompts", **columns(tokens))
    theirs = {name: peer.runner("forward", way="last") for name, peer in peers.items()}
    warm_up(theirs)
    best = best_of(theirs, calls=2, limit=limit)
    print(f"transformers: best with {best}")
    runs = {"jaxcirc": ours, "transformers": theirs[best]}
    seconds = alternate(runs, rounds, limit)
    print(summary(seconds, "jaxcirc"))
    floor = forward_flops(model, *shape) / rate / 1e9
    median = statistics.median(seconds["jaxcirc"])
    print(f"arithmetic floor {floor:.3f} s: {floor / median:.0%} of the matmul rate is reached")
    return disagreement(model, tokens, peers[best])


def our_forward(model, tokens):
    """Our contestant, compiled and warmed up."""

    def forward():
        return jax.block_until_ready(jaxcirc.run(model, tokens, logits_at=-1)[0])

    start = time.perf_counter()
    forward()
    first = time.perf_counter() - start
    run = timed(forward)
    warm_up({"jaxcirc": run})
    print(f"compile time: {first - run():.1f} s, not counted below")
    return run


def columns(tokens: jax.Array) -> dict[str, list]:
    """The worker's prompts: its metric compares the logits of two arbitrary tokens."""
    rows = np.asarray(tokens).tolist()
    answer, wrong = ([i] * len(rows) for i in (260, 1000))
    return {"clean": rows, "corrupt": rows, "answer": answer, "wrong": wrong}


def disagreement(model, tokens: jax.Array, peer: Peer) -> float:
    """The largest difference between their logit differences and ours."""
    theirs = jnp.asarray(peer.ask("forward", way="last")["metric"])
    logits, _ = jaxcirc.run(model, tokens, logits_at=-1)
    error = float(jnp.abs(logits[:, 260] - logits[:, 1000] - theirs).max())
    print(f"largest difference from transformers: {error:.1e} logits")
    return error


def forward_flops(model, batch: int, length: int) -> float:
    """Of the matrix products: weights, all scores and values, and the last position's logits."""
    c = model.config
    attention = 4.0 * length * c.n_heads * c.d_head
    return batch * (
        length * c.n_layers * (layer_flops(model) + attention) + 2.0 * c.d_model * c.vocab
    )


if __name__ == "__main__":
    main()
