"""A live peer: TransformerLens's own activation patching sweeps over a random GPT-2-shaped model.

Spoken to line by line by `benchmarks/patching.py`: one JSON object in, one out. Commands: `load`
(weights as an npz in TransformerLens's names, and the shape), `prompts` (clean and corrupt ids,
answer and wrong), `resid` and `heads` (a sweep, denoising; `layers` makes it a partial one for
warming up). Imports torch, transformer_lens and nothing of jaxcirc.
"""

import time

import numpy as np
import torch
from _serve import serve


class Worker:
    def load(self, weights: str, shape: dict) -> dict:
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        config = HookedTransformerConfig(
            act_fn="gelu_new", normalization_type="LN", device="cpu", init_weights=False, **shape
        )
        self.model = HookedTransformer(config)
        state = self.model.state_dict()
        for name, value in np.load(weights).items():
            state[name] = torch.tensor(value)
        self.model.load_state_dict(state)
        torch.set_grad_enabled(False)
        return {}

    def prompts(self, clean, corrupt, answer, wrong) -> dict:
        self.clean, self.corrupt = torch.tensor(clean), torch.tensor(corrupt)
        self.answer, self.wrong = torch.tensor(answer), torch.tensor(wrong)
        _, self.cache = self.model.run_with_cache(self.clean)
        self.base = self.metric(self.model(self.corrupt))
        return {"base": self.base.item()}

    def metric(self, logits: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(self.answer))
        last = logits[:, -1]
        return (last[rows, self.answer] - last[rows, self.wrong]).mean()

    def _sweep(self, function, layers) -> dict:
        from transformer_lens import patching

        before, self.model.cfg.n_layers = self.model.cfg.n_layers, layers or self.model.cfg.n_layers
        start = time.perf_counter()
        found = getattr(patching, function)(self.model, self.corrupt, self.cache, self.metric)
        seconds = time.perf_counter() - start
        self.model.cfg.n_layers = before
        return {"seconds": seconds, "effects": (found - self.base).tolist()}

    def resid(self, layers: int | None = None) -> dict:
        return self._sweep("get_act_patch_resid_pre", layers)

    def heads(self, layers: int | None = None) -> dict:
        return self._sweep("get_act_patch_attn_head_out_all_pos", layers)


if __name__ == "__main__":
    serve(Worker())
