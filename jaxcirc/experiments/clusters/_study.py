"""`study_clusters`: circuits of behaviours that nobody named, from any text, as a job to resume.

By arithmetic, for SmolLM2-135M with 13 dictionaries in blocks 11 to 15, contexts of 32 tokens and 8
samples a cluster: 220 GFLOP a circuit (8 clean runs, 4 backward passes from block 11, 16 spliced
runs of the upper blocks), so that a thousand, with 10,000 samples, their effects and 250 shuffled
clusters, take 800 TFLOP: about an hour on two cores. May import `circuits`.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..._types import Tell, TokenizerLike
from ...circuits.features import Basis
from ...dictionaries.train import Contexts
from .._clock import clock
from .._result import Result, Row
from ..dictionaries import Annotation
from ._batch import How
from ._group import clusters_of, enough, shuffled, stability
from ._job import Halves, halves, node_means, run_circuits
from ._measures import SHARE, HeldOut, Measures, explained
from ._page import ClusterPage, cluster_page, find_peaks
from ._parts import Arrays, claim, part
from ._represent import represent
from ._samples import Samples, find_samples
from ._settings import Settings, job_facts, job_folder


def study_clusters(
    model,
    tokenizer: TokenizerLike,
    basis: Basis,
    contexts: Contexts,
    out: Path,
    settings: Settings | None = None,
    *,
    bos: str = "never",
    annotations: Iterable[Annotation] = (),
    progress: Tell | None = None,
) -> tuple[Result, ClusterPage, Path]:
    """Find circuits of clusters of samples, and whether the clusters are behaviours.

    - `contexts`: windows of text, one token longer than the longest context. `out`: the job's
      folder is made in it; the same call goes on with what is there, file by file.
    - `annotations`: what features are, for the page.

    Returns the result, the page and the folder. Raises `ValueError` for text without tokens that
    the model predicts so well, fewer samples than clusters need, and unknown words.

    >>> result, page, folder = study_clusters(model, tokenizer, basis, contexts, Path("runs"))
    """
    settings = settings or Settings()
    settings.check()
    how, tell = settings.how, progress or (lambda *_: None)
    facts = job_facts(model, basis, contexts, settings) | {"bos": bos}
    folder = claim(job_folder(out, facts), facts)
    job = _Job(model, basis, settings, folder, tell)
    with clock() as seconds:
        samples = job.samples(contexts, bos)
        labels, x = job.labels(samples)
        n = _some(labels, settings.least)
        measures, found, chosen, rate = job.circuits(samples, labels, n, how, x)
        peaks = job.peaks(samples)
    notes = [*_notes(samples, labels, n, settings, rate), *_score_notes(found, settings)]
    facts |= {"samples_hash": samples.hash(), "samples found": len(samples), "circuits": n}
    facts |= {"metric": "log_probability"}
    page = cluster_page(
        tokenizer,
        samples,
        basis,
        labels,
        chosen,
        found,
        measures,
        peaks=peaks,
        annotations=annotations,
        facts=facts,
        notes=notes,
    )
    result = Result(
        kind="clusters",
        task="clusters",
        numbers=measures.numbers(),
        table=[*measures.rows(), *(c.row() for c in measures.claims()), *_cluster_rows(page)],
        arrays={"labels": labels, **found},
        axes={"labels": ("sample",), **AXES},
        facts=facts,
        seconds=seconds,
        notes=notes,
    )
    return result, page, folder


def _some(labels: np.ndarray, least: int) -> int:
    """How many clusters get a circuit."""
    n = enough(labels, least)
    if not n:
        raise ValueError(f"no cluster has {least} samples: --least 2, or fewer --clusters")
    return n


AXES = {
    "columns": ("cluster", "node"),
    "effects": ("cluster", "node"),
    "error_share": ("cluster",),
    "total": ("cluster",),
    "gap": ("cluster",),
    "values": ("cluster", "sample", "set"),
    "full": ("cluster", "sample"),
}


@dataclasses.dataclass(frozen=True)
class _Job:
    """The stages of a study, each of which keeps what it makes in the folder."""

    model: Any
    basis: Basis
    settings: Settings
    folder: Path
    tell: Tell

    def _bar(self, stage: str):
        return lambda done, total: self.tell(stage, done, total)

    def samples(self, contexts: Contexts, bos: str) -> Samples:
        s = self.settings
        return find_samples(
            self.model,
            contexts,
            s.samples,
            threshold=s.threshold,
            shortest=s.shortest,
            repeats=s.repeats,
            each=s.each,
            seed=s.seed,
            bos=bos,
            folder=self.folder,
            progress=self._bar("samples"),
        )

    def labels(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """The cluster of every sample, and the rows that say so."""
        s = self.settings
        options = {"pool": s.pool, "dims": s.dims, "seed": s.seed, "folder": self.folder}
        bar = self._bar("rows")
        x = represent(self.model, samples, self.basis, s.kind, **options, progress=bar)

        def make() -> Arrays:
            return {"labels": self._grouped(x, s.seed)}

        return part(self.folder / "labels.safetensors", make)["labels"], x

    def _grouped(self, x: np.ndarray, seed: int) -> np.ndarray:
        s = self.settings
        return clusters_of(x, s.clusters, least=s.least, method=s.grouping, seed=seed)

    def circuits(
        self, samples: Samples, labels: np.ndarray, n: int, how: How, x: np.ndarray
    ) -> tuple[Measures, Arrays, Halves, float]:
        """Circuits of the first `n` clusters and of shuffled ones, and what they are worth."""
        s, mixed = self.settings, shuffled(labels, self.settings.seed)
        average = node_means(self.model, samples, self.basis, folder=self.folder)
        options = {"folder": self.folder, "batch": s.batch}

        def run(labels: np.ndarray, clusters: np.ndarray, name: str):
            chosen = halves(labels, clusters, s.most, s.seed)
            asked = (self.model, samples, self.basis, chosen, average, how)
            found = run_circuits(*asked, **options, name=name, progress=self._bar(name))
            return chosen, *found

        chosen, found, rate = run(labels, np.arange(n), "circuits")
        other, twins = None, np.arange(n)[:: -(-n // max(1, s.shuffled))]
        if s.shuffled:
            halved, made, _ = run(mixed, twins, "shuffled")
            other = HeldOut.of(made, halved)
        measures = Measures(
            how,
            HeldOut.of(found, chosen),
            other,
            explained(samples, labels, n),
            explained(samples, mixed, n),
            stability([labels, *(self._grouped(x, s.seed + i) for i in range(1, s.seeds))]),
        )
        return measures, found, chosen, rate

    def peaks(self, samples: Samples) -> Arrays | None:
        top = self.settings.peaks
        if not top:
            return None
        bar = self._bar("feature contexts")
        return find_peaks(self.model, samples, self.basis, top, folder=self.folder, progress=bar)


def _cluster_rows(page: ClusterPage) -> list[Row]:
    """A row for every cluster."""
    return [
        {
            "section": "cluster",
            "cluster": cluster.number,
            "samples": cluster.size,
            **cluster.measures,
            "nodes": ", ".join(name for name, _ in cluster.nodes[:5]),
        }
        for cluster in page.clusters
    ]


def _score_notes(found: Arrays, s: Settings) -> list[str]:
    """What errors carry, and what the scores leave unexplained."""
    size = float(np.abs(found["total"]).mean())
    missed = float(np.abs(found["gap"]).mean()) / size if size else float("nan")
    return [
        f"Error nodes carry {found['error_share'].mean():.0%} of all effects by size, the mean over"
        " clusters.",
        f"Scores ({s.method}, {s.patch} patches) miss the effect of the last residual place by"
        f" {missed:.0%}, the mean over clusters.",
    ]


def _notes(samples: Samples, labels: np.ndarray, n: int, s: Settings, rate: float) -> list[str]:
    inside = int((labels < n).sum())
    speed = "" if np.isnan(rate) else f"{rate:,.0f} circuits a minute; "
    notes = [
        f"{speed}{n:,} circuits of clusters with {s.least} samples or more: {inside:,} of"
        f" {len(samples):,} samples, in {int(labels.max()) + 1:,} clusters.",
        f"A next token, bigram or copied trigram explains a cluster if {SHARE:.0%} of its samples"
        " share it.",
    ]
    if n < s.clusters:
        notes.append(f"{s.clusters:,} such clusters were wanted: more samples make more of them.")
    if len(samples) < s.samples:
        notes.append(f"{s.samples:,} samples were wanted: more text makes more of them.")
    if s.repeats == "drop":
        notes.append("Tokens that copy a trigram of their context are left out of the samples.")
    if s.kind == "effects":
        notes.append(
            "Samples are clustered by effects like those that circuits are chosen by, so that alike"
            " circuits within a cluster are no surprise; what is measured is how far they carry."
        )
    return notes
