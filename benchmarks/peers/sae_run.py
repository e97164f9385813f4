"""A live peer: dictionary_learning's TopK trainer on saved activations, some steps at a time.

Spoken to line by line by `benchmarks/sae_training.py`: one JSON object in, one out. Commands:
`load` (shards of safetensors, the place in them, widths, k, steps of warm-up), `train` (steps; it
replies with the seconds of its updates alone), `save` (a folder for `ae.pt` and `config.json`).
Activations are brought to a mean squared norm of 1, as its `trainSAE` does when asked to normalise
them, and biases are scaled back on saving. Imports torch, safetensors, dictionary_learning and
nothing of jaxcirc.
"""

import json
import sys
import time
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _serve import serve  # noqa: E402

NORM_BATCHES = 100


class Worker:
    def load(self, shards: list[str], place: str, f: int, k: int, batch: int, **options) -> dict:
        sys.modules["nnsight"] = types.ModuleType("nnsight")
        sys.modules["nnsight"].LanguageModel = None
        from dictionary_learning.trainers import TopKTrainer

        self.x = torch.cat([load_file(shard)[place] for shard in shards])
        self.batch, self.done = batch, 0
        first = self.x[: NORM_BATCHES * batch].float()
        self.norm = first.square().sum(dim=1).mean().sqrt().item()
        common = {"activation_dim": self.x.shape[1], "dict_size": f, "k": k, "layer": 0}
        common |= {"lm_name": "", "device": "cpu", "seed": 0}
        self.trainer = TopKTrainer(**common, **options)
        return {"tokens": len(self.x)}

    def train(self, steps: int) -> dict:
        seconds = 0.0
        for _ in range(steps):
            x = self._next()
            start = time.perf_counter()
            self.trainer.update(self.done, x)
            seconds += time.perf_counter() - start
            self.done += 1
        return {"seconds": seconds}

    def _next(self) -> torch.Tensor:
        """The next batch, in a new random order every epoch."""
        n = len(self.x) // self.batch
        epoch, at = divmod(self.done, n)
        if at == 0:
            order = torch.Generator().manual_seed(epoch)
            self.order = torch.randperm(len(self.x), generator=order)
        rows = self.order[at * self.batch : (at + 1) * self.batch]
        return self.x[rows].float() / self.norm

    def save(self, folder: str) -> dict:
        ae = self.trainer.ae
        ae.scale_biases(self.norm)
        torch.save({name: x.cpu() for name, x in ae.state_dict().items()}, Path(folder) / "ae.pt")
        ae.scale_biases(1 / self.norm)
        config = {"trainer": self.trainer.config | {"device": "cpu"}}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return {}


if __name__ == "__main__":
    serve(Worker())
