"""`jaxcirc features shift`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from .. import experiments
from ..experiments.shift import (
    Counts,
    Scoring,
    Sizes,
    bias_in_bios,
    biographies,
    check_tasks,
    read_decisions,
    residual,
    rows_of_contexts,
    study_shift,
)
from ._features_source import SUITE, check_text, open_suite
from ._sections import print_sections
from ._show import bars, console, write

COLUMNS = ("task", "method", "profession", "attribute", "worst", "group", "worst, binomial")
FEATURES = ("task", "verdict", "feature", "importance", "seeds", "peaks")
TITLES = {
    "shift": "in percent: profession, attribute (50 is ideal), worst of four groups",
    "published": "the paper's, on Bias in Bios",
    "claim": "claims",
}
SHOWN: dict[str, tuple[str, ...]] = {
    "shift": COLUMNS,
    "published": ("model", "method", "profession", "attribute", "worst"),
    "claim": ("verdict", "claim", "found", "paper (other model)"),
}


@dataclasses.dataclass(frozen=True)
class Shift:
    """Free a classifier from a confound by ablating features (SHIFT), beside its baselines; with a
    page on which to judge features. Stopped, it goes on where it was."""

    suite: Path = SUITE
    """A shipped suite's name, a folder of dictionaries, or the paper's own folder."""
    model: str | None = None
    """A name, a GGUF file, a folder, or a Hub id (default: what the cards say)."""
    tasks: tuple[Literal["gender", "tense"], ...] = ("gender", "tense")
    """Made biographies with this confound; not with --bios."""
    bios: tuple[Path, ...] = ()
    """Files of Bias in Bios instead: JSON lines or parquet with hard_text, profession, gender."""
    decisions: tuple[Path, ...] = ()
    """Decisions saved on judge pages, instead of the word lists."""
    head: str | None = None
    """The residual that the classifier reads; dictionaries behind it are left out (default: the
    first behind them all)."""
    above: int | None = None
    """Places below this layer are the lowest, which one row leaves out (default: the first)."""
    method: Literal["atp", "ig", "relp"] = "atp"
    """How features are scored."""
    features: int = 64
    """Features that are judged, of each seed."""
    ambiguous: int = 320
    """Training texts with the confound."""
    balanced: int = 320
    """Training texts without it, for the oracle and the skylines."""
    test: int = 320
    """Texts to test on."""
    scored: int = 48
    """Texts on which features are scored."""
    seeds: int = 5
    """Draws of texts and heads."""
    tokens: int = 40
    """Tokens of a text; longer ones lose their end."""
    text: tuple[Path, ...] = ()
    """Other text on which the judge sees features (default: training texts)."""
    folder: Path = Path("runs/shift-seeds")
    """Where seeds are kept as they are done."""
    out: Path = Path("runs")
    """Where the run's folder goes."""

    def __call__(self) -> None:
        decisions = [read_decisions(path) for path in self.decisions]
        tasks = [bias_in_bios(*self.bios)] if self.bios else [biographies(t) for t in self.tasks]
        check_tasks(tasks, decisions)
        sizes = self._sizes()
        check_text(self.text)
        if self.head is not None:
            residual(self.head)
        model, tokenizer, basis = open_suite(self.suite, self.model).load()
        with bars() as tell:
            found = study_shift(
                model,
                tokenizer,
                basis,
                self.folder,
                tasks=tasks,
                place=self.head,
                above=self.above,
                decisions=decisions,
                text=self._text(model, tokenizer),
                sizes=sizes,
                dictionaries=self.suite.name,
                progress=tell,
            )
        print_sections(found.result, TITLES, SHOWN)
        write(found.result, self.out)
        self._write_pages(found)

    def _sizes(self) -> Sizes:
        counts = Counts(self.ambiguous, self.balanced, self.test)
        scoring = Scoring(self.method, texts=self.scored, features=self.features)
        return Sizes(counts, scoring, self.seeds, most=self.tokens)

    def _text(self, model, tokenizer) -> Any:
        """Rows of other text for the judge."""
        if not self.text:
            return None
        tokens = 256 * self.tokens
        found = experiments.contexts_of(
            model, tokenizer, self.text, tokens=tokens, length=self.tokens, stream="judge"
        )
        return rows_of_contexts(found.tokens, found.mask)

    def _write_pages(self, found) -> None:
        from .. import viz  # matplotlib, which only a finished run needs

        for page in found.pages:
            path = self.out / found.result.name / f"judge-{page.task}.html"
            viz.write_judge(page, path)
            console.print(f"judge its features on {path}, and read that back by --decisions")
