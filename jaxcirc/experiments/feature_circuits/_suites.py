"""Dictionaries of a model as a basis: a shipped suite, or the paper's from a folder.

    PYTHIA/attn_out_layer0/10_32768/ae.pt, mlp_out_layer0/.., resid_out_layer0/.., embed/..
    GEMMA/gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105/params.npz, ..-att/.., ..-mlp/..

The folders are those of saprmarks/pythia-70m-deduped-saes and google/gemma-scope-2b-pt-res, -att
and -mlp, as they are downloaded. Of Gemma Scope the width 16k with the average L0 closest to 100 is
taken, as in Marks et al. 2024 (arXiv 2403.19647), appendix. May import `dictionaries`, `circuits`.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ... import dictionaries
from ...circuits.features import Basis
from ...dictionaries import Heads, load_dictionary
from ...taps import AbstractDictionary
from ..dictionaries import processed

Loaded = tuple[AbstractDictionary, Mapping[str, Any]]

PYTHIA = {
    "embed": "resid_pre.0",
    "attn_out_layer{layer}": "attn_out.{layer}",
    "mlp_out_layer{layer}": "mlp_out.{layer}",
    "resid_out_layer{layer}": "resid_post.{layer}",
}
GEMMA = {"att": "z", "mlp": "mlp_out", "res": "resid_post"}
AIM = 100.0
"""The average number of active features that the paper asks of Gemma Scope."""


def suite_basis(model, suite: str, root: str | os.PathLike | None = None) -> tuple[Any, Basis]:
    """The model as a shipped suite was trained on it, and the suite as a basis.

    - `root`: the folder of suites (default: the repository's).

    Raises what `dictionaries.shipped` raises, and `ValueError` for another model's suite.

    >>> model, basis = suite_basis(model, "smollm2-middle")
    """
    places = dictionaries.shipped_places(suite, root)
    loaded = {place: dictionaries.shipped(suite, place, root) for place in places}
    card = next(iter(loaded.values()))[1]
    if card.get("model") not in (None, model.config.name):
        raise ValueError(
            f"{suite} is for {card['model']}, not {model.config.name}: --model {card['model']}"
        )
    return basis_of(processed(model, card), loaded)


def basis_of(model, loaded: Mapping[str, Loaded]) -> tuple[Any, Basis]:
    """The model and the basis of dictionaries with their cards, by place; sinks as cards say."""
    norms = {place: card.get("sink_norm") for place, (_, card) in loaded.items()}
    fitted = {place: _fitted(model, place, each[0]) for place, each in loaded.items()}
    return model, Basis.of(model, fitted, {place: norm for place, norm in norms.items() if norm})


def _fitted(model, place: str, dictionary: AbstractDictionary) -> AbstractDictionary:
    """A dictionary of all heads side by side takes them apart where a site does."""
    apart = place.startswith("z.") and not isinstance(dictionary, Heads)
    return Heads(dictionary, model.config.n_heads) if apart else dictionary


def paper_basis(model, folder: str | os.PathLike) -> tuple[Any, Basis]:
    """The paper's dictionaries of Pythia-70M or Gemma-2-2B, from the folder they lie in.

    Raises `ValueError` for a folder that holds none of them, or not all of a model's layers.

    >>> model, basis = paper_basis(model, "pythia-70m-deduped")
    """
    found = paper_files(Path(folder), model.n_layers)
    return basis_of(model, {place: load_dictionary(path) for place, path in found.items()})


def paper_files(folder: Path, n_layers: int) -> dict[str, Path]:
    """The file or folder of every place's dictionary."""
    readers: tuple[Callable[[Path, int], dict[str, Path]], ...] = (_pythia, _gemma)
    for reader in readers:
        found = reader(folder, n_layers)
        if found:
            layers = {int(place.rpartition(".")[2]) for place in found if "pre" not in place}
            missing = sorted(set(range(n_layers)) - layers)
            if missing:
                raise ValueError(f"{folder} has nothing for layer {missing[0]}: download all of it")
            return found
    raise ValueError(
        f"{folder} holds neither attn_out_layer0/*/ae.pt nor gemma-scope-2b-pt-res/layer_0:"
        " download saprmarks/pythia-70m-deduped-saes or google/gemma-scope-2b-pt-res, -att, -mlp"
    )


def _pythia(folder: Path, n_layers: int) -> dict[str, Path]:
    found = {}
    for layer in range(n_layers):
        for name, place in PYTHIA.items():
            files = sorted(folder.glob(f"{name.format(layer=layer)}/*/ae.pt"))
            if files:
                found[place.format(layer=layer)] = files[-1]
    return found


def _gemma(folder: Path, n_layers: int) -> dict[str, Path]:
    found = {}
    for part, site in GEMMA.items():
        for layer in range(n_layers):
            every = folder.glob(f"gemma-scope-*-{part}/layer_{layer}/width_16k/average_l0_*")
            best = min(every, key=lambda path: abs(_l0(path) - AIM), default=None)
            if best is not None:
                found[f"{site}.{layer}"] = best
    return found


def _l0(path: Path) -> float:
    number = re.search(r"average_l0_([\d.]+)$", path.name)
    return float(number[1]) if number else float("inf")
