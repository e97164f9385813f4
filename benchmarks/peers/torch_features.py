"""A live peer: node scores of a feature circuit by the reference recipe, over a Llama-shaped GGUF.

Spoken to line by line by `benchmarks/feature_circuit.py`: one JSON object in, one out. The recipe
of Marks et al. 2024 (arXiv 2403.19647): clean and corrupt runs to fill in features and errors;
then, place by place and step by step, the whole model is run with one place's features and errors
on the straight line between both, and the gradient of the metric is taken at features and errors;
steps are k/N (left rule). Commands: `load` (gguf, places, an .npz of dictionaries), `prompts`, `ig`
(`steps`), which replies with seconds and the mean score of every feature and error. Imports torch,
transformers and nothing of jaxcirc.
"""

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _serve import serve  # noqa: E402
from torch_sweep import load as load_model  # noqa: E402


class Dictionary:
    """A ReLU dictionary: f = relu(x W_e + b_e), x = f W_d + b_d + error."""

    def __init__(self, arrays: dict[str, np.ndarray], place: str):
        names = ("w_enc", "b_enc", "w_dec", "b_dec")
        self.w_enc, self.b_enc, self.w_dec, self.b_dec = (
            torch.from_numpy(arrays[f"{place}/{name}"]) for name in names
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and error."""
        features = torch.relu((x - self.b_dec) @ self.w_enc + self.b_enc)
        return features, x - self.decode(features)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.w_dec + self.b_dec


class Worker:
    def load(self, gguf: str, places: list[str], dictionaries: str) -> dict:
        self.model = load_model(gguf)
        self.model.requires_grad_(False)
        arrays = dict(np.load(dictionaries))
        self.dictionaries = {place: Dictionary(arrays, place) for place in places}
        return {"threads": torch.get_num_threads(), "torch": torch.__version__}

    def prompts(self, clean, corrupt, answer, wrong) -> dict:
        self.clean, self.corrupt = torch.tensor(clean), torch.tensor(corrupt)
        self.rows = torch.arange(len(answer))
        self.answer, self.wrong = torch.tensor(answer), torch.tensor(wrong)
        return {"shape": list(self.clean.shape)}

    def module(self, place: str) -> torch.nn.Module:
        """Whose output a place is."""
        site, _, layer = place.partition(".")
        block = self.model.model.layers[int(layer)]
        return {"attn_out": block.self_attn, "mlp_out": block.mlp, "resid_post": block}[site]

    @contextlib.contextmanager
    def hooked(self, hooks):
        """Each hook rewrites (or reads) the output of its place."""
        handles = []
        for place, hook in hooks.items():

            def on(module, arguments, output, hook=hook):
                first = output[0] if isinstance(output, tuple) else output
                new = hook(first)
                return (new, *output[1:]) if isinstance(output, tuple) else new

            handles.append(self.module(place).register_forward_hook(on))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def metric(self, tokens: torch.Tensor) -> torch.Tensor:
        last = self.model(input_ids=tokens, use_cache=False).logits[:, -1]
        return last[self.rows, self.answer] - last[self.rows, self.wrong]

    @torch.no_grad()
    def filled(self, tokens: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Features and errors of every place."""
        seen = {}

        def reader(place):
            def read(x):
                seen[place] = self.dictionaries[place].encode(x)
                return x

            return read

        with self.hooked({place: reader(place) for place in self.dictionaries}):
            self.metric(tokens)
        return seen

    def ig(self, steps: int) -> dict:
        start = time.perf_counter()
        clean, corrupt = self.filled(self.clean), self.filled(self.corrupt)
        scores = [self.place(place, clean[place], corrupt[place], steps) for place in clean]
        seconds = time.perf_counter() - start
        found = [[x.tolist() for x in pair] for pair in scores]
        return {"seconds": seconds, "places": list(clean), "scores": found}

    def place(self, place: str, clean, corrupt, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean scores over prompts of every feature and error, [pos feature] and [pos]; the first
        token has no nodes."""
        total = [torch.zeros_like(x) for x in clean]
        for k in range(steps):
            ends = zip(clean, corrupt, strict=True)
            nodes = [((1 - k / steps) * a + k / steps * b).requires_grad_() for a, b in ends]
            first = self.dictionaries[place].decode(clean[0][:, :1]) + clean[1][:, :1]

            def replace(x, nodes=nodes, first=first):
                value = self.dictionaries[place].decode(nodes[0]) + nodes[1]
                return torch.cat([first, value[:, 1:]], dim=1)

            with torch.enable_grad(), self.hooked({place: replace}):
                found = torch.autograd.grad(self.metric(self.clean).sum(), nodes)
            total = [t + f / steps for t, f in zip(total, found, strict=True)]
        deltas = [b - a for a, b in zip(clean, corrupt, strict=True)]
        features, error = (t * d for t, d in zip(total, deltas, strict=True))
        return features.mean(0), error.sum(-1).mean(0)


if __name__ == "__main__":
    serve(Worker())
