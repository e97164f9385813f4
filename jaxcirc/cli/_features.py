"""`jaxcirc features`: the commands for circuits of features."""

import dataclasses
from typing import Annotated

import tyro

from ._features_circuit import Circuit
from ._features_clusters import Clusters
from ._features_shift import Shift


@dataclasses.dataclass(frozen=True)
class Features:
    """Circuits of features: of a task, of what nobody named, and what to take out of them."""

    command: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Circuit, tyro.conf.subcommand("circuit")]
        | Annotated[Clusters, tyro.conf.subcommand("clusters")]
        | Annotated[Shift, tyro.conf.subcommand("shift")]
    ]

    def __call__(self) -> None:
        self.command()
