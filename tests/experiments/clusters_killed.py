"""A small job of circuits that can be killed on its way, for test_clusters.py.

python clusters_killed.py FOLDER 2 die     on two forced devices, dead after the first batch
python clusters_killed.py FOLDER 2         the same to its end
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    n = f"--xla_force_host_platform_device_count={sys.argv[2]}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {n}"

import jax
import numpy as np

from jaxcirc.circuits.features import Basis
from jaxcirc.dictionaries import TopK, init_coder
from jaxcirc.dictionaries.train import Contexts
from jaxcirc.experiments import clusters
from jaxcirc.experiments.clusters import How, Samples
from jaxcirc.models import toy

WIDTH, LENGTH, VOCAB = 8, 9, 30
PLACES = ("mlp_out.1", "resid_post.1")
LOOSE = {"threshold": 3.0, "shortest": 5}
LABELS = np.repeat(np.arange(4), [7, 6, 6, 5])
HOW = How(sizes=(5, 12), patch="zero")
BATCH = 2


def coder(i: int) -> TopK:
    """A random dictionary of 24 features."""
    return TopK(init_coder(jax.random.key(i), WIDTH, 24), 3)


def small():
    """A random model of two blocks."""
    sizes = {"d_model": WIDTH, "n_heads": 2, "n_kv_heads": 1, "d_head": 4, "d_mlp": 12}
    return toy(jax.random.key(0), n_layers=2, vocab=VOCAB, **sizes)


def spliced(model) -> Basis:
    """Dictionaries at two places of the last block."""
    return Basis.of(model, {place: coder(i) for i, place in enumerate(PLACES)})


def text(rows: int = 60, seed: int = 0, of: int = VOCAB) -> Contexts:
    """Random windows, three a document, every fifth cut short."""
    tokens = np.random.default_rng(seed).integers(1, of, (rows, LENGTH)).astype(np.int32)
    mask = np.ones((rows, LENGTH), bool)
    mask[::5, 7:] = False
    numbers = np.arange(rows)
    return Contexts(np.where(mask, tokens, 0), mask, numbers // 3, numbers * 0, ("a.txt",))


def found(model) -> Samples:
    """What it predicts well."""
    return clusters.find_samples(model, text(96), 24, **LOOSE)


def circuits(model, folder: Path, progress=None):
    """Circuits of four clusters, two in a batch."""
    samples, basis = found(model), spliced(model)
    average = clusters.node_means(model, samples, basis)
    chosen = clusters.halves(LABELS, np.arange(4), 6)
    options = {"folder": folder, "batch": BATCH, "progress": progress}
    return clusters.run_circuits(model, samples, basis, chosen, average, HOW, **options)[0]


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    assert jax.device_count() == int(sys.argv[2])
    circuits(small(), Path(sys.argv[1]), die if sys.argv[3:] else None)
