"""`ClusterPage`: what a page shows of every cluster, and where features are strongest.

May import `taps`, `tasks`, `circuits`, `dictionaries`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._types import Progress, TokenizerLike
from ...circuits.features import Basis, FeatureNode
from ..dictionaries import Annotation
from ._job import Halves, nodes_of
from ._measures import Measures, trivial
from ._parts import Arrays, part
from ._represent import activations
from ._samples import BLOCK, Samples

Peak = tuple[int, int, float]
"""A sample, a column of its tokens, and a feature's activation there."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One cluster.

    - `samples`: by number, those its circuit was found on first; `held_out`: how many of them, from
      the end, it was judged on. `size`: all it has.
    - `nodes`: names and importance, best first. `measures`: numbers by name, NaN where unknown.
    """

    number: int
    size: int
    samples: tuple[int, ...]
    held_out: int
    nodes: tuple[tuple[str, float], ...]
    measures: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ClusterPage:
    """All clusters, the samples that they show, and what is known of their features.

    - `words`: tokens as text, by id. `tokens`, `mask`, `answers`: of the samples shown.
    - `labels`: of nodes, by name. `peaks`: of nodes, where they are strongest, sample by number.
    - `facts`, `notes`: what was run on what, and what a reader must know.
    """

    words: Mapping[int, str]
    tokens: Int[np.ndarray, "shown pos"]
    mask: Bool[np.ndarray, "shown pos"]
    answers: Int[np.ndarray, "shown"]
    clusters: tuple[Cluster, ...]
    labels: Mapping[str, str]
    peaks: Mapping[str, tuple[Peak, ...]]
    facts: Mapping[str, Any]
    notes: Sequence[str] = ()


@jax.jit
def peak_rows(model, basis: Basis, prompts) -> tuple[Array, Array]:
    """The largest activation of every feature in each prompt, and its column."""
    x = jnp.concatenate(activations(model, basis, prompts), axis=-1)
    return x.max(axis=1), x.argmax(axis=1)


def find_peaks(
    model,
    samples: Samples,
    basis: Basis,
    top: int = 3,
    *,
    batch: int = 16,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Arrays:
    """Where every feature is strongest: "value", "sample" and "pos", each [top feature].

    Of each sample one position. Values are 0 where a feature is active in fewer samples.

    >>> find_peaks(model, samples, basis)["value"].max()
    """
    prompts, best = samples.prompts(), None
    for begin in range(0, len(samples), BLOCK):
        at = np.arange(begin, min(begin + BLOCK, len(samples)))
        path = None if folder is None else folder / f"peaks-{begin // BLOCK:04}.safetensors"
        some = part(path, partial(_block, model, basis, prompts, at, top, batch))
        best = some if best is None else _merged(best, some, top)
        if progress is not None:
            progress(int(at[-1]) + 1, len(samples))
    assert best is not None
    return best


def _block(model, basis: Basis, prompts, at: np.ndarray, top: int, batch: int) -> Arrays:
    best = None
    with jax.default_matmul_precision("highest"):
        for begin in range(0, len(at), batch):
            own = at[begin : begin + batch]
            found = peak_rows(model, basis, prompts.take(np.resize(own, batch)).arrays())
            value, pos = (np.asarray(x)[: len(own)] for x in found)
            number = np.broadcast_to(own[:, None], value.shape)
            some = {"value": value, "sample": number.astype(np.int32), "pos": pos}
            best = _merged(best or {k: v[:0] for k, v in some.items()}, some, top)
    assert best is not None
    return best


def _merged(one: Arrays, other: Arrays, top: int) -> Arrays:
    """The strongest of both, by feature."""
    both = {name: np.concatenate([one[name], other[name]]) for name in one}
    order = np.argsort(-both["value"], axis=0, kind="stable")[:top]
    return {name: np.take_along_axis(array, order, axis=0) for name, array in both.items()}


def cluster_page(
    tokenizer: TokenizerLike,
    samples: Samples,
    basis: Basis,
    labels: Int[np.ndarray, "sample"],
    chosen: Halves,
    found: Arrays,
    measures: Measures,
    *,
    peaks: Arrays | None = None,
    annotations: Iterable[Annotation] = (),
    nodes: int = 12,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> ClusterPage:
    """Gather what the page shows.

    - `found`: of the clusters in `chosen`, as `run_circuits` returns it. `nodes`: shown of each.
    - `annotations`: notes on features, those of this model; `peaks`: as `find_peaks` returns them.

    >>> viz.write_clusters(page, "runs/clusters/clusters.html")
    """
    facts, layout = dict(facts or {}), basis.layout(None)
    each = [
        Cluster(
            int(number),
            int((labels == number).sum()),
            *_shown(chosen, i),
            tuple(nodes_of(found, i, layout)[:nodes]),
            {name: float(values[i]) for name, values in of_each(measures, found).items()},
        )
        for i, number in enumerate(chosen.clusters)
    ]
    names = sorted({name for cluster in each for name, _ in cluster.nodes})
    strongest = {} if peaks is None else {n: _peaks(peaks, basis, n) for n in names}
    every = [i for c in each for i in c.samples] + [p[0] for ps in strongest.values() for p in ps]
    used = np.unique(np.asarray(every, int))
    shown, model = samples.take(used), str(facts.get("model", ""))
    return ClusterPage(
        _words(tokenizer, shown),
        shown.tokens,
        shown.mask,
        shown.answers,
        tuple(dataclasses.replace(c, samples=_renumbered(used, c.samples)) for c in each),
        _labels(annotations, names, model),
        {
            n: tuple((_renumbered(used, p[:1])[0], *p[1:]) for p in ps)
            for n, ps in strongest.items()
        },
        facts,
        notes,
    )


def of_each(measures: Measures, found: Arrays) -> dict[str, Float[np.ndarray, "cluster"]]:
    """Numbers of every cluster, by name."""
    real = measures.real
    numbers = {
        f"faithfulness, {name}": np.asarray(list(real.each(i).values()))
        for name, i in measures.sets
    }
    shares = {f"same {name}": measures.shares[name] for name in ("token", "bigram")}
    return {
        **numbers,
        "error share": found["error_share"],
        "effect": -found["total"],
        "gap": -found["gap"],
        **shares,
        "copied": measures.shares["copied"],
        "trivial": trivial(measures.shares).astype(float),
    }


def _shown(chosen: Halves, i: int) -> tuple[tuple[int, ...], int]:
    """A cluster's samples, each once, and how many of them judge."""
    find, judge = (chosen.rows[i, half][chosen.weight[i, half] > 0].tolist() for half in (0, 1))
    return (*find, *judge), len(judge)


def _peaks(peaks: Arrays, basis: Basis, name: str) -> tuple[Peak, ...]:
    """Where a node is strongest; nowhere, for an error."""
    node = FeatureNode.parse(name)
    if node.is_error:
        return ()
    place = basis.places.index(node.place)
    before = sum(d.d_dict for d in basis.dictionaries[:place])
    column = {key: array[:, before + int(node.index)].tolist() for key, array in peaks.items()}
    rows = zip(column["sample"], column["pos"], column["value"], strict=True)
    return tuple((i, pos, value) for i, pos, value in rows if value > 0)


def _renumbered(used: np.ndarray, samples: Sequence[int]) -> tuple[int, ...]:
    return tuple(np.searchsorted(used, samples).tolist())


def _words(tokenizer: TokenizerLike, shown: Samples) -> dict[int, str]:
    word = getattr(tokenizer, "token", lambda i: tokenizer.decode([i]))
    ids = np.union1d(np.unique(shown.tokens), shown.answers)
    return {int(token): word(int(token)) for token in ids}


def _labels(annotations: Iterable[Annotation], names: Sequence[str], model: str) -> dict[str, str]:
    said = {
        f"{note.place}/{note.feature}": note.text
        for note in annotations
        if note.model in ("", model)
    }
    return {name: said[name] for name in names if name in said}
