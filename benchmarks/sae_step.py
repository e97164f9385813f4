"""How fast is a step of dictionary training beside SAELens and dictionary_learning?

    sh benchmarks/peers/make_sae_trainers.sh     # once: the peers' own environment
    uv run python benchmarks/sae_step.py         # about 10 minutes on two quiet cores

Whole steps (loss, gradient, Adam, constraints, counts) on 2,048 tokens of width 576: TopK with 32
of 4,608 and of 18,432 features, L1 and JumpReLU with 4,608. Everyone has a process of its own; the
peers run their own trainers' steps, each at its best of three thread settings; the contestants
alternate; compile time is apart; memory is counted from when a library is awake and has its tokens;
a machine that others use voids the run. Exits non-zero unless TopK is 2 and 4 times as fast as the
faster peer, the others 1.3 times, with no more memory.
"""

import contextlib
import statistics
import sys

from _protocol import (
    ROOT,
    Peer,
    alternate,
    best_of,
    check_load,
    matmul_rate,
    settings,
    summary,
    warm_up,
)

OURS = "benchmarks/_sae_stepper.py"
WORKER = "benchmarks/peers/sae_trainers.py"
PYTHON = ROOT / ".peers/saelens/bin/python"
LIBRARIES = ("dictionary_learning", "saelens")
D, K, BATCH, ROUNDS = 576, 32, 2048, 5
CASES = (("topk", 4608, 2.0), ("topk", 18432, 4.0), ("l1", 4608, 1.3), ("jumprelu", 4608, 1.3))
MATMULS = ((BATCH, D, 4608), (BATCH, D, 18432), (2048, 2048, 2048))


def main() -> None:
    check_load()
    rate = max(matmul_rate(MATMULS, repeats=5).values())
    print(f"matmul rate: {rate:.0f} GFLOP/s (best of the shapes used)")
    missed = sum(not compare(*case, rate) for case in CASES)
    sys.exit(int(missed > 0))


def compare(architecture: str, f: int, goal: float, rate: float) -> bool:
    """One case; whether its goals are met."""
    title = f"{architecture}, {f:,} features"
    with contextlib.ExitStack() as stack:
        peers = {name: best_peer(stack, name, architecture, f) for name in LIBRARIES}
        own = stack.enter_context(Peer(OURS, settings()[1], sys.executable))
        first = own.ask("load", architecture=architecture, d=D, f=f, k=K, batch=BATCH)["seconds"]
        print(f"{title}: the first step {first:.1f} s, compiling with it, not counted below")
        runs = {name: peer.runner("step") for name, peer in ({"jaxcirc": own} | peers).items()}
        warm_up({"jaxcirc": runs["jaxcirc"]})
        seconds = alternate(runs, ROUNDS)
        memory = own.ask("step")["peak"]
        theirs = min(peer.ask("step")["peak"] for peer in peers.values())
    print(summary(seconds, "jaxcirc"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = min(medians[name] for name in LIBRARIES) / medians["jaxcirc"]
    floor = flops(architecture, f) / rate / 1e9
    print(f"{title}: floor {floor:.3f} s: {floor / medians['jaxcirc']:.0%} is reached")
    share = memory / theirs
    found = (
        (f"{ratio:.2f} times as fast as the faster peer, goal {goal:g}", ratio >= goal),
        (f"{memory / 1e6:.0f} MB, {share:.2f} of the smaller peer's, goal 1", share <= 1),
    )
    for said, met in found:
        print(f"{title}: {said}: {'met' if met else 'MISSED'}")
    return all(met for _, met in found)


def best_peer(stack: contextlib.ExitStack, library: str, architecture: str, f: int) -> Peer:
    """A library's trainer under the setting in which it is fastest."""
    peers = {}
    for setting in settings():
        peer = peers[setting.name] = stack.enter_context(Peer(WORKER, setting, PYTHON))
        peer.ask("load", library=library, architecture=architecture, d=D, f=f, k=K, batch=BATCH)
    runs = {name: peer.runner("step") for name, peer in peers.items()}
    warm_up(runs)
    best = best_of(runs, calls=2)
    print(f"{library}: best with {best}")
    for name, peer in peers.items():
        if name != best:
            peer.close()
    return peers[best]


def flops(architecture: str, f: int) -> float:
    """Multiply-adds twice: TopK encodes densely and touches K rows in decoding and three gradients;
    the others do five dense products."""
    dense = 2.0 * BATCH * D * f
    return dense + 4 * 2.0 * BATCH * D * K if architecture == "topk" else 5 * dense


if __name__ == "__main__":
    main()
