"""What `jaxcirc features` works on: a model and dictionaries as a basis, refused before it is
loaded where it can be."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import models
from ..dictionaries.train import read_texts
from ..experiments.dictionaries import place_of, processed
from ..experiments.feature_circuits import basis_of, paper_basis, paper_files
from ._sae_table import load_suite

SUITE = Path("smollm2-middle")


@dataclasses.dataclass(frozen=True)
class Opened:
    """Dictionaries, and the name of their model. `loaded`: empty for the paper's own folder, which
    is read with the model."""

    suite: Path
    model: str
    loaded: Mapping[str, Any]

    def load(self) -> tuple[Any, Any, Any]:
        """Model (processed as the first card says), tokenizer, and the dictionaries as a basis."""
        model, tokenizer = models.load_model(self.model)
        if not self.loaded:
            model, basis = paper_basis(model, self.suite)
            return model, tokenizer, basis
        cards = [card for _, card in self.loaded.values()]
        by_place = {place_of(own) or name: (d, own) for name, (d, own) in self.loaded.items()}
        model, basis = basis_of(processed(model, cards[0]), by_place)
        return model, tokenizer, basis


def open_suite(suite: Path, model: str | None) -> Opened:
    """The dictionaries of a shipped suite, a folder, or the paper's own folder.

    - `model`: whose they are (default: as their cards say).

    Raises `ValueError` or `FileNotFoundError` for a suite that is not there, and for one that names
    no model where none is given.
    """
    if suite.is_dir() and not any(suite.glob("*.safetensors")):
        paper_files(suite, 1)
        return Opened(suite, _named(suite, model, "PATH of its weights"), {})
    loaded = load_suite(suite)
    card = next(iter(loaded.values()))[1]
    return Opened(suite, _named(suite, model or card.get("model"), "smollm2-135m"), loaded)


def _named(suite: Path, model: str | None, example: str) -> str:
    if not model:
        raise ValueError(f"{suite} names no model: --model {example}")
    return model


def check_text(paths: Sequence[Path]) -> None:
    """Raise what `read_texts` raises for files and folders that hold no text."""
    for path in paths:
        if not str(path).startswith("hub:"):
            next(read_texts(path))
