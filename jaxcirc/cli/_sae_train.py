"""`jaxcirc sae train`."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .. import experiments, models
from ..dictionaries import load_dictionary
from ..dictionaries.train import Contexts, Source, Stored, Stream, open_logger
from ._recipe import Recipe
from ._sae_judge import write_page
from ._show import bars, console
from ._where import Where

BATCH = 2048
"""Tokens in a step, where nothing else is said."""

PAGE = 16
"""Contexts for the page when the training text is stored activations."""

Loaded = tuple[Any, Any]
"""A model and its tokenizer."""
Shown = tuple[Loaded, Contexts]
"""What a page needs besides the dictionary."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train dictionaries on a model's activations; stop it and run it again, and it goes on."""

    model: str = "smollm2-135m"
    """A name, a GGUF file, a folder, or a Hub id."""
    where: tyro.conf.OmitArgPrefixes[Where] = Where()
    """What is learned; one crosscoder reads all sites at all layers. (With --stored: these of
    the places stored; default: all of them.)"""
    tokens: int = 200_000
    """Tokens to learn from."""
    text: tuple[Path, ...] = ()
    """Files or folders of text, or hub:OWNER/NAME (default: sampled from the model itself)."""
    stored: Path | None = None
    """Activations written by `jaxcirc acts save`, instead of text, which is then for the page
    alone, as the model is."""
    epochs: int = 1
    """How often the text is read; tokens count every time."""
    context: int = 128
    """Tokens in a context."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = Recipe()
    """How it is learned."""
    batch: int | None = None
    """Tokens in a step (default: 2,048, or those of a stored batch)."""
    save_every: int = 200
    """Steps between checkpoints; where steps are slow there is one every five minutes."""
    log: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Loggers beside metrics.jsonl."""
    page: bool = True
    """Write a page of the features at the end."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        source, shown = self._of_text() if self.stored is None else self._of_store(self.stored)
        configs = self.recipe.configs(self.tokens, source.facts["batch"])
        folder = experiments.run_folder(self.out, source, configs)
        console.print(f"{folder} (run the same command again to go on from its last checkpoint)")
        loggers = [open_logger(name, folder, dataclasses.asdict(configs[0])) for name in self.log]
        with bar(configs[0].batch) as told:
            paths = experiments.train_dictionaries(
                source, configs, folder, save_every=self.save_every, loggers=loggers, tell=told
            )
        for path in paths:
            console.print(f"written to {path}")
        if shown is not None:
            self._page(*shown, paths[0])

    def _of_text(self) -> tuple[Source, Shown | None]:
        """The text's activations; and for the page some of it that is held out."""
        batch = BATCH if self.batch is None else self.batch
        self.recipe.configs(self.tokens, batch)  # what is refused is before the model is read
        places = self._places()
        model, tokenizer = models.load_model(self.model)
        wanted = experiments.enough(self.tokens, self.context, batch, self.epochs)
        wanted = wanted * 10 // 9 + 2 * self.context
        contexts, rest = experiments.held_out(self._contexts(model, tokenizer, wanted))
        source = Stream(
            model,
            contexts,
            places,
            batch=batch,
            epochs=self.epochs,
            seed=self.recipe.seed[0],
        )
        return source, ((model, tokenizer), rest) if self.page else None

    def _of_store(self, folder: Path) -> tuple[Source, Shown | None]:
        """What is stored; and for the page, if there is one, text that nothing learns from."""
        places = tuple(self._places()) if self.where.said else ()
        source = Stored(folder, places, epochs=self.epochs, seed=self.recipe.seed[0])
        self._check_stored(source.facts["batch"])
        if not self.page:
            return source, None
        loaded = models.load_model(self.model)
        wanted = PAGE * self.context
        return source, (loaded, self._contexts(*loaded, wanted, stream="judge"))

    def _check_stored(self, batch: int) -> None:
        """Raises `ValueError` for what stored activations leave no choice of."""
        idle = () if self.page else ("text", "context")
        for field in dataclasses.fields(self):
            if field.name in idle and getattr(self, field.name) != field.default:
                raise ValueError(f"--{field.name} is not read with --stored: leave it out")
        if self.batch not in (None, batch):
            raise ValueError(f"stored batches have {batch} tokens: --batch {batch}")

    def _places(self) -> list[str]:
        return self.where.places(crossed=self.recipe.architecture == "crosscoder")

    def _contexts(self, model, tokenizer, wanted: int, stream: str = "train") -> Contexts:
        with bars() as tell:
            return experiments.contexts_of(
                model,
                tokenizer,
                self.text,
                tokens=wanted,
                length=self.context,
                stream=stream,
                progress=lambda done, total: tell("sampling text", done, total),
            )

    def _page(self, loaded: Loaded, rest: Contexts, path: Path) -> None:
        """The first dictionary's page, over the text held out."""
        dictionary, card = load_dictionary(path)
        at = {"place": card["place"], "sink_norm": card["sink_norm"]}
        with bars() as tell:
            for page in write_page(
                loaded, dictionary, rest, path.with_suffix(""), at, card, tell=tell
            ):
                console.print(f"written to {page}")


@contextmanager
def bar(batch: int) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """A progress bar: tokens a second, L0, explained variance, the share of dead features."""
    text = TextColumn("{task.fields[words]}")
    columns = (TextColumn("training"), BarColumn(), text, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=None, words="compiling")
        last: list[float] = [time.perf_counter(), 0]

        def tell(step: int, steps: int, numbers: Mapping[str, float]) -> None:
            now = time.perf_counter()
            speed = (step - last[1]) * batch / max(now - last[0], 1e-9) if last[1] else 0.0
            last[:] = now, step
            progress.update(task, completed=step, total=steps, words=_words(numbers, speed))

        yield tell


def _words(numbers: Mapping[str, float], speed: float) -> str:
    def mean(name: str) -> float:
        found = [value for key, value in numbers.items() if f"/{name}" in key]
        return sum(found) / len(found)

    rate = f"{speed:,.0f} tokens/s, " if speed else ""
    return f"{rate}L0 {mean('l0'):.1f}, explained {mean('explained'):.3f}, dead {mean('dead'):.1%}"
