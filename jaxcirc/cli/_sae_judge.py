"""`jaxcirc sae eval` and `jaxcirc sae page`."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from .. import experiments, models
from .._types import Bos
from ..dictionaries.formats import load_dictionary
from ..experiments.dictionaries import Annotation as Note
from ..experiments.dictionaries import (
    collect,
    evaluate,
    explain,
    feature_page,
    place_of,
    processed,
    read_annotations,
    write_annotations,
    write_feature_json,
)
from ._sections import print_sections
from ._show import bars, console, write
from ._source import Word
from ._where import Where


@dataclasses.dataclass(frozen=True)
class Subject:
    """Which dictionary, on which model and text."""

    path: Word[Path]
    """A dictionary's file or folder in any known format, a shipped one's name, or
    hub:OWNER/NAME[@REVISION][/PATH]."""
    text: tuple[Path, ...] = ()
    """Files or folders of text, or hub:OWNER/NAME (default: sampled from the model itself)."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the dictionary's card says)."""
    where: tyro.conf.OmitArgPrefixes[Where] = Where()
    """Where it acts."""
    tokens: int = 16_384
    """Tokens of text."""
    context: int | None = None
    """Tokens in a context (default: what the card says, or 128)."""
    bos: Bos | None = None
    """Whether contexts begin with that token (default: what the card says, or the model's way)."""
    sink_norm: float | None = None
    """Tokens of a larger norm are left out (default: what the card says)."""
    seed: int = 0
    """Of the draw of text and the baselines."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    @property
    def name(self) -> str:
        """What its folder is called after: its file's name and a digest of where that lies, or a
        shipped one's name."""
        if not self.path.exists():
            return "-".join(self.path.parts).removeprefix("hub:")
        path = self.path.resolve()
        digest = hashlib.sha256(str(path).encode()).hexdigest()
        return f"{path.stem if path.is_file() else path.name}-{digest[:6]}"

    def load(self) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Model (processed as the card says), tokenizer, dictionary and its card."""
        dictionary, card = load_dictionary(self.path)
        name = self.model or card.get("model")
        if not name:
            raise ValueError(f"{self.path.name} names no model: --model smollm2-135m")
        model, tokenizer = models.load_model(name)
        return processed(model, card), tokenizer, dictionary, card

    def at(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """Place and sink norm, as the experiments take them."""
        place = self.where.one() or place_of(card)
        if place is None:
            raise ValueError(f"{self.path.name} names no place: --place resid_post.12")
        norm = self.sink_norm if self.sink_norm is not None else card.get("sink_norm")
        return {"place": place, "sink_norm": norm or math.inf}

    def contexts(self, model, tokenizer, card: Mapping[str, Any], tell):
        """Contexts drawn from all of the text."""
        asked: bool | None = card.get("prepend_bos")
        known: Bos = "model" if asked is None else "always" if asked else "never"
        length = self.context or int(card.get("context") or 128)
        return experiments.contexts_of(
            model,
            tokenizer,
            self.text,
            tokens=max(self.tokens, 2 * length),
            length=length,
            seed=self.seed,
            stream="judge",
            bos=self.bos or known,
            progress=lambda done, total: tell("sampling text", done, total),
        )


@dataclasses.dataclass(frozen=True)
class Eval:
    """Judge a dictionary on text: FVE, L0, nats when spliced, beside PCA and random directions."""

    subject: tyro.conf.OmitArgPrefixes[Subject]
    components: tuple[int, ...] = (64, 128)
    """Principal directions of the baselines."""
    batch: int = 8
    """Contexts in a run."""

    def __call__(self) -> None:
        model, tokenizer, dictionary, card = self.subject.load()
        at = self.subject.at(card)
        with bars() as tell:
            result = evaluate(
                model,
                dictionary,
                self.subject.contexts(model, tokenizer, card, tell),
                **at,
                components=self.components,
                batch=self.batch,
                seed=self.subject.seed,
                card=card,
                progress=tell,
            )
        write(result, self.subject.out)
        print_sections(result, {"dictionary": result.task}, {"dictionary": COLUMNS})


COLUMNS = (
    *("dictionary", "features", "L0", "FVE", "cosine", "nats", "KL"),
    *("recovered (zero)", "recovered (mean)", "dead", "dense"),
)


@dataclasses.dataclass(frozen=True)
class Page:
    """Write a page of a dictionary's features: examples, logits, density, notes."""

    subject: tyro.conf.OmitArgPrefixes[Subject]
    features: int = 4096
    """Features shown, from the first."""
    notes: Path | None = None
    """Annotations to show: JSON lines with feature and text."""
    explain: int = 0
    """Explain so many features by n-gram rules, shown where there is no annotation."""
    batch: int = 8
    """Contexts in a run."""

    def __call__(self) -> None:
        model, tokenizer, dictionary, card = self.subject.load()
        at = self.subject.at(card)
        notes = [] if self.notes is None else read_annotations(self.notes)
        folder = self.subject.out / f"features-{self.subject.name}"
        with bars() as tell:
            contexts = self.subject.contexts(model, tokenizer, card, tell)
            if self.explain:
                found = self._explained(model, tokenizer, dictionary, contexts, at, folder, tell)
                notes = [*found, *notes]  # the last one on a feature is shown
            paths = write_page(
                (model, tokenizer),
                dictionary,
                contexts,
                folder,
                at,
                card,
                features=self.features,
                notes=notes,
                batch=self.batch,
                tell=tell,
            )
        for path in paths:
            console.print(f"written to {path}")

    def _explained(
        self, model, tokenizer, dictionary, contexts, at, folder: Path, tell
    ) -> list[Note]:
        """What n-gram rules say of the first features, kept beside the page."""
        wanted = range(min(self.explain, self.features, dictionary.d_dict))
        codes = collect(model, dictionary, contexts, **at, features=wanted, batch=self.batch)

        def progress(done: int, total: int) -> None:
            tell("explaining", done, total)

        result = explain(
            model, tokenizer, codes, at["place"], seed=self.subject.seed, progress=progress
        )
        write(result, self.subject.out)
        found = [_note(row, model, at["place"]) for row in result.table]
        write_annotations(found, folder / "explanations.jsonl")
        return found


def _note(row: Mapping[str, Any], model, place: str) -> Note:
    words = f"{row['explanation']}; detection {row['AUROC']:.2f}, shuffled {row['shuffled']:.2f}"
    by = "n-gram rules"
    return Note(row["feature"], words, model.config.name, place, by, row["AUROC"])


def write_page(
    loaded: tuple[Any, Any],
    dictionary,
    contexts,
    folder: Path,
    at: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    features: int = 4096,
    notes: list[Note] | None = None,
    batch: int = 8,
    tell=None,
) -> list[Path]:
    """`features.html` and the same as JSON lines; returns their paths.

    - `loaded`: model and tokenizer. `at`: place and sink_norm.
    """
    from .. import viz  # matplotlib, which only a finished run needs

    page = feature_page(
        *loaded,
        dictionary,
        contexts,
        **at,
        features=range(min(features, dictionary.d_dict)),
        annotations=notes or [],
        card=card,
        batch=batch,
        progress=None if tell is None else lambda done, total: tell("features", done, total),
    )
    page_path = viz.write_features(page, folder / "features.html")
    return [page_path, write_feature_json(page, folder / "features.jsonl.gz")]
