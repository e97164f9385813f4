"""How fast are edge scores beside the reference code of EAP-IG?

    sh benchmarks/peers/make_eap_ig.sh        # once: the peer's own environment
    uv run python benchmarks/edges.py         # about 10 minutes on two quiet cores

EAP and EAP-IG with 5 steps on a random model of GPT-2 small's shape, all 32,491 edges, 32 pairs of
16 tokens: pairs that differ at one token (the second subject of an IOI prompt), and for EAP pairs
that differ at every token but the first, where no prefix can be shared. The peer runs EAP-IG's own
functions with the same weights, at its best of three thread settings; the contestants alternate;
compile time is apart; a machine that others use voids the run. Exits non-zero when a score is less
than 4 times as fast, takes more than half the memory, or differs by more than 1e-4 of the largest.
"""

import contextlib
import statistics
import sys
import time

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
from patching import MATMULS, SHAPE, gpt2_shaped, random_pairs, weights_of
from peers._memory import peak, resident

from jaxcirc import attribution
from jaxcirc.taps import KINDS, Wiring
from jaxcirc.tasks import Prompts

WORKER = "benchmarks/peers/eap_ig_edges.py"
PYTHON = ROOT / ".peers/transformer_lens/bin/python"
PAIRS, LENGTH, STEPS, ROUNDS, GOAL, MEMORY, AGREE = 32, 16, 5, 2, 4.0, 0.5, 1e-4
CHANGED = {"one token": range(10, 11), "all but the first": range(1, LENGTH)}
METHODS = {"eap": {}, "eap_ig": {"steps": STEPS}}


def main() -> None:
    check_load()
    model = gpt2_shaped()
    rate = max(matmul_rate(MATMULS).values())
    print(f"matmul rate: {rate:.0f} GFLOP/s (best of the shapes used)")
    missed = 0
    with contextlib.ExitStack() as stack:
        peer = best_peer(stack, weights_of(stack, model))
        before = resident()
        for words, columns in CHANGED.items():
            prompts = random_pairs(PAIRS, LENGTH, columns)
            hand_over(peer, prompts)
            for method in METHODS if words == "one token" else ("eap",):
                missed += not compare(model, prompts, peer, method, words, rate, before)
    sys.exit(int(missed > 0))


def hand_over(peer: Peer, prompts: Prompts) -> None:
    rows = {"clean": prompts.clean, "corrupt": prompts.corrupt}
    rows |= {"answer": prompts.answers[:, 0], "wrong": prompts.wrongs[:, 0]}
    peer.ask("prompts", **{name: np.asarray(x).tolist() for name, x in rows.items()})


def best_peer(stack: contextlib.ExitStack, weights) -> Peer:
    """The peer under the setting in which EAP is fastest."""
    peers = {}
    for setting in settings():
        peer = peers[setting.name] = stack.enter_context(Peer(WORKER, setting, PYTHON))
        peer.ask("load", weights=str(weights), shape=SHAPE | {"d_vocab": 50257, "n_ctx": 64})
        hand_over(peer, random_pairs(8, LENGTH, CHANGED["one token"]))
    runs = {name: peer.runner("eap") for name, peer in peers.items()}
    warm_up(runs)
    best = best_of(runs)
    print(f"EAP-IG: best with {best}")
    for name, peer in peers.items():
        if name != best:
            peer.close()
    return peers[best]


def compare(model, prompts, peer: Peer, method: str, words: str, rate: float, before: int) -> bool:
    """Both scores, agreeing and alternating; whether ours meet the goals. `before`: bytes resident
    when only the model was there."""
    options = METHODS[method]
    along = "inputs" if options else "point"

    def score():
        return attribution.edges(model, prompts, along=along, **options)

    start = time.perf_counter()
    score()
    first = time.perf_counter() - start
    warm_up({"jaxcirc": timed(score)})
    with peak(before) as memory:
        ours = score().mean(axis=0)
    reply = peer.ask(method, **options)
    error = relative(ours, np.asarray(reply["scores"]))
    runs = {"jaxcirc": timed(score), "EAP-IG": peer.runner(method, **options)}
    seconds = alternate(runs, ROUNDS)
    print(f"{method}, {words}: compiling {first:.1f} s with the first call, not counted below")
    print(summary(seconds, "jaxcirc"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    floor = flops(model, prompts, options.get("steps", 1)) / rate / 1e9
    ratio, share = medians["EAP-IG"] / medians["jaxcirc"], memory["peak"] / reply["peak"]
    print(f"{method}, {words}: floor {floor:.2f} s: {floor / medians['jaxcirc']:.0%} is reached")
    size = f"{memory['peak'] / 1e9:.2f} GB at the peak"
    found = (
        (f"{ratio:.1f} times as fast, goal {GOAL:g}", ratio >= GOAL),
        (f"{size}, {share:.2f} of the peer's, goal {MEMORY:g}", share <= MEMORY),
        (f"scores differ by {error:.1e} of the largest, goal {AGREE:g}", error <= AGREE),
    )
    for said, met in found:
        print(f"{method}, {words}: {said}: {'met' if met else 'MISSED'}")
    return all(met for _, met in found)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of a score, over the largest score."""
    wiring = Wiring(SHAPE["n_layers"], SHAPE["n_heads"], SHAPE["n_heads"])
    column = columns(wiring)
    return float(np.abs(ours - theirs[wiring.source, column]).max() / np.abs(ours).max())


def columns(wiring: Wiring) -> np.ndarray:
    """Where the reference keeps each edge's reader: by layer all q, all k, all v, the MLP."""
    wide = 3 * wiring.n_heads + 1
    within = wiring.kind * wiring.n_heads + wiring.index
    within = np.where(wiring.kind == KINDS.index("mlp"), wide - 1, within)
    last = wiring.n_layers * wide
    return np.where(wiring.kind == KINDS.index("logits"), last, wiring.layer * wide + within)


def flops(model, prompts: Prompts, steps: int) -> float:
    """Two forwards, then per step a forward and a backward through activations, through the cone;
    and once the product of all writes with all readers' gradients."""
    c, suffix = model.config, LENGTH - int(prompts.first_difference().min())
    wiring = Wiring.of(model)
    blocks = 2.0 * c.n_layers * (4 * c.d_model * c.n_heads * c.d_head + 2 * c.d_model * c.d_mlp)
    forward = suffix * blocks + 2.0 * c.d_model * c.vocab
    once = 2 * forward + 2.0 * suffix * c.d_model * wiring.n_edges
    return len(prompts) * (once + 2 * steps * forward)


if __name__ == "__main__":
    main()
