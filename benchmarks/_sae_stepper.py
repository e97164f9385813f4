"""Our side of `sae_step.py`, in a process of its own as the peers are: one step at a time.

Commands: `load` (architecture, widths, k, tokens; it replies with the seconds that the first step
takes, compiling among them), `step` (it replies with seconds and peak memory).
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxcirc.dictionaries import Config
from jaxcirc.dictionaries.train import Hyper, begin, build, steps

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from _memory import peak, resident  # noqa: E402
from _serve import serve  # noqa: E402

STEPS = 100_000  # long schedules: all timed steps lie in their level part


class Worker:
    def load(self, architecture: str, d: int, f: int, k: int, batch: int) -> dict:
        self.x = jax.block_until_ready(jax.random.normal(jax.random.key(0), (batch, d)))
        self.before = resident()
        self.config = Config(architecture, d_dict=f, k=k, batch=batch, tokens=STEPS * batch)
        self.state = begin(self.config, build(self.config, jax.random.key(1), d))
        self.hyper = Hyper(jnp.asarray(self.config.rate), jnp.asarray(1.0))
        return self.step()

    def step(self) -> dict:
        start = time.perf_counter()
        with peak(self.before) as memory:
            full = jnp.asarray(1.0)
            self.state, _ = steps(self.config, self.state, self.hyper, self.x, self.x, full)
            jax.block_until_ready(self.state)
        return {"seconds": time.perf_counter() - start, "peak": memory["peak"]}


if __name__ == "__main__":
    serve(Worker())
