"""`jaxcirc reproduce discrete-sae`: the study of O'Neill & Bui 2024, section by section.

A killed run keeps the sections it has finished; the same command goes on.
"""

from pathlib import Path

from .. import models
from ..experiments import discrete
from ._sections import print_sections
from ._show import bars, console, write

FOLDER = "discrete-sae"
TITLES = {
    "known": "models whose circuit is known: AUC over components, and over pairs of them",
    "spread": "how far the AUC depends on one setting, mean over models",
    "codes": "codes on the language model",
    "found": "as many heads as the reference has, against it",
    "faithful": "behaviour kept by heads of equal number, all other heads ablated",
    "overlap": "the best heads that methods share with EAP-IG",
    "cost": "seconds without compiling, on the same pairs",
    "size": "one dictionary's training by model size",
    "claim": "claims",
}
COLUMNS = {
    "known": ("parts ranked", "method", "AUC", "sd over seeds", "parts", "models"),
    "claim": ("verdict", "claim", "found", "paper (other model)"),
}
"""What is printed of the wide rows; `table.csv` holds all."""


def reproduce_discrete(preset: str, model: str | None, seed: int, out: Path) -> None:
    """Run the study on a model, print its table, and write its figures and claims."""
    name = model or "smollm2-135m"
    sizes = discrete.discrete_sizes(preset, name)
    loaded, tokenizer = models.load_model(name)
    folder = out / f"{FOLDER}-{preset}-{loaded.config.name}-{seed}"
    with bars() as tell:
        result = discrete.study_discrete(
            loaded, tokenizer, folder, sizes=sizes, seed=seed, tell=tell
        )
    print_sections(result, TITLES, COLUMNS)
    write(result, out)
    console.print(f"sections kept in {folder}")
