"""`jaxcirc sae`: the commands for dictionaries."""

import dataclasses
from typing import Annotated

import tyro

from ._sae_judge import Eval, Page
from ._sae_table import Table
from ._sae_train import Train


@dataclasses.dataclass(frozen=True)
class Sae:
    """Dictionaries of features: train them, judge one or a suite, look at features."""

    command: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Table, tyro.conf.subcommand("table")]
        | Annotated[Page, tyro.conf.subcommand("page")]
    ]

    def __call__(self) -> None:
        self.command()
