"""How soon is a dictionary good, and what does training six places at once cost?

    sh benchmarks/peers/make_sae_trainers.sh      # once: the peer's own environment
    uv run python benchmarks/sae_training.py      # under 8 minutes on two quiet cores; the first
                                                  # time some 5 more, to sample and store a text
    uv run python benchmarks/sae_training.py --smoke   # small sizes, no judgement

First, seconds to a cross-entropy increase at equal L0: `fit` and dictionary_learning's TopK trainer
on the same stored activations (SmolLM2-135M, resid_post.12, text sampled from it), 32 of 2,048
features, batches of 2,048; each by its own default recipe, the peer also with our short warm-up,
and at its best of three thread settings. They take turns. The clock runs in training alone (of the
peer: its updates alone, of ours all of the loop, reading included); the increase, in nats on
contexts held out, is measured by one program for all. Compile time is apart.

Second, tokens a second of six places (three sites at two layers) in one pass of a `Stream` over
text, of one place, and of six passes.

A machine that others use voids the run. Exits non-zero unless ours reaches the best value that a
peer ends with twice as soon as that peer, and one pass is twice as fast as six.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _protocol import (
    OTHERS_LIMIT,
    ROOT,
    Peer,
    Watch,
    alternate,
    best_of,
    check_load,
    matmul_rate,
    settings,
    summary,
    timed,
    warm_up,
)

from jaxcirc import experiments, load_model
from jaxcirc.dictionaries import Config, fit, load_dictionary
from jaxcirc.dictionaries.train import Contexts, Run, Stored, Stream, save_activations
from jaxcirc.models import cache_dir
from jaxcirc.taps import AbstractDictionary, AbstractEdit, ByLayer, Sites, run

WORKER = "benchmarks/peers/sae_run.py"
PYTHON = ROOT / ".peers/saelens/bin/python"
SITE, LAYER, D, F, K, BATCH = "resid_post", 12, 576, 2048, 32, 2048
PLACE, GOAL, ONE_PASS, TARGET = f"{SITE}.{LAYER}", 2.0, 2.0, 0.6
SIX = [f"{site}.{layer}" for layer in (11, 12) for site in ("resid_post", "attn_out", "mlp_out")]
SHORT, ROWS = 2000, 16  # the second question's batch: 16 contexts have 2,032 tokens to learn from
MATMULS = ((BATCH, D, F), (2048, D, 1536), (2048, 2048, 2048))


@dataclass(frozen=True)
class Sizes:
    """Tokens stored, epochs over them, contexts held out, steps between two looks, the second
    question's batches, and its rounds."""

    tokens: int = 128 * BATCH
    epochs: int = 4
    held_out: int = 16
    interval: int = 64
    batches: int = 5
    rounds: int = 2

    @property
    def steps(self) -> int:
        return self.epochs * self.tokens // BATCH

    @property
    def points(self) -> list[int]:
        """Steps after which is looked, the first intervals halved."""
        early = [self.interval // 4, self.interval // 2]
        return early + list(range(self.interval, self.steps + 1, self.interval))


SMOKE = Sizes(tokens=8 * BATCH, epochs=4, held_out=4, interval=16, batches=2, rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, no judgement")
    smoke = parser.parse_args().smoke
    sizes = SMOKE if smoke else Sizes()
    model, tokenizer = load_model("smollm2-135m")
    wanted = experiments.enough(sizes.tokens) + sizes.held_out * 128
    text = experiments.contexts_of(model, tokenizer, tokens=wanted)
    text, rest = experiments.held_out(text, sizes.held_out)
    folder = stored(model, text, sizes)
    check_load()
    rate = max(matmul_rate(MATMULS, repeats=5).values())
    print(f"matmul rate: {rate:.0f} GFLOP/s (best of the shapes used)")
    met = [sooner(Increase(model, rest, norm_of(folder)), folder, sizes, rate)]
    met.append(at_once(model, text.take(slice(ROWS * sizes.batches)), sizes, rate))
    sys.exit(int(not (smoke or all(met))))


def stored(model, text: Contexts, sizes: Sizes) -> Path:
    """The activations, written once and kept."""
    folder = cache_dir() / "benchmarks" / f"{PLACE}-{sizes.tokens}-{text.hash()[:8]}"
    if not (folder / "index.json").exists():
        start = time.perf_counter()
        save_activations(Stream(model, text, [PLACE], batch=BATCH), folder, sizes.tokens)
        print(f"activations stored in {time.perf_counter() - start:.0f} s, not counted below")
    return folder


def norm_of(folder: Path) -> float:
    return json.loads((folder / "index.json").read_text())["facts"]["sink_norm"][PLACE]


# --- what a dictionary costs ------------------------------------------------------------------


class Instead(AbstractEdit):
    """The reconstruction in the place of x; the first token and sinks keep theirs."""

    dictionary: AbstractDictionary
    sink_norm: jax.Array

    def __call__(self, x):
        keep = jnp.linalg.norm(x, axis=-1, keepdims=True) <= self.sink_norm
        keep = keep & (jnp.arange(x.shape[1]) > 0)[:, None]
        return jnp.where(keep, self.dictionary.decode(self.dictionary.encode(x)), x), None


@jax.jit
def entropy(model, tokens: jax.Array, edits: Sites) -> jax.Array:
    """Mean cross-entropy of contexts [part row pos], a part at a time."""

    def part(rows):
        told = jax.nn.log_softmax(run(model, rows, edits)[0][:, :-1])
        return -jnp.take_along_axis(told, rows[:, 1:, None], axis=-1).mean()

    return jax.lax.map(part, tokens).mean()


class Increase:
    """Nats that a dictionary, spliced in, adds to the cross-entropy of text held out."""

    def __init__(self, model, text: Contexts, sink_norm: float):
        self.model, self.norm = model, jnp.asarray(sink_norm)
        self.tokens = jnp.asarray(text.tokens).reshape(-1, 4, text.length)
        self.clean = float(entropy(model, self.tokens, Sites()))

    def __call__(self, dictionary: AbstractDictionary) -> float:
        edit = ByLayer((Instead(dictionary, self.norm),), (LAYER,))
        return float(entropy(self.model, self.tokens, Sites(**{SITE: edit}))) - self.clean


# --- seconds to an increase -------------------------------------------------------------------


@dataclass
class Curve:
    """What a contestant had reached after so many seconds of training."""

    seconds: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)

    def add(self, seconds: float, nats: float) -> None:
        self.seconds.append(seconds)
        self.nats.append(nats)

    def reaches(self, target: float) -> float | None:
        """Seconds to a value, between two looks by a straight line; None if it is not reached."""
        for i, value in enumerate(self.nats):
            if value <= target:
                ends = (self.nats[i], self.nats[i - 1]), (self.seconds[i], self.seconds[i - 1])
                return float(np.interp(target, *ends)) if i else self.seconds[0]
        return None


class Turns:
    """Stands where `fit` takes checkpoints. After some steps it stops the clock, looks at the
    dictionary, and lets the others train as many steps."""

    folder = "nowhere"

    def __init__(self, points: list[int], told):
        self.points, self.told, self.seconds = points, told, 0.0

    def restore(self, *_) -> None:
        self._go()

    def save(self, step: int, run: Run, *_, **__) -> None:
        if step in self.points:
            jax.block_until_ready(run.states)
            self.seconds += time.perf_counter() - self.begun
            quiet(self.watch)
            self.told(step, self.seconds, so_far(run))
            self._go()

    def wait(self) -> None:
        pass

    def _go(self) -> None:
        self.watch, self.begun = Watch(), time.perf_counter()


def so_far(run: Run) -> AbstractDictionary:
    """The dictionary of a run of one, in the model's units."""
    (state,), (unit,) = run.states.values(), run.units.values()
    member = jax.tree.map(lambda leaf: leaf[0], state.dictionary)
    return member.scaled(1 / unit.inputs, 1 / unit.outputs)


def quiet(watch: Watch) -> None:
    """Ends the benchmark if others used the machine while it was watched."""
    others = watch.others()
    if others > OTHERS_LIMIT:
        sys.exit(f"benchmark void: others used {others:.2f} cores: run it on a quiet machine")


class Stop(Exception):
    """Enough of a warm-up."""


def sooner(increase: Increase, folder: Path, sizes: Sizes, rate: float) -> bool:
    """Everybody's curve; whether ours is soon enough."""
    config = Config("topk", d_dict=F, k=K, batch=BATCH, tokens=sizes.steps * BATCH)
    ours = "jaxcirc"
    with contextlib.ExitStack() as stack:
        peers = contestants(stack, folder, sizes, round(config.warmup * config.steps))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        curves = {name: Curve() for name in (ours, *peers)}
        l0 = {}

        def told(step: int, seconds: float, dictionary: AbstractDictionary) -> None:
            look(ours, seconds, dictionary)
            for name, (peer, done) in peers.items():
                watch = Watch()
                curve = curves[name].seconds
                more = peer.ask("train", steps=step - done[0])["seconds"]
                quiet(watch)
                done[0] = step
                peer.ask("save", folder=str(scratch))
                look(name, more + (curve[-1] if curve else 0.0), load_dictionary(scratch)[0])

        def look(name: str, seconds: float, dictionary: AbstractDictionary) -> None:
            curves[name].add(seconds, increase(dictionary))
            l0[name] = mean_l0(dictionary, folder)

        warm(config, folder, sizes)
        fit(config, Stored(folder, epochs=sizes.epochs), keep=Turns(sizes.points, told))
    print_curves(curves, l0, sizes)
    own = curves[ours].seconds[-1]
    floor = sizes.steps * step_flops(BATCH) / rate / 1e9
    print(f"training {own:.1f} s, arithmetic floor {floor:.1f} s: {floor / own:.0%} is reached")
    return judged(curves, ours)


def warm(config: Config, folder: Path, sizes: Sizes) -> None:
    """Everything of ours compiled."""
    start = time.perf_counter()

    def stop(*_) -> None:
        raise Stop

    with contextlib.suppress(Stop):
        fit(config, Stored(folder, epochs=sizes.epochs), keep=Turns([6], stop))
    print(f"compiling {time.perf_counter() - start:.1f} s with six steps, not counted below")


def contestants(
    stack: contextlib.ExitStack, folder: Path, sizes: Sizes, warmup: int
) -> dict[str, tuple[Peer, list[int]]]:
    """The peer by its default recipe, and with our warm-up, both under its best setting."""
    shards = sorted(map(str, folder.glob("*.safetensors")))
    steps = max(sizes.steps, 1001)  # it wants more steps than its warm-up has; there is no decay
    load = {"place": PLACE, "f": F, "k": K, "batch": BATCH, "steps": steps}
    peers = {}
    for setting in settings():
        peers[setting] = stack.enter_context(Peer(WORKER, setting, PYTHON))
        peers[setting].ask("load", shards=shards[:1], **load)
    runs = {setting: peer.runner("train", steps=2) for setting, peer in peers.items()}
    warm_up(runs)
    best = best_of(runs, calls=2)
    print(f"dictionary_learning: best with {best.name}")
    for peer in peers.values():
        peer.close()
    found = {}
    for words, options in (("", {}), (f", {warmup} warm-up", {"warmup_steps": warmup})):
        peer = stack.enter_context(Peer(WORKER, best, PYTHON))
        peer.ask("load", shards=shards, **load, **options)
        found[f"dictionary_learning{words}"] = peer, [0]
    return found


def mean_l0(dictionary: AbstractDictionary, folder: Path) -> float:
    """Active features on one batch of what was stored."""
    x, _ = Stored(folder).batch()[PLACE]
    return float(active(dictionary, x))


@jax.jit
def active(dictionary: AbstractDictionary, x: jax.Array) -> jax.Array:
    return (dictionary.encode(x) != 0).sum(axis=-1).mean()


def print_curves(curves: dict[str, Curve], l0: dict[str, float], sizes: Sizes) -> None:
    names = list(curves)
    print("steps  " + "  ".join(f"{name:>36}" for name in names))
    for i, step in enumerate(sizes.points):
        cells = (f"{curves[n].seconds[i]:.1f} s, {curves[n].nats[i]:.3f} nats" for n in names)
        print(f"{step:5}  " + "  ".join(f"{cell:>36}" for cell in cells))
    print("   L0  " + "  ".join(f"{l0[name]:36.1f}" for name in names))


def judged(curves: dict[str, Curve], ours: str) -> bool:
    """Seconds to the fixed target and to each peer's last value; whether ours meets the goal at the
    lowest of these."""
    others = {name: curve for name, curve in curves.items() if name != ours}
    best = min(others, key=lambda name: others[name].nats[-1])
    targets = {f"{TARGET:g} nats": TARGET}
    targets |= {f"{c.nats[-1]:.3f} nats, where {n} ends": c.nats[-1] for n, c in others.items()}
    for words, target in targets.items():
        said = (f"{name} {_seconds(curve.reaches(target))}" for name, curve in curves.items())
        print(f"to {words}: " + "; ".join(said))
    target = others[best].nats[-1]
    own, theirs = curves[ours].reaches(target), others[best].reaches(target)
    ratio = 0.0 if own is None or theirs is None else theirs / own
    return verdict(f"{ratio:.1f} times as soon as {best} at its end", ratio, GOAL)


def _seconds(found: float | None) -> str:
    return "never" if found is None else f"{found:.1f} s"


def verdict(words: str, ratio: float, goal: float) -> bool:
    print(f"{words}, goal {goal:g}: {'met' if ratio >= goal else 'MISSED'}")
    return ratio >= goal


# --- six places in one pass -------------------------------------------------------------------


def at_once(model, text: Contexts, sizes: Sizes, rate: float) -> bool:
    """Six places in one pass, one, and six passes; whether one pass is fast enough."""
    norms = Stream(model, text, SIX, batch=SHORT, rows=ROWS).sink_norm
    config = Config("topk", d_dict=F, k=K, batch=SHORT, tokens=sizes.batches * SHORT)

    def train(*passes: list[str]) -> None:
        for places in passes:
            options = {"batch": SHORT, "rows": ROWS, "sink_norm": norms}
            fitted = fit(config, Stream(model, text, places, **options))
            jax.block_until_ready(eqx.filter(fitted.dictionaries, eqx.is_array))

    runs = {
        "six in one pass": timed(partial(train, SIX)),
        "one": timed(partial(train, [PLACE])),
        "six passes": timed(partial(train, *([place] for place in SIX))),
    }
    warm_up(runs, calls=1)
    seconds = alternate(runs, sizes.rounds)
    print(summary(seconds, "six in one pass"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, found in medians.items():
        print(f"{name}: {config.tokens / found:,.0f} tokens/s")
    whole = len(text) * text.length * forward_flops(model) + 6 * sizes.batches * step_flops(SHORT)
    floor, own = whole / rate / 1e9, medians["six in one pass"]
    print(f"six in one pass: arithmetic floor {floor:.2f} s: {floor / own:.0%} is reached")
    print(f"six in one pass take {own / medians['one']:.2f} times the seconds of one")
    ratio = medians["six passes"] / own
    return verdict(f"{ratio:.1f} times as fast as six passes", ratio, ONE_PASS)


def forward_flops(model) -> float:
    """Of a token through the layers below and with the tapped one; attention's products aside."""
    c = model.config
    attention = 2 * c.d_model * (c.n_heads + c.n_kv_heads) * c.d_head
    return 2.0 * (LAYER + 1) * (attention + 3 * c.d_model * c.d_mlp)


def step_flops(tokens: int) -> float:
    """Encoding is dense; decoding and three gradients touch K rows a token."""
    return 2.0 * tokens * D * F + 4 * 2.0 * tokens * D * K


if __name__ == "__main__":
    main()
