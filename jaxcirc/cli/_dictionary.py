"""`jaxcirc dictionary eval`."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from .. import models
from ..dictionaries import load_dictionary
from ..experiments import principled
from ..experiments.dictionaries import place_of, processed
from ._reproduce_principled import print_principled
from ._show import bars, write


@dataclasses.dataclass(frozen=True)
class Dictionary:
    """A dictionary on a task, beside codes made from labels, neurons, principal directions and a
    learned subspace: what it keeps, what few of its features change, and what they mean."""

    command: tyro.conf.Positional[Literal["eval"]]
    """What to do."""
    dictionary: Path
    """A dictionary's file or folder in any known format, or a shipped one's name."""
    task: Literal["ioi", "agreement", "pronouns"] = "ioi"
    """A task that labels its prompts."""
    pos: str = "end"
    """The token role: a span of the task, such as end, S2 or noun."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the dictionary's card says)."""
    place: str | None = None
    """Such as resid_post.12 (default: what the card says)."""
    head: int | None = None
    """At sites of heads."""
    k: tuple[int, ...] = (2, 8, 32)
    """Moves of edits."""
    train: int = 960
    """Prompts that codes and labels are made from."""
    n: int = 128
    """Prompts that are reported on."""
    ravel: Path | None = None
    """RAVEL's data folder, for the disentangle score at the last token of a city."""
    seed: int = 0
    """Of the prompts."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        dictionary, card = load_dictionary(self.dictionary)
        name, place = self.model or card.get("model"), self.place or place_of(card)
        if not name:
            raise ValueError(f"{self.dictionary.name} names no model: --model smollm2-135m")
        if place is None:
            raise ValueError(f"{self.dictionary.name} names no place: --place resid_post.12")
        model, tokenizer = models.load_model(name)
        with bars() as tell:
            result = principled.judge_dictionary(
                processed(model, card),
                tokenizer,
                dictionary,
                place,
                self.task,
                pos=self.pos,
                head=self.head,
                ks=self.k,
                train=self.train,
                report=self.n,
                seed=self.seed,
                name=self.dictionary.as_posix(),
                ravel=self.ravel,
                tell=tell,
            )
        print_principled(result)
        write(result, self.out)
