"""`jaxcirc discover TASK --method discrete`."""

import dataclasses
from pathlib import Path
from typing import Literal

from .. import experiments, models, tasks
from ..experiments import Result
from ..experiments.discrete import Settings
from ._sections import print_sections
from ._show import console, write
from ._source import Source

TITLES = {"head": "heads by codes that only positive texts have", "pair": "directed pairs of heads"}
COLUMNS = {"head": ("rank", "head", "unique codes", "sd", "carried by", "by pairs")}
TOP = 15


@dataclasses.dataclass(frozen=True)
class DiscreteOptions:
    """Of --method discrete alone."""

    positives: Path | None = None
    """Your own texts with the behaviour, one a line (with --negatives); or JSON lines of both,
    {"text": ..., "positive": true}."""
    negatives: Path | None = None
    """Your own texts without it, one a line."""
    seeds: int = 3
    """Dictionaries, trained together."""
    features: int = 200
    """Of a dictionary."""
    penalty: float = 0.02
    """On its activations."""
    steps: int = 500
    """Of its training."""
    examples: int = 10
    """Texts that it is trained on."""
    decoder_norm: Literal["column", "reference"] = "column"
    """Unit directions, or normalised over features, as published."""
    pool: Literal["mean", "last", "each"] = "mean"
    """Which position stands for a text."""


def texts_of(source: Source, task: str, options: DiscreteOptions, tokenizer) -> tasks.Contrast:
    """The two classes asked for: own files, own pairs, or a task's.

    Raises `ValueError` for one class of texts alone, or pairs beside them.
    """
    ours, theirs = options.positives, options.negatives
    if ours is None and theirs is not None:
        raise ValueError("negatives alone: --positives FILE --negatives FILE")
    if ours is not None:
        if source.prompts is not None:
            raise ValueError("--positives and --prompts both say what to read: give one of them")
        if theirs is None and ours.suffix == ".txt":
            raise ValueError(
                f"positives alone: --positives {ours} --negatives FILE, or JSON lines of both"
            )
        if theirs is None:
            return tasks.contrast_jsonl(tokenizer, ours, bos=source.bos)
        return tasks.contrast_files(tokenizer, ours, theirs, bos=source.bos)
    if source.prompts is not None:
        loaded = tasks.from_jsonl(tokenizer, source.prompts, bos=source.bos)
        return tasks.Contrast.of(loaded.prompts)
    return tasks.contrast(task, tokenizer, n=source.n, seed=source.seed, bos=source.bos)


def discover_discrete(source: Source, task: str, options: DiscreteOptions, out: Path) -> None:
    """Rank the heads of a model, print the best and write all."""
    model, tokenizer = models.load_model(source.model)
    texts = texts_of(source, task, options, tokenizer)
    settings = Settings(
        options.features,
        options.penalty,
        options.steps,
        examples=min(options.examples, len(texts)),
        decoder_norm=options.decoder_norm,
    )
    result = experiments.discrete.discover_discrete(
        model, texts, settings=settings, seeds=options.seeds, seed=source.seed, pool=options.pool
    )
    facts = result.facts
    console.print(
        f"[bold]{result.task}[/] on {facts['model']}: {facts['positives']} texts with the"
        f" behaviour, {len(texts) - facts['positives']} without"
    )
    print_sections(_top(result), TITLES, COLUMNS)
    write(result, out)


def _top(result: Result) -> Result:
    kept = [row for row in result.table if row["section"] == "pair"][:TOP]
    heads = [row for row in result.table if row["section"] == "head"][:TOP]
    return dataclasses.replace(result, table=[*heads, *kept])
