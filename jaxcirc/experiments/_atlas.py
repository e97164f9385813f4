"""`jaxcirc atlas ioi`: the exact effect of every edge, as a job that can be stopped and resumed.

On SmolLM2-135M with 12 prompts all 70,651 edges take some hours on two cores; a twentieth of them,
drawn alike, some minutes. Every chunk is saved as it is done; the same command goes on.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from .. import patching
from .._types import Progress
from ..taps import Wiring
from ..tasks import METRICS, Prompts
from ._clock import clock
from ._result import Result, facts_of
from .edges import shape_of

CHUNK = 1024


def atlas(
    model,
    prompts: Prompts,
    folder: str | os.PathLike,
    *,
    metric: str = "logit_difference",
    share: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Patch every edge exactly, or a random share of them, saving on the way.

    - `folder`: where the chunks are kept; a job found there, of the same model, prompts, metric and
      seed, goes on. `share`: stop once so much of the edges is done; a later call may go further.

    Returns `Result` with "importance" Float[edge], NaN where not yet patched. Raises `ValueError`
    for a folder that holds another job.

    >>> atlas(model, prompts, "runs/atlas", share=0.05)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: give a share in (0, 1], as in share=0.05")
    wiring, measure = Wiring.of(model), METRICS[metric]
    settings = {"metric": metric, "seed": seed, "chunk": CHUNK}
    facts = facts_of(model, prompts, **settings, **shape_of(wiring))
    chunks = _chunks(wiring, seed)
    wanted = chunks[: max(1, round(share * len(chunks)))]
    folder = _claim(Path(folder), facts)
    with clock() as seconds:
        for i, edges in enumerate(wanted):
            path = folder / f"chunk-{i:03}.safetensors"
            if not path.exists():
                effects = patching.patch_edges(model, prompts, edges, measure)
                _save(path, edges, np.asarray(effects.importance.mean(axis=0), np.float32))
            if progress is not None:
                progress(i + 1, len(wanted))
    importance = read_atlas(folder, wiring.n_edges)
    done = int((~np.isnan(importance)).sum())
    return Result(
        kind="atlas",
        task=prompts.name,
        numbers={},
        table=[],
        arrays={"importance": importance},
        axes={"importance": ("edge",)},
        facts=facts | {"share": done / wiring.n_edges},
        seconds=seconds,
        notes=[
            f"{done:,} of {wiring.n_edges:,} edges patched exactly; the mean over"
            f" {len(prompts)} prompts, positive helps."
        ],
    )


def read_atlas(folder: str | os.PathLike, n_edges: int) -> np.ndarray:
    """The importance of every edge patched so far, Float[edge], NaN for the others.

    >>> np.isnan(read_atlas("runs/atlas", 70651)).mean()
    """
    importance = np.full(n_edges, np.nan, np.float32)
    for path in sorted(Path(folder).glob("chunk-*.safetensors")):
        part = load_file(path)
        importance[part["edges"]] = part["importance"]
    return importance


def _chunks(wiring: Wiring, seed: int) -> list[np.ndarray]:
    """All edges in an order drawn at random, so that any first part is a fair sample; within a
    chunk by layer, which is how they are patched."""
    order = np.random.default_rng(seed).permutation(wiring.n_edges)
    parts = np.array_split(order, -(-wiring.n_edges // CHUNK))
    return [part[np.argsort(wiring.layer[part], kind="stable")].astype(np.int32) for part in parts]


def _claim(folder: Path, facts: dict[str, Any]) -> Path:
    """The folder, if it is new or belongs to this very job."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "job.txt"
    same = ("sha256", "prompt_hash", "metric", "seed", "chunk", "dtype", "processing", "edges")
    words = "\n".join(f"{name} {facts[name]}" for name in same)
    if mark.exists() and mark.read_text() != words:
        raise ValueError(f"{folder} holds another job: give another folder, --out runs/atlas-2")
    _atomically(mark, lambda path: path.write_text(words))
    return folder


def _save(path: Path, edges: np.ndarray, importance: np.ndarray) -> None:
    _atomically(path, lambda to: save_file({"edges": edges, "importance": importance}, to))


def _atomically(path: Path, write) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write(partial)
    partial.replace(path)
