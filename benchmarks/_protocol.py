"""How every benchmark here is run: live peers, warm-up, alternation, and a quiet machine.

A peer is a worker process in its own environment, spoken to line by line (JSON in, JSON out), so
that both sides of a ratio are measured in one run, on one machine, minutes apart at most. Each
contestant gets three warm-up calls and its best of three settings (one thread, two threads, two
threads that sleep while waiting); then the contestants alternate. Other processes' use of the
cores is read from /proc around every timed call: too much of it voids the benchmark.

Imports the standard library only (jax inside `matmul_rate`), and nothing of jaxcirc.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ROOT / ".peers/torch/bin/python"
MATMULS = ((600, 576, 1536), (1620, 576, 1536), (1536, 1536, 1536))  # as in peers/torch_sweep.py
WARM_UP = 3
OTHERS_LIMIT = 0.1  # cores used by others (and stolen by the host) above which a timing is void

TRIES = 4

Run = Callable[[], float]  # one call of a contestant; returns the seconds it took


# --- settings and peers -----------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Threads of a process, and whether idle threads sleep ("PASSIVE") or spin (None: default)."""

    name: str
    threads: int
    wait_policy: str | None = None

    def environment(self) -> dict[str, str]:
        """The whole environment of a process under this setting (OpenMP, MKL and XLA alike)."""
        kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        n = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC"), str(self.threads))
        return kept | n | ({"OMP_WAIT_POLICY": self.wait_policy} if self.wait_policy else {})


def settings() -> tuple[Setting, ...]:
    """The three settings of which each contestant gets its best."""
    return Setting("1 thread", 1), Setting("2 threads", 2), Setting("2 passive", 2, "PASSIVE")


class Peer:
    """A live worker process: `with Peer(worker, setting) as peer: peer.ask("load", gguf=path)`.

    `worker` is a path from the repository's root ("benchmarks/peers/torch_sweep.py"); `python` is
    the worker's own interpreter.
    """

    def __init__(self, worker: str, setting: Setting, python: Path | str = TORCH):
        if not Path(python).exists():
            raise SystemExit(
                f"no peer environment at {python}: run its script under benchmarks/peers/ first"
            )
        self.name = f"{Path(worker).stem}, {setting.name}"
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(python), str(ROOT / worker)],
            env=setting.environment(),
            text=True,
            bufsize=1,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )

    def ask(self, command: str, **fields) -> dict:
        """Send one command, wait for its reply."""
        try:
            self.process.stdin.write(json.dumps({"command": command} | fields) + "\n")
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        result = json.loads(reply) if reply else {"error": f"it ended; its log:\n{self.tail()}"}
        if "error" in result:
            raise RuntimeError(f"peer {self.name!r} failed on {command!r}: {result['error']}")
        return result

    def runner(self, command: str, **fields) -> Run:
        """A contestant for `alternate`: asks, and returns the worker's own `seconds`."""
        return lambda: self.ask(command, **fields)["seconds"]

    def tail(self, n: int = 2000) -> str:
        self.log.seek(0)
        return self.log.read()[-n:]

    def close(self):
        """Ask the worker to quit; end it if it does not. Closing twice does no harm."""
        if self.log.closed:
            return
        try:
            self.process.communicate('{"command": "quit"}\n', timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
        self.process.wait()
        self.log.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_):
        self.close()


# --- a quiet machine --------------------------------------------------------------------------


def _stat(path: str) -> tuple[int, int] | None:
    """(parent's pid, ticks of CPU used by the process and its ended children) or None if gone."""
    try:
        fields = Path(path).read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[1]), sum(map(int, fields[11:15]))


def _own_ticks() -> int:
    """CPU ticks of this process and all its descendants."""
    table = {int(p.name): _stat(f"{p}/stat") for p in Path("/proc").iterdir() if p.name.isdigit()}
    alive = {pid: row for pid, row in table.items() if row}
    own, size = {os.getpid()}, 0
    while len(own) > size:
        size = len(own)
        own |= {pid for pid, (parent, _) in alive.items() if parent in own}
    return sum(alive[pid][1] for pid in own if pid in alive)


def _busy_ticks() -> int:
    """CPU ticks of the whole machine that were not idle, those stolen by its host included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return user + nice + system + irq + softirq + steal


class Watch:
    """Counts from its creation on what others use of the machine; `others()` is in cores."""

    def __init__(self):
        self.start = self.read()

    @staticmethod
    def read() -> tuple[float, int]:
        return time.perf_counter(), _busy_ticks() - _own_ticks()

    def others(self) -> float:
        (t0, ticks0), (t1, ticks1) = self.start, self.read()
        return max(0.0, (ticks1 - ticks0) / os.sysconf("SC_CLK_TCK") / (t1 - t0))


def _void(others: float, limit: float, when: str):
    if others > limit:
        raise SystemExit(
            f"benchmark void: other processes (or the host) used {others:.2f} cores "
            f"{when}, more than {limit:.2f}; run it again on a quiet machine"
        )


def check_load(window: float = 3.0, limit: float = OTHERS_LIMIT, tries: int = TRIES) -> float:
    """Cores used by others over `window` seconds; exits with a message where that is too many, and
    stays so."""
    for _ in range(tries):
        watch = Watch()
        time.sleep(window)
        others = watch.others()
        if others <= limit:
            break
    _void(others, limit, f"over {window:g} s of waiting")
    return others


# --- timing -----------------------------------------------------------------------------------


def timed(f: Callable[[], object]) -> Run:
    """A contestant from a function that blocks until its result is there."""

    def run() -> float:
        start = time.perf_counter()
        f()
        return time.perf_counter() - start

    return run


def watched(run: Run, limit: float = OTHERS_LIMIT) -> float:
    """Seconds of one call. Where others used the machine meanwhile it counts for nothing and is
    made again; if that happens `TRIES` times, the benchmark is void.

    The watch covers at least half a second, since the kernel counts in hundredths.
    """
    for _ in range(TRIES):
        watch, start = Watch(), time.perf_counter()
        seconds = run()
        time.sleep(max(0.0, start + 0.5 - time.perf_counter()))
        others = watch.others()
        if others <= limit:
            break
        print(f"  void: others used {others:.2f} cores", file=sys.stderr, flush=True)
    _void(others, limit, f"during each of {TRIES} timed calls")
    return seconds


def warm_up(runs: dict[str, Run], calls: int = WARM_UP):
    """Untimed calls of each contestant (for long ones, pass shorter runs of the same code)."""
    for run in runs.values():
        for _ in range(calls):
            run()


def best_of(runs: dict[str, Run], calls: int = 1, limit: float = OTHERS_LIMIT) -> str:
    """The name of the fastest: one contestant under several settings, already warmed up."""
    return min(runs, key=lambda name: min(watched(runs[name], limit) for _ in range(calls)))


def alternate(
    runs: dict[str, Run], rounds: int, limit: float = OTHERS_LIMIT, window: float = 3.0
) -> dict[str, list[float]]:
    """Seconds of each contestant, one call of each per round, the order turned round each time."""
    seconds = {name: [] for name in runs}
    for i in range(rounds):
        check_load(window, limit)
        for name in list(runs) if i % 2 == 0 else reversed(runs):
            seconds[name].append(watched(runs[name], limit))
            print(f"  round {i + 1}: {name} {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return seconds


def summary(seconds: dict[str, list[float]], ours: str) -> str:
    """A table: median and minimum of each contestant, and its median as a multiple of `ours`."""
    base = statistics.median(seconds[ours])
    width = max(map(len, seconds))
    lines = [f"{'':{width}}  median s    min s  x {ours}"]
    for name, s in seconds.items():
        median = statistics.median(s)
        lines.append(f"{name:{width}}  {median:8.3f} {min(s):8.3f}  {median / base:.2f}")
    return "\n".join(lines)


# --- the arithmetic floor ---------------------------------------------------------------------


def matmul_rate(shapes=MATMULS, repeats: int = 30) -> dict[str, float]:
    """GFLOP/s of a jitted float32 [m k] x [k n] product, for each shape: the best of 3 bursts."""
    return {f"{m}x{k}x{n}": _rate(m, k, n, repeats) for m, k, n in shapes}


def _rate(m: int, k: int, n: int, repeats: int) -> float:
    import jax
    import jax.numpy as jnp

    a, b = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(m, k), (k, n)]))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))

    def burst() -> float:
        start = time.perf_counter()
        jax.block_until_ready([product(a, b) for _ in range(repeats)])
        return (time.perf_counter() - start) / repeats

    burst()
    return 2 * m * k * n / min(burst() for _ in range(3)) / 1e9
