"""`jaxcirc sae table`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from .. import experiments, models
from ..dictionaries.formats import load_dictionary, shipped, shipped_places, shipped_suites
from ..experiments.dictionaries import place_of, processed, table
from ._sections import print_sections
from ._show import bars, write
from ._source import Word
from ._where import Where

COLUMNS = ("place", "dictionary", "L0", "FVE", "nats", "dead", "saved", "tokens")


@dataclasses.dataclass(frozen=True)
class Table:
    """Every dictionary of a suite on texts apart, beside PCA and random directions."""

    suite: Word[Path]
    """A shipped suite's name, or a folder of dictionaries."""
    where: tyro.conf.OmitArgPrefixes[Where] = Where()
    """Only these of them (default: all)."""
    text: Annotated[tuple[tuple[Path, ...], ...], tyro.conf.UseAppendAction] = ()
    """Files or folders of one text, or hub:OWNER/NAME; again for another text (default: sampled
    from the model itself)."""
    tokens: int = 16_384
    """Tokens of each text."""
    baseline_tokens: int = 2048
    """Of these, the baselines are spliced on so many."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the cards say)."""
    components: tuple[int, ...] = (64, 128)
    """Principal directions of the baselines."""
    batch: int = 8
    """Contexts in a run."""
    seed: int = 0
    """Of the draw of text and the baselines."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        loaded = self._chosen(load_suite(self.suite))
        card = next(iter(loaded.values()))[1]
        name = self.model or card.get("model")
        if not name:
            raise ValueError(f"{self.suite} names no model: --model smollm2-135m")
        model, tokenizer = models.load_model(name)
        model = processed(model, card)
        with bars() as tell:
            result = table(
                model,
                loaded,
                self._texts(model, tokenizer, int(card.get("context") or 128), tell),
                name=self.suite.name,
                components=self.components,
                tokens=self.baseline_tokens,
                batch=self.batch,
                seed=self.seed,
                progress=tell,
            )
        texts = dict.fromkeys(str(row["section"]) for row in result.table)
        print_sections(result, {text: text for text in texts}, dict.fromkeys(texts, COLUMNS))
        write(result, self.out)

    def _chosen(self, loaded: dict) -> dict:
        """Those at the places asked for. Raises `ValueError` for a place without a dictionary."""
        if not self.where.said:
            return loaded
        found = {place_of(card): name for name, (_, card) in loaded.items()}
        wanted = self.where.places()
        if missing := [place for place in wanted if place not in found]:
            there = ", ".join(map(str, found))
            raise ValueError(f"{self.suite} has no {missing[0]}: its places are {there}")
        return {found[place]: loaded[found[place]] for place in wanted}

    def _texts(self, model, tokenizer, length: int, tell):
        """Contexts of every text, by its name."""
        given = {_named(paths): paths for paths in self.text} or {"sampled": ()}
        if len(given) < len(self.text):
            raise ValueError(f"two texts are named alike ({', '.join(given)}): rename a file")
        return {
            name: experiments.contexts_of(
                model,
                tokenizer,
                paths,
                tokens=max(self.tokens, 2 * length),
                length=length,
                seed=self.seed,
                stream="judge",
                progress=lambda done, total: tell("sampling text", done, total),
            )
            for name, paths in given.items()
        }


def load_suite(path: Path) -> dict:
    """(dictionary, card) of every dictionary, by name; sha256 verified where there is a manifest.

    Raises `ValueError` for a folder without dictionaries, `FileNotFoundError` for none.
    """
    if not path.exists() and str(path) in shipped_suites():
        return {place: shipped(str(path), place) for place in shipped_places(str(path))}
    if not path.is_dir():
        known = ", ".join(shipped_suites()) or "none here: get the repository's checkpoints/suites"
        raise FileNotFoundError(f"no folder {path}, nor a suite of that name ({known})")
    root, suite = path.resolve().parent, path.resolve().name
    if suite in shipped_suites(root):
        return {place: shipped(suite, place, root) for place in shipped_places(suite, root)}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{path} holds no dictionaries: their files end in .safetensors")
    return {file.stem: load_dictionary(file) for file in files}


def _named(paths: tuple[Path, ...]) -> str:
    """Such as "books_0+peps"."""
    return "+".join(path.name.split(".")[0] or path.name for path in paths)
