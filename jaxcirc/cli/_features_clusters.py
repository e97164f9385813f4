"""`jaxcirc features clusters`."""

import dataclasses
from pathlib import Path

import tyro

from .. import experiments
from .._types import Bos
from ..experiments.clusters import Settings, study_clusters
from ..experiments.dictionaries import read_annotations
from ..tasks import bos_ids
from ._features_source import SUITE, check_text, open_suite
from ._sections import print_sections
from ._show import bars, console

SPARE = {"window": 2.0, "document": 8.0}
"""Windows of text for every sample wanted: many hold no token that is predicted so well, and a
document has several windows."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Circuits that nobody named: cluster what a model predicts well, find a circuit for each
    cluster, and measure whether clusters are behaviours. The same command goes on where a killed
    one stopped."""

    text: tuple[Path, ...] = ()
    """Files or folders of text, or hub:OWNER/NAME (default: sampled from the model itself)."""
    suite: Path = SUITE
    """A shipped suite's name, a folder of dictionaries, or the paper's own folder."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the dictionaries' cards say)."""
    context: int = 32
    """Tokens before a predicted one, at most."""
    bos: Bos = "model"
    """Whether contexts begin with that token; "model": as the model was trained."""
    notes: Path | None = None
    """What features are: JSON lines with place, feature and text."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        from .. import viz  # matplotlib, which only a finished run needs

        annotations = () if self.notes is None else read_annotations(self.notes)
        self._check()
        model, tokenizer, basis = open_suite(self.suite, self.model).load()
        with bars() as tell:
            result, page, folder = study_clusters(
                model,
                tokenizer,
                basis,
                self._windows(model, tokenizer, tell),
                self.out,
                self.settings,
                bos="always" if bos_ids(tokenizer, self.bos) else "never",
                annotations=annotations,
                progress=tell,
            )
        print_sections(result, TITLES, COLUMNS)
        paths = [*viz.write(result, folder), viz.write_clusters(page, folder / "clusters.html")]
        seconds = result.seconds
        console.print(
            f"{seconds['total']:.1f} s, of which {seconds['compile']:.1f} s compiling; written to"
            f" {folder}: {', '.join(path.name for path in paths)}"
        )

    def _check(self) -> None:
        """What can be refused before anything is loaded."""
        if self.context <= self.settings.shortest:
            raise ValueError(
                f"--context {self.context}: contexts of {self.settings.shortest} tokens or more"
                f" need --context {2 * self.settings.shortest}"
            )
        self.settings.check()
        check_text(self.text)

    def _windows(self, model, tokenizer, tell):
        """Windows of text, a sample from each."""
        length, each = self.context + 1, self.settings.each if self.text else "window"
        return experiments.contexts_of(
            model,
            tokenizer,
            self.text,
            tokens=int(SPARE[each] * self.settings.samples) * length,
            length=length,
            seed=self.settings.seed,
            stream="clusters",
            bos=self.bos,
            progress=lambda done, total: tell("sampling text", done, total),
        )


TITLES = {"measure": "are clusters behaviours?", "claim": "claims"}
COLUMNS = {
    "measure": ("measure", "clusters", "shuffled", "difference"),
    "claim": ("verdict", "claim", "statistic", "found"),
}
"""What is printed of the wide rows; `table.csv` holds all."""
