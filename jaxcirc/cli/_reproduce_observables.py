"""`jaxcirc reproduce observable-propagation`: the study of Dunefsky & Cohan 2023, section by
section.

A killed run keeps the sections it has finished; the same command goes on.
"""

from pathlib import Path

from .. import models
from ..experiments import observable_propagation
from ._sections import print_sections
from ._show import bars, console, write

FOLDER = "observable-propagation"

TITLES = {
    "theorem": "theorem 1 by simulation: degrees between n and the gradient of n . norm(x)",
    "angle": "the same on real activations, and what the gain is worth",
    "head": "heads by the length of their features, and what they write directly",
    "overlap": "top 8 by length and by direct effect",
    "shared": "two observables: cosines, and coupling against the slope on prompts",
    "output": "the longest feature against the model's own output",
    "one feature": "one feature, two outputs",
    "path": "paths by direct effect, and the cosine of pronoun and bias along them",
    "low data": "no labels against few: held out, same layer, same tokens",
    "group": "parties and languages: what the model's output tells",
    "group head": "parties and languages: features of heads chosen in four ways",
    "text": "at every token of text the model wrote",
    "debias": "the direction taken out: what it does, and what else",
    "steering": "continuations steered along the feature",
    "claim": "claims",
    "beside": "beside the paper",
}
COLUMNS = {
    "low data": ("set", "head", "chosen by", "read at", "kind", "labels", "r2", "AUC"),
    "claim": ("verdict", "claim", "found", "baseline", "paper (other model)"),
}
"""What is printed of the wide rows; `table.csv` holds all."""


def reproduce_observables(preset: str, model: str | None, out: Path, seed: int) -> None:
    """Run the study, print its table, and write its figures and claims.

    - `model`: another than the preset's.
    """
    subject = observable_propagation.subject_of(preset, model)
    loaded, tokenizer = models.load_model(subject.model)
    folder = out / f"{FOLDER}-{preset}-{Path(loaded.config.name).name}"
    with bars() as tell:
        result = observable_propagation.study_observables(
            loaded, tokenizer, folder, sizes=subject.sizes, seed=seed, tell=tell
        )
    print_sections(result, TITLES, COLUMNS)
    write(result, out)
    console.print(f"sections kept in {folder}")
