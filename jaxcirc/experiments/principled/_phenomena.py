"""Occlusion and over-splitting in dictionaries of a model's own activations.

Makelov, Lange & Nanda 2024 (arXiv 2405.08366), section 6. May import `dictionaries`, `patching`.
"""

import dataclasses

import numpy as np

from ...patching import Component
from .._result import Row
from ..feature_circuits import Section
from ._bank import TASK, Bank
from ._bench import Bench, CrossSection
from ._claims import split_claim
from ._covers import splitting_rows
from ._occlusion import interpolated_rows
from ._parametrised import fitted, independent
from ._subjects import trained
from ._toys import freed


def splitting(bank: Bank, component: Component) -> Section:
    """Over-splitting of the position in task dictionaries, by seeds and by prompts learned from."""
    data, place = bank.data(TASK), [component]
    recipe = dataclasses.replace(bank.sizes.recipe, architectures=("l1", "topk"), levels=1, seeds=2)
    one = trained(data.train.read(place), recipe, progress=bank.progress("splitting"))
    again = dataclasses.replace(recipe, seeds=1)
    other = trained(bank.other(TASK).read(place), again, progress=bank.progress("splitting"))
    held = Bench(data.report, CrossSection.alone(component, ("Pos",)))
    rows = splitting_rows(held, one, other, "Pos")
    return Section(rows, claims=[split_claim(row, str(component)) for row in rows])


def occlusion(bank: Bank, component: Component) -> Section:
    """The stronger of IO and S taken away from a real activation, share by share."""
    bench = Bench(bank.data(TASK).train, CrossSection.alone(component, ("IO", "S")))
    (codes,) = fitted(bench, independent(bench.source))
    lengths = {n: float(np.linalg.norm(codes.codes[n], axis=1).mean()) for n in ("IO", "S")}
    strong, weak = sorted(lengths, key=lambda name: -lengths[name])
    sizes = bank.sizes
    tokens = min(sizes.toy.tokens, sizes.recipe.tokens)
    scale = dataclasses.replace(sizes.toy, features=sizes.recipe.features, tokens=tokens)
    rows = interpolated_rows(bench.values[0], bench.source.labels, codes, strong, weak, scale)
    named: list[Row] = [{**row, "cross-section": str(component)} for row in rows]
    return Section(named, claims=[freed(rows, weak, str(component))])
