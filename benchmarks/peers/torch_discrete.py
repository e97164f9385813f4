"""A live peer: discrete-SAE head scores by the published recipe, over a Llama-shaped GGUF.

Spoken to line by line by `benchmarks/discrete.py`: one JSON object in, one out. The recipe of
O'Neill & Bui 2024 (arXiv 2405.12522): what every head writes, mean over positions; one ReLU
dictionary trained on a few texts by full-batch Adam, its decoder normalised over features in every
step and the slope along it taken off; codes by argmax; codes unique to positives. Commands: `load`
(gguf), `texts` (tokens, how many are positive), `start` (an .npz of first weights, training rows),
`run` (`steps`, `cached`), which replies with seconds and the score of every head. Imports torch,
transformers and nothing of jaxcirc.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _serve import serve  # noqa: E402
from torch_sweep import load as load_model  # noqa: E402

BATCH = 32


def _keep(seen: list, _, x: tuple) -> None:
    seen.append(x[0].mean(dim=1))


class Worker:
    def load(self, gguf: str) -> dict:
        self.model = load_model(gguf)
        self.model.requires_grad_(False)
        config = self.model.config
        self.heads, self.width = config.num_attention_heads, config.head_dim
        self.projections = [layer.self_attn.o_proj for layer in self.model.model.layers]
        self.outputs = None
        return {"threads": torch.get_num_threads(), "torch": torch.__version__}

    def texts(self, tokens, positive: int) -> dict:
        self.tokens, self.positive = torch.tensor(tokens), positive
        self.outputs = None
        return {"shape": list(self.tokens.shape)}

    def start(self, weights: str, rows: list[int]) -> dict:
        self.first, self.rows = dict(np.load(weights)), torch.tensor(rows)
        return {}

    @torch.inference_mode()
    def written(self) -> torch.Tensor:
        """What every head writes, mean over positions: [text head d_model]."""
        parts = []
        for tokens in self.tokens.split(BATCH):
            seen = []
            keep = partial(_keep, seen)
            hooks = [p.register_forward_pre_hook(keep) for p in self.projections]
            self.model.model(tokens, use_cache=False)
            for hook in hooks:
                hook.remove()
            parts.append(torch.stack(seen, 1).unflatten(2, (self.heads, self.width)))
        z = torch.cat(parts)
        w = torch.stack(
            [p.weight.t().unflatten(0, (self.heads, self.width)) for p in self.projections]
        )
        return torch.einsum("blhe,lhed->blhd", z, w).flatten(1, 2)

    def run(self, steps: int, cached: bool = False) -> dict:
        begin = time.perf_counter()
        if not cached or self.outputs is None:
            self.outputs = self.written().clone()
        sae = self.trained(self.outputs[self.rows].flatten(0, 1), steps)
        scores = self.scores(self.outputs, *sae)
        return {"seconds": time.perf_counter() - begin, "scores": scores}

    def trained(self, x: torch.Tensor, steps: int):
        """Encoder, its bias, decoder [d_model feature] and the tied bias after training."""
        names = ("w_enc", "b_enc", "w_dec", "b_dec")
        w_enc, b_enc, w_dec, b = (
            torch.from_numpy(self.first[name]).clone().requires_grad_() for name in names
        )
        optimiser = torch.optim.Adam([w_enc, b_enc, w_dec, b], lr=1e-3)
        penalty = float(self.first["penalty"])
        for _ in range(steps):
            optimiser.zero_grad()
            with torch.no_grad():
                w_dec.copy_(F.normalize(w_dec, dim=-1))
            f = F.relu(F.linear(x - b, w_enc, b_enc))
            error = (F.linear(f, w_dec) + b - x).square().mean()
            (error + penalty * f.abs().sum(-1).mean()).backward()
            with torch.no_grad():
                along = (w_dec.grad * w_dec).sum(-1, keepdim=True)
                w_dec.grad -= along * w_dec
            optimiser.step()
        return w_enc, b_enc, b

    @torch.no_grad()
    def scores(self, x: torch.Tensor, w_enc, b_enc, b) -> list[int]:
        """Codes of each head that occur on positives and on no negative."""
        codes = torch.cat(
            [F.linear(part - b, w_enc, b_enc).relu().argmax(-1) for part in x.split(BATCH)]
        )
        ours, theirs = codes[: self.positive].t().tolist(), codes[self.positive :].t().tolist()
        return [len(set(p) - set(n)) for p, n in zip(ours, theirs, strict=True)]


if __name__ == "__main__":
    serve(Worker())
