"""A live peer: the reference code of EAP and EAP-IG over a random GPT-2-shaped model.

Spoken to line by line by `benchmarks/edges.py`: one JSON object in, one out. Commands: `load`
(weights as an npz in TransformerLens's names, and the shape), `prompts` (clean and corrupt ids,
answer and wrong), `eap` and `eap_ig` (`steps`); they reply with seconds, peak memory and scores.
The reference asks for a GPU by name and for strings; here "cuda" means the CPU, and tokens are
handed through. Imports torch, transformer_lens, eap and nothing of jaxcirc.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".peers/eap_ig/src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from _memory import peak, resident  # noqa: E402
from _serve import serve  # noqa: E402

zeros = torch.zeros


def on_cpu(*size, device=None, **options):
    return zeros(*size, device="cpu" if device == "cuda" else device, **options)


class Worker:
    def load(self, weights: str, shape: dict) -> dict:
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        torch.zeros = on_cpu
        config = HookedTransformerConfig(
            act_fn="gelu_new", normalization_type="LN", device="cpu", init_weights=False, **shape
        )
        config.use_split_qkv_input = config.use_attn_result = config.use_hook_mlp_in = True
        self.model = HookedTransformer(config)
        state = self.model.state_dict()
        for name, value in np.load(weights).items():
            state[name] = torch.tensor(value)
        self.model.load_state_dict(state)
        # Gradients of activations need one parameter before them; those of all the others, which
        # the reference computes too unless it is told not to, would only slow it down.
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter is self.model.embed.W_E)
        del state
        self.before = resident()
        return {}

    def prompts(self, clean, corrupt, answer, wrong) -> dict:
        from eap import attribute

        rows = torch.tensor(clean), torch.tensor(corrupt)
        self.rows = dict(zip(("clean", "corrupt"), rows, strict=True))
        self.answer, self.wrong = torch.tensor(answer), torch.tensor(wrong)

        def tokenize_plus(model, name, max_length=None):
            tokens = self.rows[name]
            mask = torch.ones_like(tokens)
            return tokens, mask, mask.sum(1), tokens.shape[1]

        attribute.tokenize_plus = tokenize_plus
        # The reference sizes its buffers by len(clean).
        self.batch = [(_Named("clean", len(clean)), _Named("corrupt", len(clean)), None)]
        return {}

    def metric(self, logits, clean_logits, lengths, label):
        rows = torch.arange(len(self.answer))
        last = logits[:, -1]
        return (last[rows, self.answer] - last[rows, self.wrong]).sum()

    def _score(self, function: str, **options) -> dict:
        from eap import attribute
        from eap.graph import Graph

        graph = Graph.from_model(self.model)
        start = time.perf_counter()
        with peak(self.before) as memory:
            found = getattr(attribute, function)(
                self.model, graph, self.batch, self.metric, quiet=True, **options
            )
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak": memory["peak"], "scores": found.tolist()}

    def eap(self) -> dict:
        return self._score("get_scores_eap")

    def eap_ig(self, steps: int) -> dict:
        return self._score("get_scores_eap_ig", steps=steps)


class _Named(str):
    """A name with the length of its batch."""

    def __new__(cls, name: str, length: int):
        self = super().__new__(cls, name)
        self.length = length
        return self

    def __len__(self) -> int:
        return self.length


if __name__ == "__main__":
    serve(Worker())
