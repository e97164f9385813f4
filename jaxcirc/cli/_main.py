"""The command line: one frozen dataclass a command, its fields the options. May import everything.

jaxcirc discover ioi                     find a task's circuit, judge it, draw it
jaxcirc discover ioi --level edge        the same for edges, with a graph to explore
jaxcirc discover ioi --method discrete   heads by codes that only texts with the behaviour have
jaxcirc compare ioi                      every method of edge discovery, judged alike
jaxcirc leaderboard                      the same on models whose circuits are known
jaxcirc atlas ioi --share 0.05           exact effects of edges, a job that can be resumed
jaxcirc overlap circuit.json             a file's edge scores against a reference circuit
jaxcirc patch ioi --site z               exact effects of every cell of a site
jaxcirc lens "The capital of France is"  what each layer and head says of the next token
jaxcirc observe --positive " she" --negative " he"  the heads that write it, by weights alone
jaxcirc tasks smollm2-135m               what a model can do, task by task
jaxcirc reproduce patching               best practices of activation patching, measured
jaxcirc reproduce attribution            fast scores against exact patching
jaxcirc reproduce sparse-feature-circuits  features against neurons, errors, edges, measured
jaxcirc reproduce observable-propagation  observables pulled back through heads, measured
jaxcirc reproduce discrete-sae           heads by codes, against known circuits, measured
jaxcirc reproduce principled-evaluation  dictionaries judged by control, against codes
jaxcirc dictionary eval --task ioi       the three tests of one dictionary
jaxcirc recovery                         dictionaries against a known truth, by architecture
jaxcirc sae train                        a sparse autoencoder; run it again and it goes on
jaxcirc acts save --out acts             activations on disk, for sae train --stored acts
jaxcirc sae eval PATH --text DIR         a dictionary beside PCA and random directions
jaxcirc sae table SUITE --text DIR       every dictionary of a suite, on texts apart
jaxcirc sae page PATH --text DIR         a page of its features
jaxcirc features circuit agreement_across  a task's circuit in the features of dictionaries
jaxcirc features clusters --text DIR     circuits that nobody named, a job that can be resumed
jaxcirc features shift                   a classifier freed from a confound, by judged features
jaxcirc plan --device v5e-8              what training a dictionary needs, before there is a TPU
jaxcirc parity smollm2-135m              logits against stored reference logits
jaxcirc parity --all                     the same for a tiny model of every family
"""

import os
import sys
from typing import Annotated

import jax
import tyro

from .. import models
from ._acts import Acts
from ._compare import Compare
from ._dictionary import Dictionary
from ._discover import Discover
from ._features import Features
from ._leaderboard import Atlas, Leaderboard
from ._lens import Lens
from ._observe import Observe
from ._overlap import Overlap
from ._parity import Parity
from ._patch import Patch
from ._plan import Plan
from ._recovery import Recovery
from ._reproduce import Reproduce
from ._sae import Sae
from ._tasks import Tasks

Command = (
    Annotated[Discover, tyro.conf.subcommand("discover")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Leaderboard, tyro.conf.subcommand("leaderboard")]
    | Annotated[Atlas, tyro.conf.subcommand("atlas")]
    | Annotated[Overlap, tyro.conf.subcommand("overlap")]
    | Annotated[Patch, tyro.conf.subcommand("patch")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Lens, tyro.conf.subcommand("lens")]
    | Annotated[Observe, tyro.conf.subcommand("observe")]
    | Annotated[Tasks, tyro.conf.subcommand("tasks")]
    | Annotated[Recovery, tyro.conf.subcommand("recovery")]
    | Annotated[Sae, tyro.conf.subcommand("sae")]
    | Annotated[Dictionary, tyro.conf.subcommand("dictionary")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Acts, tyro.conf.subcommand("acts")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Parity, tyro.conf.subcommand("parity")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an expected error is one line and exit status 1."""
    command = tyro.cli(Command, args=arguments, prog="jaxcirc", description=__doc__)
    jax.config.update("jax_compilation_cache_dir", str(models.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:
        command()
    except (ValueError, OSError) as error:
        if os.environ.get("JAXCIRC_TRACEBACK"):
            raise
        sys.exit(f"jaxcirc: {str(error).splitlines()[0]}")
    except KeyboardInterrupt as stop:
        sys.exit(f"jaxcirc: {str(stop) or 'interrupted'}")
