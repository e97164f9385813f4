"""A live peer: the trainers of SAELens and dictionary_learning, one step at a time.

Spoken to line by line by `benchmarks/sae_step.py`: one JSON object in, one out. Commands: `load`
(library, architecture, widths, k, a seed for the tokens), `step`; it replies with seconds, peak
memory and the loss. dictionary_learning imports nnsight for buffers that no trainer needs; an empty
module stands in for it. Imports torch, the two libraries and nothing of jaxcirc.
"""

import sys
import time
import types
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _memory import peak, resident  # noqa: E402
from _serve import serve  # noqa: E402

STEPS = 100_000  # long schedules: all timed steps lie in their level part


class Worker:
    def load(self, library: str, architecture: str, d: int, f: int, k: int, batch: int) -> dict:
        torch.manual_seed(0)
        self.x = torch.randn(batch, d)
        self.before = resident()
        make = {"saelens": _saelens, "dictionary_learning": _dictionary_learning}[library]
        self.update, self.count = make(architecture, d, f, k, batch), 1
        return {}

    def step(self) -> dict:
        start = time.perf_counter()
        with peak(self.before) as memory:
            self.update(self.count, self.x)
        self.count += 1
        return {"seconds": time.perf_counter() - start, "peak": memory["peak"]}


def _dictionary_learning(architecture: str, d: int, f: int, k: int, batch: int):
    sys.modules["nnsight"] = types.ModuleType("nnsight")
    sys.modules["nnsight"].LanguageModel = None
    from dictionary_learning.trainers import JumpReluTrainer, StandardTrainer, TopKTrainer

    common = {"activation_dim": d, "dict_size": f, "steps": STEPS, "layer": 0, "lm_name": ""}
    common |= {"device": "cpu", "seed": 0}
    made = {
        "topk": lambda: TopKTrainer(k=k, **common),
        "l1": lambda: StandardTrainer(**common),
        "jumprelu": lambda: JumpReluTrainer(target_l0=float(k), **common),
    }
    return made[architecture]().update


def _saelens(architecture: str, d: int, f: int, k: int, batch: int):
    from sae_lens import saes
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    common = {"d_in": d, "d_sae": f, "device": "cpu", "dtype": "float32"}
    configs = {
        "topk": lambda: saes.TopKTrainingSAEConfig(k=k, **common),
        "l1": lambda: saes.StandardTrainingSAEConfig(**common),
        "jumprelu": lambda: saes.JumpReLUTrainingSAEConfig(**common),
    }
    classes = {
        "topk": saes.TopKTrainingSAE,
        "l1": saes.StandardTrainingSAE,
        "jumprelu": saes.JumpReLUTrainingSAE,
    }
    sae = classes[architecture](configs[architecture]())
    config = SAETrainerConfig(STEPS * batch, batch)
    config.lr_end = config.lr / 10  # its runner's default; the constant schedule never uses it
    trainer = SAETrainer(config, sae, iter(()))

    def update(count: int, x: torch.Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return update


if __name__ == "__main__":
    serve(Worker())
