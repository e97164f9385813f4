"""`jaxcirc patch`."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from .. import experiments, models, tasks
from .._types import Direction
from ._show import bars, print_rows, write
from ._source import Source, Word, prompts_of


@dataclasses.dataclass(frozen=True)
class Patch:
    """Patch every cell of a site exactly, one at a time."""

    task: Word[str] = "ioi"
    """The task, when --prompts is not given."""
    site: str = "z"
    """Any per-layer site; TransformerLens's names are understood."""
    by: tuple[str, ...] | None = None
    """Axes to resolve besides the layer, such as pos, head, d_mlp (default: heads)."""
    pos: str | None = None
    """Patch within this span only."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    metric: Literal["logit_difference", "probability", "log_probability", "kl"] = "logit_difference"
    """What is measured."""
    direction: Direction = "noise"
    """noise: corrupt into clean; denoise: clean into corrupt."""
    window: int = 1
    """Layers patched together, centred on each."""
    value: Literal["source", "zero", "mean", "mean_pooled", "resample", "optimal"] = "source"
    """What a cell is set to: the other run's value, or an ablation of the clean run."""
    gaussian: str | None = None
    """Corrupt by Gaussian noise on the embeddings of this span, ten draws a prompt."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        model, tokenizer = models.load_model(self.source.model)
        prompts, _ = prompts_of(self.source, self.task, tokenizer)
        with bars() as tell:
            result = experiments.patch_task(
                model,
                prompts,
                site=self.site,
                by=self.by,
                pos=self.pos,
                metric=self.metric,
                direction=self.direction,
                window=self.window,
                value=self.value,
                gaussian=self.gaussian,
                seed=self.source.seed,
                columns=_columns(prompts, tokenizer),
                progress=tell,
            )
        print_rows(result, "cell", ("cell", "raw", "low", "high", "importance"), 15)
        write(result, self.out)


def _columns(prompts: tasks.Prompts, tokenizer) -> list[str]:
    """A label for every position: its token if all prompts share it, else its span or number."""
    clean, mask = np.asarray(prompts.clean), np.asarray(prompts.mask)
    labels = []
    for column in range(clean.shape[1]):
        spans = [name for name, span in prompts.spans.items() if np.asarray(span)[:, column].any()]
        same = mask[:, column].all() and (clean[:, column] == clean[0, column]).all()
        token = tokenizer.decode([int(clean[0, column])])
        labels.append(token if same else "/".join(spans) or str(column))
    return labels
