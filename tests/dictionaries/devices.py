"""Small runs of training on several devices or processes, for test_mesh.py: a line of JSON each.

python devices.py four                   the four main architectures, on eight forced devices
python devices.py rest                   all the rest, on eight forced devices
python devices.py process PORT RANK      on two forced devices of each of two processes
"""

import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    n = 2 if sys.argv[1] in ("process", "stopped") else 8
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n}"
    )

import jax
import numpy as np
from cases import tiny
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh

from jaxcirc.dictionaries.train import (
    Arrays,
    Checkpoints,
    Config,
    Contexts,
    Stream,
    alike,
    arguments,
    fit,
    make_mesh,
    shardings,
    share_of,
    steps,
)
from jaxcirc.dictionaries.train._run import population
from jaxcirc.dictionaries.train._task import Task

TOKENS, D_IN, WIDTH, STEPS = 64, 8, 512, 8
SHARED = {"d_dict": WIDTH, "k": 8, "batch": TOKENS, "tokens": TOKENS * STEPS, "dead_after": 150}
SHARED["learning_rate"] = 1e-5
FOUR = ("topk", "batchtopk", "l1", "jumprelu")
REST = ("gated", "matryoshka")
CONFIGS = {name: Config(name, **SHARED) for name in (*FOUR, *REST)}
"""Features die within the run, so that AuxK has its part. The rate is low because a feature that is
active alone, with its encoder still its direction, has a gradient of 0 but for rounding, and Adam
makes whole steps of that."""

ALL, TOKENS_ALONE, FEATURES_ALONE = (2, 4), (8, 1), (1, 8)
"""Meshes, by what they share out."""

POPULATIONS = {
    ALL: [Config("l1", sparsity=s, resample=2, **SHARED) for s in (0.2, 0.5)],
    TOKENS_ALONE: [Config("topk", seed=seed, **SHARED) for seed in (0, 1)],
}
"""Two members each; those of the first have dead features drawn anew."""


def batches(rank: int = 0, ranks: int = 1, n: int = STEPS) -> list[np.ndarray]:
    """One process's part of every batch. All tokens have one length, or BatchTopK would keep one
    feature of many."""
    x = np.random.default_rng(0).normal(size=(n, TOKENS, D_IN)) ** 3
    x = x / np.linalg.norm(x, axis=-1, keepdims=True) + 0.1
    parts = x.astype(np.float32).reshape(n, ranks, TOKENS // ranks, D_IN)
    return list(parts[:, rank])


PLACE = "v.1"


def text(n: int = 60) -> Contexts:
    """Contexts of random tokens, a third of them short."""
    tokens = np.random.default_rng(5).integers(1, 50, (n, 9)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    mask[::3, 6:] = False
    numbers = np.arange(n)
    return Contexts(tokens, mask, numbers, numbers * 0, ("words",))


def stream(part=None) -> Stream:
    """A process's part of a small model's activations, as wide as `D_IN`; enough for all steps."""
    options = {"batch": TOKENS, "block": 16, "rows": 8, "epochs": 3}
    return Stream(tiny("grouped"), text(), [PLACE], part=part, **options)


def told(configs, x, **options) -> list[list[float]]:
    """The loss, explained variance and L0 of every step (of each member)."""
    numbers = []

    def tell(step, steps, reports):
        (report,) = reports.values()
        parts = report.loss, report.explained, report.seen.l0
        numbers.append(np.concatenate([np.asarray(part) for part in parts]).tolist())

    fit(configs, x, tell=tell, every=1, **options)
    return numbers


def learned(names, shape=ALL) -> dict:
    """What is told on a mesh, and the compiled steps."""
    mesh, programs, numbers = make_mesh(*shape), {}, {}
    for name in names:
        numbers[name] = told(CONFIGS[name], batches(), mesh=mesh)
        with jax.set_mesh(mesh):
            lowered = steps.lower(alike(CONFIGS[name]), *arguments(CONFIGS[name], D_IN, mesh))
            programs[name] = lowered.compile().as_text()
    return {"told": numbers, "programs": programs}


def resumed(source, folder: Path, mesh: Mesh, then: Mesh) -> list:
    """Stopped on one mesh after step 6, gone on with from step 5 on another; `source` makes one."""
    config = CONFIGS["batchtopk"]

    def stop(step, *_):
        if step == 6:
            raise InterruptedError

    try:
        fit(config, source(), keep=Checkpoints(folder, 5), tell=stop, every=1, mesh=mesh)
    except InterruptedError:
        return told(config, source(), keep=Checkpoints(folder, 5), mesh=then)
    return []


def shares() -> dict:
    """The size of every array of a fresh state, and how much of it one device holds."""
    run, _ = Task([CONFIGS["topk"]], Arrays(batches()), None, make_mesh(2, 4)).start()
    return {
        jax.tree_util.keystr(path): (leaf.size, leaf.addressable_shards[0].data.size / leaf.size)
        for path, leaf in jax.tree_util.tree_leaves_with_path(run.states)
    }


def beginning() -> str:
    """The compiled program that makes a fresh state."""
    mesh, mean = make_mesh(2, 4), jax.ShapeDtypeStruct((D_IN,), np.float32)
    make = partial(population, (CONFIGS["topk"],), D_IN, None)
    with jax.set_mesh(mesh):
        there = shardings(CONFIGS["topk"], mesh)
        return jax.jit(make, out_shardings=there).lower(mean).compile().as_text()


def join(port: str, rank: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)


def stopped(port: str, rank: int, folder: str) -> dict:
    """One of two processes is told to stop after step 5; both do, after the same step."""
    join(port, rank)
    config, n = dataclasses.replace(CONFIGS["l1"], tokens=TOKENS * 300), 300

    def tell(step, *_):
        if step == 5 and rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

    try:
        keep = Checkpoints(folder, 1000)
        fit(config, batches(rank, 2, n), keep=keep, tell=tell, every=1, mesh=make_mesh(2, 2))
    except KeyboardInterrupt as why:
        return {"why": str(why)}
    return {}


def process(port: str, rank: int, folder: str, *names: str) -> dict:
    join(port, rank)
    x, mesh = batches(rank, 2), make_mesh(2, 2)
    found = {name: told(CONFIGS[name], x, mesh=mesh) for name in names}
    again = resumed(lambda: x, Path(folder), mesh, mesh)
    return {"told": found, "resumed": again, "streamed": streamed(mesh, Path(folder) / "streamed")}


def streamed(mesh: Mesh, folder: Path) -> dict:
    """Both processes' parts of one text, and what they learn together."""
    source = stream()
    said = {
        "part": share_of(mesh),
        "part_of_features": share_of(make_mesh(1, 4)),
        "contexts": source.own.document,
        "sink": list(source.sink_norm.values()),
    }
    said = {name: process_allgather(np.asarray(value)).tolist() for name, value in said.items()}
    learned = told(CONFIGS["batchtopk"], source, mesh=mesh)
    return said | {"told": learned, "resumed": resumed(stream, folder, mesh, mesh)}


def main(what: str, *rest: str) -> dict:
    if what == "process":
        return process(rest[0], int(rest[1]), *rest[2:])
    if what == "stopped":
        return stopped(rest[0], int(rest[1]), rest[2])
    if what == "four":
        alone = {"tokens alone": learned(["topk"], TOKENS_ALONE)}
        return learned(FOUR) | alone | {"shares": shares(), "beginning": beginning()}
    shapes = {
        "features alone": told(CONFIGS["topk"], batches(), mesh=make_mesh(*FEATURES_ALONE)),
        "populations": [
            told(configs, batches(), mesh=make_mesh(*shape))
            for shape, configs in POPULATIONS.items()
        ],
    }
    folder = Path(tempfile.mkdtemp())
    elsewhere = resumed(batches, folder, make_mesh(2, 4), make_mesh(4, 2))
    return learned(REST) | shapes | {"elsewhere": elsewhere}


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    print(json.dumps(main(*sys.argv[1:])))
