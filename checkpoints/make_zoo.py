"""Makes checkpoints/zoo/: small models whose circuits are known, one safetensors file each.

    uv run python checkpoints/make_zoo.py             # everything, one after the other
    uv run python checkpoints/make_zoo.py induction   # one model

Compiled programs take seconds each and need tracr (in the development group); trained ones take
one to three minutes each on two cores. `fixture` writes what tracr itself says of the programs, for
the tests. Each run prints the numbers that go into the model's card in cards.json.
"""

import sys
from pathlib import Path

import compiled
import jax
import trained

from jaxcirc.zoo._causal import CAUSAL
from jaxcirc.zoo._compiled import PROGRAMS

ROOT = Path(__file__).resolve().parent / "zoo"


def main(names: list[str]) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    for name in names or [*PROGRAMS, *CAUSAL, "fixture"]:
        if name == "fixture":
            compiled.make_fixture()
        elif name in PROGRAMS:
            compiled.make(name, ROOT)
        elif name in CAUSAL:
            trained.make(name, ROOT)
        else:
            sys.exit(f"no model {name!r}: there are {', '.join([*PROGRAMS, *CAUSAL])}")


if __name__ == "__main__":
    main(sys.argv[1:])
