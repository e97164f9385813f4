"""`jaxcirc lens`."""

import dataclasses

from .. import experiments, models
from .._types import Bos
from ._show import console, table_of
from ._source import Word


@dataclasses.dataclass(frozen=True)
class Lens:
    """What every layer predicts for a text, and which heads write the prediction."""

    text: Word[str]
    """The text; the token after it is looked at."""
    model: str = "smollm2-135m"
    """A name that `load_model` knows, or the path of a GGUF file."""
    bos: Bos = "model"
    """Whether a start token is put before the text."""
    top: int = 10
    """Heads to list."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.model)
        found = experiments.lens_text(model, tokenizer, self.text, bos=self.bos, top=self.top)
        console.print(found.headline, markup=False)
        for title, rows in (("logit lens", found.layers), ("heads", found.heads)):
            console.print(table_of(title, rows, tuple(rows[0])))
