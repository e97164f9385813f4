"""`jaxcirc acts save`."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from .. import experiments, models
from ..dictionaries.train import Stream, save_activations
from ._show import bars, console
from ._where import Where


@dataclasses.dataclass(frozen=True)
class Acts:
    """Write a model's activations to disk, to train dictionaries from with `sae train --stored`;
    stop it and run it again, and it goes on."""

    command: tyro.conf.Positional[Literal["save"]]
    """What to do."""
    out: Path = Path("acts")
    """The folder."""
    model: str = "smollm2-135m"
    """A name, a GGUF file, a folder, or a Hub id."""
    where: tyro.conf.OmitArgPrefixes[Where] = Where()
    """What to save."""
    tokens: int = 200_000
    """Tokens to save."""
    text: tuple[Path, ...] = ()
    """Files or folders of text, or hub:OWNER/NAME (default: sampled from the model itself)."""
    context: int = 128
    """Tokens in a context."""
    batch: int = 2048
    """Tokens in a batch."""
    dtype: Literal["float16", "float32"] = "float16"
    """On disk."""

    def __call__(self) -> None:
        places = self.where.places()
        model, tokenizer = models.load_model(self.model)
        with bars() as tell:
            contexts = experiments.contexts_of(
                model,
                tokenizer,
                self.text,
                tokens=experiments.enough(self.tokens, self.context, self.batch),
                length=self.context,
                progress=lambda done, total: tell("sampling text", done, total),
            )
            source = Stream(model, contexts, places, batch=self.batch)
            folder = save_activations(
                source,
                self.out,
                self.tokens,
                dtype=self.dtype,
                progress=lambda done, total: tell("tokens", done, total),
            )
        size = sum(file.stat().st_size for file in folder.iterdir())
        console.print(f"{size / 1e6:,.0f} MB written to {folder}")
