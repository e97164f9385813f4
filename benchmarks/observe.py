"""How long do all heads' features for an observable take, beside one batched einsum in PyTorch?

    sh benchmarks/peers/make_torch.sh           # once: the PyTorch peers' own environment
    uv run python benchmarks/observe.py         # about 2 minutes on two quiet cores

SmolLM2-135M, 270 heads, " she" - " he": one compiled call of ours against PyTorch as one batched
einsum, with each head's own copy of its value weights, and as two batched products at their true
width. A timing is of 50 calls. Each contestant has its best of three thread settings; they
alternate; compile time is apart; a machine that others use voids the run. Printed beside: the share
of the time that reading the weights once takes at the rate measured here. Exits non-zero when ours
is slower than the einsum, or when the lengths differ by more than 1e-4 of the largest.
"""

import contextlib
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from _protocol import Peer, alternate, best_of, check_load, settings, summary, timed, warm_up

import jaxcirc
from jaxcirc.models import MODELS
from jaxcirc.observables import Observable, feature_norms

WORKER = "benchmarks/peers/torch_observables.py"
REPEATS, ROUNDS, GOAL, AGREE = 50, 5, 1.0, 1e-4
WAYS = ("einsum", "products")


def main() -> None:
    check_load()
    model, tokenizer = jaxcirc.load_model("smollm2-135m")
    asked = Observable.of(tokenizer, " she", " he")

    def ours():
        return jax.block_until_ready([feature_norms(model, asked) for _ in range(REPEATS)])

    start = time.perf_counter()
    jax.block_until_ready(feature_norms(model, asked))
    print(f"compiling {time.perf_counter() - start:.1f} s with the first call, not counted below")
    with contextlib.ExitStack() as stack:
        peers = {way: best_peer(stack, asked, way) for way in WAYS}
        runs = {"jaxcirc": timed(ours)}
        runs |= {
            f"PyTorch, {way}": peer.runner("features", way=way, repeats=REPEATS)
            for way, peer in peers.items()
        }
        warm_up(runs)
        seconds = alternate(runs, ROUNDS)
        theirs = np.asarray(peers["einsum"].ask("features", way="einsum", repeats=1)["norms"])
    print(f"seconds of {REPEATS} calls, with {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    print(summary(seconds, "jaxcirc"))
    report(model, seconds, np.asarray(feature_norms(model, asked)), theirs)


def best_peer(stack: contextlib.ExitStack, asked: Observable, way: str) -> Peer:
    """The peer under the setting in which this way is fastest."""
    peers = {}
    for setting in settings():
        peer = peers[setting.name] = stack.enter_context(Peer(WORKER, setting))
        peer.ask("load", gguf=str(MODELS["smollm2-135m"].paths()[0]))
        peer.ask("observable", tokens=list(asked.tokens), weights=list(asked.weights))
    runs = {name: p.runner("features", way=way, repeats=REPEATS) for name, p in peers.items()}
    warm_up(runs)
    best = best_of(runs)
    print(f"PyTorch, {way}: best with {best}")
    for name, peer in peers.items():
        if name != best:
            peer.close()
    return peers[best]


def report(model, seconds: dict[str, list[float]], ours: np.ndarray, theirs: np.ndarray) -> None:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    attn = model.blocks.attn
    size = (attn.w_o.size + attn.w_v.size) * attn.w_o.dtype.itemsize
    floor = size / rate() * REPEATS
    print(f"reading {size / 1e6:.0f} MB once: {floor / medians['jaxcirc']:.0%} of our time")
    ratio = medians["PyTorch, einsum"] / medians["jaxcirc"]
    error = float(np.abs(ours - theirs).max() / theirs.max())
    found = (
        (f"{ratio:.1f} times as fast as the einsum, goal {GOAL:g}", ratio >= GOAL),
        (f"lengths differ by {error:.1e} of the largest, goal {AGREE:g}", error <= AGREE),
    )
    for said, met in found:
        print(f"{said}: {'met' if met else 'MISSED'}")
    print(f"{medians['PyTorch, products'] / medians['jaxcirc']:.1f} times as fast as the products")
    sys.exit(int(not all(met for _, met in found)))


def rate(size: int = 1 << 26) -> float:
    """Bytes a second of a jitted sum over an array that no cache holds."""
    array = jnp.ones(size)
    total = jax.jit(jnp.sum)
    jax.block_until_ready(total(array))
    start = time.perf_counter()
    jax.block_until_ready([total(array) for _ in range(5)])
    return 5 * array.nbytes / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
