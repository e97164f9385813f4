"""`jaxcirc sae train`: dictionaries for some places of a model, trained on text or on what the
model itself says, resumed by the same command.

On SmolLM2-135M, one place, 2,048 features: about two thousand tokens a second on two cores, most of
it the model's forward pass. Expect an explained variance above .8 after 200,000 tokens.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import dictionaries
from .._types import Bos, Progress
from ..dictionaries.formats import write_file
from ..dictionaries.train import (
    Checkpoints,
    Config,
    Contexts,
    Fitted,
    Logger,
    Report,
    Source,
    excerpts,
    fit,
    json_lines,
    pack,
    read_texts,
    sampled,
)
from ..models import cache_dir

CHARACTERS = 8
"""Read for every token wanted; most tokens are shorter."""

EVERY = 50
"""Steps between two reports, where steps are fast."""


def contexts_of(
    model,
    tokenizer,
    text: Sequence[Path] = (),
    *,
    tokens: int,
    length: int = 128,
    seed: int = 0,
    stream: str = "train",
    bos: Bos = "model",
    progress: Progress | None = None,
) -> Contexts:
    """Rows of tokens from text; without any, drawn from the model and kept in the cache.

    - `text`: files, folders, or data sets of the Hub (`hub:OWNER/NAME`), of which the beginning
      is read: as many characters as so many tokens may need.
    - `stream`: what text drawn from the model is for; "judge" shares none with "train". `bos`:
      whether each row begins with that token.

    >>> contexts_of(model, tokenizer, [Path("corpus/")], tokens=1_000_000)
    """
    if text:
        wanted = CHARACTERS * tokens
        some = excerpts(read_texts(*text, most=wanted), wanted, seed)
        return pack(some, tokenizer, length, tokens, bos=bos, seed=seed)
    key = f"{model.config.sha256[:16]}-{length}-{stream}-{seed}-{bos}"
    asked = {"seed": seed, "stream": stream, "bos": bos, "progress": progress}
    return sampled(model, tokenizer, tokens, length, folder=cache_dir() / "contexts" / key, **asked)


def enough(tokens: int, length: int = 128, batch: int = 2048, epochs: int = 1) -> int:
    """Tokens of text for so many to learn from in whole batches: first tokens and sinks are left
    out."""
    once = -(-tokens // batch) * batch / epochs
    return math.ceil(once * (1.04 + 1 / length)) + length


def held_out(contexts: Contexts, rows: int = 256) -> tuple[Contexts, Contexts]:
    """The contexts to train on, and the last ones (so many, or a tenth), which are not.

    >>> train, rest = held_out(contexts)
    """
    cut = len(contexts) - max(1, min(rows, len(contexts) // 10))
    return contexts.take(slice(cut)), contexts.take(slice(cut, None))


def run_folder(out: Path, source: Source, configs: Sequence[Config]) -> Path:
    """Where this very run lies: another model, text, place or config has another folder."""
    plain = {"sink_norm": source.facts.get("sink_norm"), "processing": "raw"}
    said = {n: fact for n, fact in source.facts.items() if n not in plain or fact != plain[n]}
    parts = [json.dumps(said, sort_keys=True), *map(str, configs)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return Path(out) / f"sae-{digest[:8]}"


def train_dictionaries(
    source: Source,
    configs: Sequence[Config],
    folder: Path,
    *,
    save_every: int = 200,
    loggers: Iterable[Logger] = (),
    tell: Any = None,
) -> list[Path]:
    """Train one dictionary (or a population) for every place of a source in one pass; resume what
    is there.

    - `folder`: of the run: run.json (what it is of), checkpoints, metrics.jsonl, and the
      dictionaries when they are done. `tell`: told (step, steps, numbers) as `fit` tells, every
      `EVERY` steps.

    Returns the dictionaries' files.

    >>> source = Stream(model, contexts, ["resid_post.12"])
    >>> train_dictionaries(source, [Config("topk")], Path("runs/a"))
    """
    _describe(folder, source, configs)
    every = [json_lines(folder / "metrics.jsonl"), *loggers]

    def report(step: int, steps: int, reports: Mapping[str, Report]) -> None:
        numbers = flat(reports)
        for log in every:
            log(step, numbers)
        if tell is not None:
            tell(step, steps, numbers)

    keep = Checkpoints(folder / "checkpoints", every=save_every)
    return _write(fit(configs, source, keep=keep, tell=report, every=EVERY), folder)


def _describe(folder: Path, source: Source, configs: Sequence[Config]) -> None:
    """Write what a run is of, where its folder does not say so yet."""
    said = {"source": source.facts, "configs": [dataclasses.asdict(config) for config in configs]}
    if not (folder / "run.json").exists():
        write_file(folder / "run.json", (json.dumps(said, indent=1) + "\n").encode())


def flat(reports: Mapping[str, Report]) -> dict[str, float]:
    """Numbers by name: "resid_post.12/l0", with the member behind where there are several."""
    numbers = {}
    for place, report in reports.items():
        parts = {
            "loss": report.loss,
            "l0": report.seen.l0,
            "explained": report.explained,
            "dead": report.dead,
        }
        for name, values in parts.items():
            values = np.asarray(values).reshape(-1)
            for i, value in enumerate(values):
                member = f"/{i}" if len(values) > 1 else ""
                numbers[f"{place}/{name}{member}"] = float(value)
    return numbers


def _write(fitted: Fitted, folder: Path) -> list[Path]:
    numbers, paths = flat(fitted.reports), []
    for place, members in fitted.dictionaries.items():
        own = {name: value for name, value in numbers.items() if name.startswith(place + "/")}
        for i, (dictionary, config) in enumerate(zip(members, fitted.configs, strict=True)):
            member = f"-{i}" if len(members) > 1 else ""
            path = folder / f"{place.replace('>', '-to-')}{member}.safetensors"
            facts = card_of(place, config, fitted.facts)
            facts |= {"tokens": fitted.tokens, "training": own}
            paths.append(dictionaries.save_dictionary(dictionary, path, facts=facts))
    return paths


def card_of(place: str, config: Config, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says: model, place (also as site and layer, where it is one), sink rule, text,
    recipe, precision."""
    found = dict(source) | {
        "place": place,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "tokens": config.steps * config.batch,
        "precision": str(jax.config.values["jax_default_matmul_precision"] or "default"),
    }
    spots = list(dict.fromkeys(re.split("[>+]", place)))
    known = source.get("sink_norm") or {}
    norms = {spot: known[spot] for spot in spots if spot in known}
    site, _, layer = spots[0].rpartition(".")
    if not layer.isdigit():
        return found
    found |= {"sink_norm": norms if len(spots) > 1 else known.get(place)}
    return found if "+" in place else found | {"site": site, "layer": int(layer)}
