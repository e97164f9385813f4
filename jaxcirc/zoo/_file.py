"""Files of the zoo: one safetensors file a model, and `cards.json` with what is known of each.

A leaf lies there by its name, or, if most of it is zero, as `name.at` (places in the flattened
array) and `name.value`. May import `models` and `nn`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from ..models import LM, Config
from ..nn import MLP, Attention, Block, LayerNorm

CARDS = "cards.json"
EPS = 1e-5
"""Of every layer norm in the zoo."""


def folder() -> Path:
    """Where the files lie: inside an installed package, or in the repository's checkpoints."""
    here = Path(__file__).resolve()
    inside = here.parent / "weights"
    return inside if inside.is_dir() else here.parents[2] / "checkpoints" / "zoo"


def cards(root: Path | None = None) -> dict[str, Any]:
    """What is known of every model: file, sha256, source, recipe and numbers, by name."""
    path = (root or folder()) / CARDS
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: install jaxcirc again, or run checkpoints/make_zoo.py"
        ) from None


def read(name: str, root: Path | None = None) -> tuple[LM, dict[str, Any]]:
    """A model of the zoo, and the notes in its file.

    Raises `ValueError` for an unknown name, or a file whose sha256 is not the one on its card.
    """
    known = cards(root)
    if name not in known:
        raise ValueError(f"the zoo has no {name!r}: zoo.names() are {', '.join(known)}")
    card = known[name]
    data = ((root or folder()) / card["file"]).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card["sha256"]:
        raise ValueError(
            f"{card['file']} has sha256 {found[:12]}..., its card says {card['sha256'][:12]}...:"
            f" install jaxcirc again, or run checkpoints/make_zoo.py {name}"
        )
    notes = json.loads(_metadata(data)["notes"])
    config = Config(**notes["config"] | {"sha256": found, "source": card["source"]})
    return _assemble(_dense(load(data), notes["shapes"]), notes, config), notes


def write(name: str, model: LM, notes: dict[str, Any], card: dict[str, Any], root: Path) -> None:
    """Write a model with its notes, and its card among the others.

    - `notes`: what loading it needs beside the weights. `card`: source, recipe, numbers.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(model)
    }
    blocks = model.blocks
    notes = notes | {
        "config": dataclasses.asdict(model.config),
        "causal": blocks.attn.causal,
        "activation": "none" if blocks.mlp is None else blocks.mlp.activation,
        "shapes": {leaf: value.shape for leaf, value in leaves.items()},
    }
    data = save(_sparse(leaves), {"notes": json.dumps(notes)})
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.safetensors").write_bytes(data)
    known = cards(root) if (root / CARDS).exists() else {}
    about = {"file": f"{name}.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    known = dict(sorted((known | {name: about | card}).items()))
    (root / CARDS).write_text(json.dumps(known, indent=1) + "\n")


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def _sparse(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves that are mostly zero as places and values."""
    out = {}
    for name, leaf in leaves.items():
        places = np.flatnonzero(leaf)
        if 4 * len(places) < leaf.size:
            out |= {f"{name}.at": places.astype(np.int32), f"{name}.value": leaf.flat[places]}
        else:
            out[name] = np.ascontiguousarray(leaf)
    return out


def _dense(stored: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """The inverse of `_sparse`, in float32."""
    out = {}
    for name, shape in shapes.items():
        if name in stored:
            leaf = stored[name].astype(np.float32)
        else:
            leaf = np.zeros(shape, np.float32)
            leaf.flat[stored[f"{name}.at"]] = stored[f"{name}.value"]
        out[name] = jnp.asarray(leaf)
    return out


def _assemble(leaves: Mapping[str, Any], notes: Mapping[str, Any], config: Config) -> LM:
    def part(prefix: str) -> dict[str, Any]:
        inside = {name: leaf for name, leaf in leaves.items() if name.startswith(f"{prefix}.")}
        return {name.removeprefix(f"{prefix}."): leaf for name, leaf in inside.items()}

    def norm(prefix: str) -> LayerNorm | None:
        return LayerNorm(**part(prefix), eps=EPS) if part(prefix) else None

    attn = Attention(**part("blocks.attn"), scale=config.d_head**-0.5, causal=notes["causal"])
    mlp = MLP(**part("blocks.mlp"), activation=notes["activation"])
    return LM(
        leaves["embed"],
        Block(attn, mlp, norm("blocks.attn_norm"), norm("blocks.mlp_norm")),
        norm("final_norm"),
        config,
        pos_embed=leaves["pos_embed"],
        unembed=leaves["unembed"],
    )
