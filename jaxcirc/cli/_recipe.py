"""`Recipe`: the settings of a training run, on the command line by their names in `Config`.

May import `dictionaries`.
"""

import dataclasses
import itertools
from typing import Annotated, Literal

import tyro

from ..dictionaries import Config
from ..dictionaries.train import Architecture, Optimiser

SEVERAL = ("sparsity", "learning_rate", "seed")
"""In which the members of a population may differ."""

WITHOUT_K = ("l1", "l1_unit", "p_anneal", "gated")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How dictionaries are trained; what an architecture does not read is refused."""

    architecture: Architecture = "topk"
    """The kind of dictionary."""
    d_dict: Annotated[int, tyro.conf.arg(aliases=["--width"])] = Config.d_dict
    """Features."""
    k: int | None = None
    """Active features a token (default: 32; a crosscoder has a penalty unless k is given)."""
    sparsity: tuple[float, ...] = (Config.sparsity,)
    """The penalty's coefficient, for architectures without k; several train side by side."""
    learning_rate: tuple[float, ...] = ()
    """Peak rates (default: by width); several train side by side."""
    seed: tuple[int, ...] = (Config.seed,)
    """Seeds; several train side by side."""
    optimiser: Optimiser = Config.optimiser
    """Of the parameters."""
    weight_decay: float = Config.weight_decay
    """Of matrices, by adamw and muon."""
    warmup: float = Config.warmup
    """The share of the run in which the learning rate rises."""
    decay: float = Config.decay
    """The share of the run in which it falls to 0 at the end."""
    sparsity_warmup: float = Config.sparsity_warmup
    """The share of the run in which the penalty rises."""
    k_start: int | None = None
    """Active features at first, where k comes down (k families)."""
    anneal: float = Config.anneal
    """The share of the run in which k comes down from k_start."""
    power: float = Config.power
    """To which the penalty's power falls (p_anneal)."""
    widths: tuple[int, ...] = ()
    """Nested widths (matryoshka; default: an eighth, a quarter, a half and the whole)."""
    dead_after: int | None = None
    """Tokens without firing after which a feature is dead (default: a tenth of the run, at most ten
    million)."""
    resample: int = Config.resample
    """How often dead features are drawn anew (families with a penalty; others have AuxK)."""
    skip: bool = Config.skip
    """A linear path beside the features (transcoders)."""
    frozen: bool = Config.frozen
    """Random directions that stay, as a baseline."""
    dtype: Literal["float32", "bfloat16"] = Config.dtype
    """Of the arithmetic; parameters stay float32."""

    def configs(self, tokens: int, batch: int) -> list[Config]:
        """One for every member of the population. Raises `ValueError` as `Config` does, and for k
        where there is none."""
        if self.k is not None and self.architecture in WITHOUT_K:
            raise ValueError(f"--k {self.k}: {self.architecture} has none, it has --sparsity")
        names = (field.name for field in dataclasses.fields(self) if field.name not in SEVERAL)
        shared = {name: getattr(self, name) for name in names}
        rates = self.learning_rate or (None,)
        return [
            Config(tokens=tokens, batch=batch, seed=s, sparsity=c, learning_rate=r, **shared)
            for s, c, r in itertools.product(self.seed, self.sparsity, rates)
        ]
