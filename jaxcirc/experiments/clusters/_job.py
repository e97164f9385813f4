"""`run_circuits`: a circuit for each of a thousand clusters, batch by batch, kept as they are done.

Every batch is one compiled call, its clusters shared out among all devices; a job that is killed
loses at most the batch it was in. May import `taps`, `tasks`, `circuits`, `dictionaries`.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from ..._types import Progress
from ...circuits.features import Basis, Layout
from ...circuits.features._patches import Means, means
from ...dictionaries.train._mesh import used, whole
from ...taps import Code
from ...tasks import Prompts
from ._batch import How, cluster_circuits
from ._parts import Arrays, joined, part
from ._represent import spread
from ._samples import Samples

AVERAGED = 4096
"""Samples that means are taken over."""


@dataclasses.dataclass(frozen=True)
class Halves:
    """The samples of every cluster that a circuit is found on, and those that it is judged on.

    - `rows`: [cluster half sample], samples by number; `weight`: 0 where one only fills up.
    - `clusters`: the cluster of each.
    """

    rows: Int[np.ndarray, "cluster half sample"]
    weight: Float[np.ndarray, "cluster half sample"]
    clusters: Int[np.ndarray, "cluster"]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Int[np.ndarray, "some"]) -> "Halves":
        """Some of the clusters, by their place here."""
        return Halves(self.rows[which], self.weight[which], self.clusters[which])


def halves(
    labels: Int[np.ndarray, "sample"],
    clusters: Int[np.ndarray, "cluster"],
    most: int,
    seed: int = 0,
) -> Halves:
    """At most `most` samples of each cluster, drawn and parted at random.

    Raises `ValueError` for a cluster of one sample, which has no halves.

    >>> halves(labels, np.arange(1000), 8).rows.shape
    (1000, 2, 4)
    """
    if most < 2:
        raise ValueError(f"most={most}: half of a cluster finds, half judges; give 2 or more")
    width = -(-most // 2)
    rows = np.zeros((len(clusters), 2, width), int)
    weight = np.zeros(rows.shape, np.float32)
    for i, cluster in enumerate(clusters.tolist()):
        members = np.flatnonzero(labels == cluster)
        if len(members) < 2:
            raise ValueError(f"cluster {cluster} has one sample: give --least 2 or more")
        drawn = np.random.default_rng((seed, cluster)).permutation(members)[:most]
        for half, own in enumerate(np.array_split(drawn, 2)):
            rows[i, half] = np.resize(own, width)
            weight[i, half, : len(own)] = 1
    return Halves(rows, weight, clusters)


def run_circuits(
    model,
    samples: Samples,
    basis: Basis,
    chosen: Halves,
    average: Means,
    how: How,
    *,
    folder: Path | None = None,
    name: str = "circuits",
    batch: int = 4,
    precision: str = "highest",
    progress: Progress | None = None,
) -> tuple[Arrays, float]:
    """A circuit for every cluster: what `cluster_circuits` returns, for all, and circuits a minute.

    - `average`: means of all nodes, each sample's group (see `node_means`). `batch`: clusters in
      one compiled call, more where there are more devices. `folder`: keeps a file a batch.

    The rate counts what this call itself found, compiling left out; NaN if it was but one batch.
    Raises `ValueError` for larger circuits than there are nodes.

    >>> found, rate = run_circuits(model, samples, basis, chosen, average, How())
    """
    nodes = basis.layout(None).size
    if how.sizes[-1] > nodes:
        raise ValueError(f"circuits of {how.sizes[-1]} nodes: there are {nodes}, --nodes {nodes}")
    mesh, prompts, parts, stamps = data_mesh(), samples.prompts(), [], []
    devices = 1 if mesh is None else mesh.size
    batch = -(-min(batch, len(chosen)) // devices) * devices
    model, basis, codes = whole((model, basis, average.codes), mesh)
    average = Means(codes, average.group)
    with jax.default_matmul_precision(precision), used(mesh):
        for i, at in enumerate(range(0, len(chosen), batch)):
            own = np.arange(at, min(at + batch, len(chosen)))
            some = chosen.take(np.resize(own, batch))
            path = None if folder is None else folder / f"{name}-{i:04}.safetensors"
            new = path is None or not path.exists()
            make = partial(_batch, model, basis, prompts, some, average, how, mesh, len(own))
            parts.append(part(path, make))
            stamps += [(time.perf_counter(), len(own))] if new else []
            if progress is not None:
                progress(int(own[-1]) + 1, len(chosen))
    return joined(parts), _rate(stamps)


def _rate(stamps: list[tuple[float, int]]) -> float:
    """Circuits a minute since the first batch, which compiles."""
    if len(stamps) < 2:
        return float("nan")
    return 60 * sum(n for _, n in stamps[1:]) / (stamps[-1][0] - stamps[0][0])


def _batch(
    model, basis: Basis, prompts: Prompts, some: Halves, average: Means, how: How, mesh, new: int
) -> Arrays:
    rows = some.rows.ravel()
    parts = (prompts.take(rows).arrays(), jnp.asarray(some.weight), average.group[rows])
    own, weight, group = shared_out(parts, mesh)
    found = cluster_circuits(model, basis, own, weight, Means(average.codes, group), how=how)
    return {name: np.asarray(array)[:new] for name, array in found.items()}


def data_mesh() -> Mesh | None:
    """All devices, to share out rows among; None where there is but one."""
    n = jax.device_count()
    return jax.make_mesh((n,), ("data",), (AxisType.Auto,)) if n > 1 else None


def shared_out(tree, mesh: Mesh | None):
    """Arrays cut along their first axis, each device its part."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, P("data")))


def node_means(
    model, samples: Samples, basis: Basis, *, folder: Path | None = None, batch: int = 16
) -> Means:
    """Mean features and errors by position, over samples of equal length (of all, or of 4,096).

    >>> node_means(model, samples, basis).group
    """
    prompts = samples.prompts()

    def make() -> Arrays:
        over = prompts.take(spread(prompts.lengths, AVERAGED))
        with jax.default_matmul_precision("highest"):
            found = means(model, prompts, basis, over, batch)
        codes = {
            f"{i}/{name}": getattr(c, name) for i, c in enumerate(found.codes) for name in CODE
        }
        return {name: np.asarray(x) for name, x in {"group": found.group, **codes}.items()}

    kept = part(None if folder is None else folder / "means.safetensors", make)
    codes = [Code(*(jnp.asarray(kept[f"{i}/{n}"]) for n in CODE)) for i in range(len(basis.places))]
    return Means(tuple(codes), jnp.asarray(kept["group"]))


CODE = ("features", "error")
"""The parts of a `Code`, in its order."""


def nodes_of(found: Arrays, cluster: int, layout: Layout) -> list[tuple[str, float]]:
    """A cluster's nodes by name, best first, with how much each helps (minus its effect)."""
    pairs = zip(found["columns"][cluster].tolist(), found["effects"][cluster].tolist(), strict=True)
    return [(str(layout.node(column)), -effect) for column, effect in pairs if effect]
