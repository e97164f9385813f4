"""Programs for TPUs that are not there. As a script: a line of JSON in, a line of JSON out.

A program is named by what it computes; it is compiled for one device of a topology, or for all of
it on a mesh of data and dictionary axes. Nothing is run, and no array is made.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from collectives import collectives
from jax.experimental.topologies import get_topology_desc
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxcirc_kernels import keep_largest, keep_largest_reference

from jaxcirc._ops import _by_order
from jaxcirc.dictionaries import Config
from jaxcirc.dictionaries.train import alike, arguments, make_mesh, steps
from jaxcirc.models import cast, toy
from jaxcirc.taps import At, Read, Sites, run

TOKENS, D_IN, WIDTH, K, SITES = 4096, 576, 12288, 32, 2
"""Of a training step, at the width of SmolLM2; a crosscoder's sites. On the meshes used no part of
one size is a part of another, so shapes say what they are of."""

CONTEXTS, POS, LAYER = 16, 256, 12
"""Of activation extraction."""

SMOLLM2 = {
    **{"n_layers": 30, "d_model": 576, "n_heads": 9, "n_kv_heads": 3, "d_head": 64},
    **{"d_mlp": 1536, "vocab": 49152},
}

CONFIGS = {
    name: Config(name, d_dict=WIDTH, k=K, batch=TOKENS, dtype="bfloat16")
    for name in (
        "l1",
        "l1_unit",
        "p_anneal",
        "jumprelu",
        "gated",
        "batchtopk",
        "matryoshka",
        "topk",
    )
}
CONFIGS |= {
    "transcoder": dataclasses.replace(CONFIGS["topk"], skip=True),
    "crosscoder": dataclasses.replace(CONFIGS["batchtopk"], architecture="crosscoder"),
    "topk in float32": dataclasses.replace(CONFIGS["topk"], dtype="float32"),
}
"""The training step of every architecture."""

EXTRACTION = ("activations", "activations, weights split")

SIZES = {
    "float32": (4096, 12288, jnp.float32),
    "bfloat16": (4096, 12288, jnp.bfloat16),
    "an odd number of rows": (1021, 4608, jnp.bfloat16),
    "widest": (512, 131_072, jnp.float32),
    "widest in bfloat16": (512, 131_072, jnp.bfloat16),
}
"""Tokens, features and type of what the largest of each row are kept of."""

CHOICES = {
    "counts in a kernel": keep_largest,
    "counts": keep_largest_reference,
    "sort": lambda values, k: _by_order(D_IN // 2, values, k, None),
    "a population's kernels": lambda values, k: jax.vmap(keep_largest)(values, jnp.stack([k, k])),
}
KEPT = {f"{choice}, {size}": (choice, size) for choice in CHOICES for size in SIZES}
"""The k largest of every row, as many as the auxiliary loss takes; `KEPT[name]` is (how, of)."""

PROGRAMS = (*CONFIGS, *EXTRACTION)


def compiled(program: str, topology: str, mesh: list[int] | None) -> dict[str, Any]:
    """Compile one program, and say what the compiler says of it.

    - `mesh`: devices along data and dictionary; None: one device.
    """
    began, devices = time.perf_counter(), get_topology_desc(topology, "tpu").devices
    place = _Place(None if mesh is None else make_mesh(*mesh, devices), devices[0])
    with place.used():
        lowered = _lowered(program, place)
        memory, texts = _compile(lowered)
    return {
        "device": devices[0].device_kind,
        "devices": 1 if mesh is None else mesh[0] * mesh[1],
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "collectives": [dataclasses.asdict(c) for text in texts for c in collectives(text)],
        "seconds": time.perf_counter() - began,
    }


def _lowered(program: str, place: "_Place"):
    if program in KEPT:
        return _kept(program, place)
    return (_step if program in CONFIGS else _activations)(program, place)


def _compile(lowered) -> tuple[Any, list[str]]:
    """The memory analysis and the final HLO of every module, as the compiler itself writes it: JAX
    cannot read back all that it puts there (an `async-update` of several operands, on v5p, which
    makes a second module for its sparse cores)."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        done = lowered.compile(compiler_options=options)
        texts = [path.read_text() for path in Path(folder).glob("*.after_optimizations.txt")]
        return done.memory_analysis(), texts


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where arrays lie: on a mesh, or on one device."""

    mesh: Mesh | None
    device: Any

    def used(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def __call__(self, tree, spec=lambda leaf: P()):
        """The tree's shapes, each laid out by `spec`."""

        def put(leaf):
            if self.mesh is None:
                return _at(leaf, SingleDeviceSharding(self.device))
            return _at(leaf, NamedSharding(self.mesh, spec(leaf)))

        return jax.tree.map(put, tree)


def _at(leaf, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _kept(name: str, place: _Place):
    choice, size = KEPT[name]
    tokens, width, dtype = SIZES[size]
    shape = (2, tokens, width) if "population" in choice else (tokens, width)
    values = place(jax.ShapeDtypeStruct(shape, dtype))
    return jax.jit(CHOICES[choice]).lower(values, place(jax.ShapeDtypeStruct((), jnp.int32)))


def _step(name: str, place: _Place):
    config = CONFIGS[name]
    d_out = D_IN if name == "transcoder" else None
    sites = SITES if name == "crosscoder" else None
    asked = arguments(config, D_IN, place.mesh, d_out=d_out, sites=sites)
    if place.mesh is None:
        asked = place(asked)
    return steps.lower(alike(config), *asked)


def _activations(name: str, place: _Place):
    model = jax.eval_shape(lambda: cast(toy(jax.random.key(0), **SMOLLM2), jnp.bfloat16))
    model = place(model, _by_largest if "split" in name else lambda leaf: P())
    tokens = jax.ShapeDtypeStruct((CONTEXTS, POS), jnp.int32)
    tokens = place(tokens, lambda leaf: P(("data", "dictionary")))
    edits = Sites(resid_post=At(place(jax.ShapeDtypeStruct((1,), jnp.int32)), Read()))
    return run.lower(model, tokens, edits, layers=LAYER + 1)


def _by_largest(leaf) -> P:
    """A matrix of every layer split along its largest axis, over all devices."""
    if leaf.ndim < 3:
        return P()
    axis = max(range(1, leaf.ndim), key=lambda i: leaf.shape[i])
    return P(*(("data", "dictionary") if i == axis else None for i in range(leaf.ndim)))


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(compiled(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
