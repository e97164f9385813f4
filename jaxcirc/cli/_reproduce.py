"""`jaxcirc reproduce`: one document's claims, measured on a model."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from .. import experiments, models, tasks
from ..experiments import Result
from ._reproduce_discrete import reproduce_discrete
from ._reproduce_features import reproduce_features
from ._reproduce_observables import reproduce_observables
from ._reproduce_principled import reproduce_principled
from ._sections import print_sections
from ._show import bars, write
from ._source import Word

Document = Literal[
    "patching",
    "attribution",
    "sparse-feature-circuits",
    "observable-propagation",
    "discrete-sae",
    "principled-evaluation",
]


@dataclasses.dataclass(frozen=True)
class FeatureOptions:
    """Of sparse-feature-circuits alone."""

    dictionaries: Path | None = None
    """The folder of the paper's dictionaries, for --preset paper."""
    method: Literal["ig", "atp", "relp"] = "ig"
    """How nodes are scored."""
    ablation: Literal["mean", "resample", "zero"] = "mean"
    """What nodes outside of a circuit are set to."""
    start: int | None = None
    """Places below this layer are free (default: as the preset says)."""
    text: tuple[Path, ...] = ()
    """Text for means and explanations (default: sampled from the models themselves)."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Measure a document's claims on a model: patching (Zhang & Nanda 2023), attribution (AtP,
    AtP*, RelP and integrated gradients against exact patching), sparse-feature-circuits (Marks et
    al. 2024), observable-propagation (Dunefsky & Cohan 2023), discrete-sae (O'Neill & Bui 2024) or
    principled-evaluation (Makelov et al. 2024); the last four can be stopped and resumed."""

    document: Word[Document]
    """Which study."""
    model: str | None = None
    """A name that `load_model` knows, or the path of a GGUF file (default: smollm2-135m; for
    sparse-feature-circuits every model of the preset)."""
    preset: Literal["default", "smoke", "gemma", "paper"] = "default"
    """How much: our sizes, a quick look, ours on Gemma (observable-propagation), or the paper's own
    (for its models)."""
    n: int = 24
    """Prompts of the attribution study."""
    seed: int = 0
    """Of the prompts and the draws."""
    out: Path = Path("runs")
    """Where the run's folder goes."""
    features: tyro.conf.OmitArgPrefixes[FeatureOptions] = FeatureOptions()

    def __call__(self) -> None:
        if self.document == "sparse-feature-circuits":
            options: dict[str, Any] = dataclasses.asdict(self.features) | {"seed": self.seed}
            options["value"] = options.pop("ablation")
            reproduce_features(self.preset, self.model, self.out, **options)
            return
        if self.document == "observable-propagation":
            reproduce_observables(self.preset, self.model, self.out, self.seed)
            return
        if self.document == "discrete-sae":
            reproduce_discrete(self.preset, self.model, self.seed, self.out)
            return
        if self.document == "principled-evaluation":
            reproduce_principled(self.preset, self.model, self.out, self.seed)
            return
        model, tokenizer = models.load_model(self.model or "smollm2-135m")
        with bars() as tell:
            if self.document == "patching":
                sizes = experiments.sizes_of(self.preset, model.config.name)
                options = {"sizes": sizes, "seed": self.seed, "progress": tell}
                result = experiments.study_patching(model, tokenizer, **options)
            else:
                prompts = tasks.TASKS["ioi"](tokenizer, n=self.n, seed=self.seed)
                result = experiments.compare_attribution(
                    model, prompts, seed=self.seed, progress=tell
                )
        _print(result)
        write(result, self.out)


TITLES = {
    "ioi": "(a) IOI heads found: two standard deviations, denoising",
    "class": "(a) classes of head found",
    "token": "(d) which token is corrupted",
    "direction": "(e) noise against denoise",
    "attention": "why: where the name movers look",
    "values": "why: values of S-inhibition heads restored",
    "distance": "why: distance from the clean distribution, in deviations",
    "facts": "(b) facts: MLPs at the last subject token",
    "concentration": "(b) the last subject token against the one before",
    "task": "(c) further tasks",
    "estimate": "estimators against exact patching",
    "verified": "AtP, verified: is the bound on what it misses true?",
    "claim": "claims",
}


FOUND = ("corruption", "metric", "positive", "negative", "jaccard")
COLUMNS = {
    "ioi": FOUND,
    "token": FOUND,
    "task": ("task", "corruption", "metric", "peak", "peak, recovered", "negative"),
    "claim": ("verdict", "claim", "found", "paper (other model)"),
}
"""What is printed of the wide rows; `table.csv` holds all."""


def _print(result: Result) -> None:
    print_sections(result, TITLES, COLUMNS)
