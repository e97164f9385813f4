"""A live peer: greedy edits by few features in PyTorch, as `benchmarks/edits.py` asks.

Two forms of one algorithm. `product`: one batched product a round. `reference`: the moved
activation of every feature is made, [batch feature d], and its norm taken. Commands: `load` (path
of an npz), `product`, `reference` (moves); they reply with squared distances, seconds and peak
memory. Imports torch and nothing of jaxcirc.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _memory import peak, settled  # noqa: E402
from _serve import serve  # noqa: E402


class Worker:
    @torch.inference_mode()
    def load(self, path: str) -> dict:
        arrays = {name: torch.from_numpy(x) for name, x in np.load(path).items()}
        self.rows, self.gap = arrays["directions"], arrays["gap"]
        self.source, self.target = arrays["source"], arrays["target"]
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    @torch.inference_mode()
    def product(self, moves: int) -> dict:
        sizes = self.rows.square().sum(1)

        def best(left, delta):
            along = torch.einsum("bd,fd->bf", left, self.rows)
            along.mul_(2).sub_(delta * sizes).mul_(delta)
            return along.argmax(1)

        return self.timed(best, moves)

    @torch.inference_mode()
    def reference(self, moves: int) -> dict:
        def best(left, delta):
            moved = left[:, None, :] - delta[:, :, None] * self.rows[None]
            return moved.norm(dim=-1).argmin(1)

        return self.timed(best, moves)

    def timed(self, best: Callable, moves: int) -> dict:
        before = settled()
        start = time.perf_counter()
        with peak(before) as memory:
            left = self.rounds(best, moves)
        seconds = time.perf_counter() - start
        found = left.square().sum(1).tolist()
        return {"seconds": seconds, "peak": memory["peak"], "left": found}

    def rounds(self, best: Callable, moves: int) -> torch.Tensor:
        delta, left = self.target - self.source, self.gap.clone()
        batch = torch.arange(len(delta))
        for _ in range(moves):
            j = best(left, delta)
            left -= delta[batch, j, None] * self.rows[j]
            delta[batch, j] = 0
        return left


if __name__ == "__main__":
    serve(Worker())
