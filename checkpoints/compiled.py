"""The RASP programs of the zoo, compiled by tracr; `make_zoo.py` runs it.

tracr's library and its compiler: Lindner et al. 2023 (arXiv 2301.05062), Apache-2.0.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from tracr.compiler import compiling, lib
from tracr.rasp import rasp

from jaxcirc.models import LM
from jaxcirc.models.tracr import from_tracr
from jaxcirc.taps import Wiring, run
from jaxcirc.zoo._compiled import BOS, PROGRAMS, Program, encode
from jaxcirc.zoo._file import write
from jaxcirc.zoo._structure import shown, structural

RELEASE = "tracr-pypi==1.0.0"
FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "tracr.safetensors"
SHOWN = 6
"""Inputs of each program whose residual streams the fixture holds."""


def programs() -> dict[str, rasp.SOp]:
    """The programs by name, as RASP."""
    opposite = rasp.Select(rasp.indices, lib.make_length() - rasp.indices - 1, rasp.Comparison.EQ)
    return {
        "count_less_freq": lib.make_count_less_freq(2),
        "detect_pattern": lib.detect_pattern(rasp.tokens, "ab"),
        "hist": lib.make_hist(),
        "pair_balance": lib.make_pair_balance(rasp.tokens, "(", ")"),
        "reverse": rasp.Aggregate(opposite, rasp.tokens),
        "shuffle_dyck": lib.make_shuffle_dyck(["()"]),
        "sort_freq": lib.make_sort_freq(5),
        "sort_unique": lib.make_sort_unique(rasp.tokens, rasp.tokens),
        "xproportion": lib.make_frac_prevs(rasp.tokens == "x"),
    }


def compile_program(name: str):
    """One program compiled, with its vocabulary and length."""
    about = PROGRAMS[name]
    return compiling.compile_rasp_to_model(
        programs()[name], vocab=set(about.symbols), max_seq_len=about.length, compiler_bos=BOS
    )


def make(name: str, root: Path) -> None:
    """Compile one program, write its file and card, and print what it has."""
    compiled, about = compile_program(name), PROGRAMS[name]
    model = from_tracr(compiled, name)
    wiring = Wiring.of(model, split=True)
    tokens = symbols(compiled)
    rows = encode(about.inputs(), tokens)
    true = structural(model, wiring)
    exchange, zero = shown(model, wiring, jnp.asarray(rows), true)
    silent = {"constant": true & ~exchange, "inert": true & ~exchange & ~zero}
    edges = {kind: edge_names(wiring, found) for kind, found in silent.items()}
    notes = {"tokens": tokens, "outputs": outputs(compiled)} | edges
    card = {
        "source": f"{RELEASE}: a compiled program, {about.about}",
        "recipe": f"uv run python checkpoints/make_zoo.py {name}",
        "licence": "Apache-2.0",
        "numbers": {
            "edges": wiring.n_edges,
            "wrong answers": wrong(model, about, rows, outputs(compiled)),
            "true": int(true.sum()),
            **{kind: int(found.sum()) for kind, found in silent.items()},
        },
    }
    write(name, model, notes, card, root)
    print(name, json.dumps(card["numbers"]))


def symbols(compiled) -> list:
    """Input symbols in the order of their ids."""
    ids = compiled.input_encoder.encoding_map
    return sorted(ids, key=lambda symbol: ids[symbol])


def outputs(compiled) -> list:
    """Output symbols in the order of the logits; none for a numerical program."""
    ids = getattr(compiled.output_encoder, "encoding_map", {})
    return sorted(ids, key=lambda symbol: ids[symbol])


def edge_names(wiring: Wiring, edges: np.ndarray) -> list:
    """Edges in words that do not depend on how edges are numbered."""
    pairs = (wiring.edge(int(edge)) for edge in np.flatnonzero(edges))
    return [[[node.site, node.layer, node.index] for node in pair] for pair in pairs]


def wrong(model: LM, about: Program, rows: np.ndarray, outputs: list) -> int:
    """How many of all inputs the model answers otherwise than plain Python."""
    logits = np.asarray(run(model, jnp.asarray(rows), logits_at=-1)[0])
    said = logits[:, 0] if about.numerical else [outputs[i] for i in logits.argmax(axis=1)]
    want = [about.answer(row) for row in about.inputs()]
    return sum(abs(float(a) - float(b)) > 1e-5 for a, b in zip(said, want, strict=True))


def make_fixture() -> None:
    """What tracr itself says: tokens and residual streams of a few inputs of each program."""
    stored = {}
    for name, about in PROGRAMS.items():
        compiled = compile_program(name)
        inputs = about.inputs()[:: len(about.inputs()) // SHOWN]
        found = [compiled.apply([BOS, *row]) for row in inputs]
        stored[f"{name}.tokens"] = encode(inputs, symbols(compiled))
        residuals = [np.concatenate(one.residuals) for one in found]
        stored[f"{name}.residuals"] = np.stack(residuals, axis=1).astype(np.float32)
        stored[f"{name}.output"] = np.concatenate([one.unembedded for one in found])
    save_file(stored, FIXTURE)
