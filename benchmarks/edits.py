"""How fast are greedy edits by few features?

    sh benchmarks/peers/make_torch.sh         # once: the peers' own environment
    uv run python benchmarks/edits.py         # about three minutes on two quiet cores

256 prompts, 16,384 features of which 32 a prompt are active, four moves each: in the 64 dimensions
of a head, as the document has them, and in the 576 of SmolLM2's residual stream. The peers are
PyTorch in a process of its own, at its best of three thread settings: the same algorithm with one
product a round, and in 64 dimensions the reference's form, which makes a [batch feature d] array a
round. The contestants alternate; compile time is apart; a machine that others use voids the run.
Dense codes, for which nothing can be left out, are told beside, without a goal. Exits non-zero when
ours are less than 1.5 times as fast as the product form, less than 10 times as fast as the
reference's or take more than a hundredth of its memory, or when edits differ. Memory is that of a
call, on both sides above what was resident before it, once free heap had been given back.
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
from peers._memory import peak, settled

from jaxcirc.dictionaries import greedy_edit

WORKER = "benchmarks/peers/torch_edits.py"
PROMPTS, FEATURES, ACTIVE, MOVES, ROUNDS = 256, 16_384, 32, 4, 5
WIDTHS = {"a head": 64, "the residual stream": 576}
GOALS = {"product": 1.5, "reference": 10.0}
MEMORY, AGREE = 0.01, 1e-4


def main() -> None:
    check_load()
    missed = 0
    for words, d in WIDTHS.items():
        rate = max(matmul_rate(((PROMPTS, d, FEATURES),)).values())
        print(f"{words}, {d} dimensions: matmul rate {rate:.0f} GFLOP/s")
        arrays = random_case(d, ACTIVE)
        forms = ("product", "reference") if d == 64 else ("product",)
        missed += race(arrays, words, forms, rate, goals=True)
        race(random_case(d, FEATURES), f"{words}, dense codes", ("product",), rate, goals=False)
    sys.exit(int(missed > 0))


def random_case(d: int, active: int) -> dict[str, np.ndarray]:
    """Unit directions, sparse coefficients of source and target, and the way between them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((FEATURES, d), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sides = {name: codes(rng, active) for name in ("source", "target")}
    gap = (sides["target"] - sides["source"]) @ rows
    gap += 0.1 * rng.standard_normal(gap.shape, np.float32)
    return {"directions": rows, **sides, "gap": gap}


def codes(rng: np.random.Generator, active: int) -> np.ndarray:
    found = np.zeros((PROMPTS, FEATURES), np.float32)
    for row in found:
        at = rng.choice(FEATURES, active, replace=False)
        row[at] = rng.uniform(0.5, 2, active) / max(1, active / ACTIVE)
    return found


def race(arrays, words: str, forms: tuple[str, ...], rate: float, goals: bool) -> int:
    """All contestants on one case; how many goals are missed."""
    with contextlib.ExitStack() as stack:
        peers = {form: best_peer(stack, arrays, form) for form in forms}
        given = {name: jnp.asarray(x) for name, x in arrays.items()}
        before = settled()

        def edit():
            return jax.block_until_ready(greedy_edit(**given, k=MOVES))

        start = time.perf_counter()
        edit()
        print(f"{words}: {time.perf_counter() - start:.1f} s the first time, with compiling")
        warm_up({"jaxcirc": timed(edit)})
        compiled = settled()
        with peak(compiled) as memory:
            ours = edit()
        replies = {form: peer.ask(form, moves=MOVES) for form, peer in peers.items()}
        runs = {"jaxcirc": timed(edit)}
        runs |= {form: peer.runner(form, moves=MOVES) for form, peer in peers.items()}
        seconds = alternate(runs, ROUNDS)
    print(summary(seconds, "jaxcirc"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    told(words, arrays, medians["jaxcirc"], rate, memory["peak"], compiled - before)
    found = []
    for form, reply in replies.items():
        error = difference(np.asarray(ours.left), np.asarray(reply["left"]))
        ratio, goal = medians[form] / medians["jaxcirc"], GOALS[form]
        found += [(f"{ratio:.1f} times as fast as the {form} form, goal {goal:g}", ratio >= goal)]
        found += [(f"edits differ by {error:.1e}, goal {AGREE:g}", error <= AGREE)]
        if form == "reference":
            share = memory["peak"] / reply["peak"]
            said = f"{share:.4f} of its {reply['peak'] / 1e9:.2f} GB, goal {MEMORY:g}"
            found += [(said, share <= MEMORY)]
    for said, met in found:
        verdict = "" if not goals else ": met" if met else ": MISSED"
        print(f"{words}: {said}{verdict}")
    return sum(not met for _, met in found) if goals else 0


def best_peer(stack: contextlib.ExitStack, arrays, form: str) -> Peer:
    """The peer under the setting in which the form is fastest."""
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "case.npz"
    np.savez(path, **arrays)
    peers = {}
    for setting in settings():
        peer = peers[setting.name] = stack.enter_context(Peer(WORKER, setting))
        peer.ask("load", path=str(path))
    runs = {name: peer.runner(form, moves=MOVES) for name, peer in peers.items()}
    warm_up(runs)
    best = best_of(runs)
    print(f"PyTorch, {form}: best with {best}")
    for name, peer in peers.items():
        if name != best:
            peer.close()
    return peers[best]


def told(words: str, arrays, seconds: float, rate: float, memory: int, compiled: int) -> None:
    """Our peak memory, apart from what compiling left, and the share of the arithmetic that the
    result needs: a product of what is left with every direction that may be moved, in every
    round."""
    d = arrays["directions"].shape[1]
    moved = int((arrays["source"] != arrays["target"]).sum())
    floor, dense = (2.0 * MOVES * n * d / rate / 1e9 for n in (moved, PROMPTS * FEATURES))
    print(
        f"{words}: {memory / 1e6:.1f} MB at the peak of a call, beside {compiled / 1e6:.1f} MB of"
        f" compiled programs; floor {1e3 * floor:.2f} ms for the features"
        f" that differ ({floor / seconds:.0%} is reached), {1e3 * dense:.1f} ms for all of them"
    )


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of a squared distance, over the largest one."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    main()
