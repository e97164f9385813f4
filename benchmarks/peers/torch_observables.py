"""A live peer in PyTorch: every head's feature for an observable of a Llama-shaped GGUF model.

Question answered together with `benchmarks/observe.py`: how long do all heads' features and their
lengths take, (a) as one batched einsum over heads with their own copies of the value weights, and
(b) as two batched products with the value weights at their true width? For the observable n,

    y[l, h] = gain_l * W_V[l, h] W_O[l, h] (gain_final * W_U^T n)

The worker runs in its own environment (`make_torch.sh`) and is spoken to line by line. Imports
torch, transformers and nothing of jaxcirc.
"""

import time

import torch
from _serve import serve
from torch_sweep import load


class Worker:
    """The stacked weights of a model, and both ways."""

    @torch.inference_mode()
    def load(self, gguf: str) -> dict:
        model = load(gguf)
        c, layers = model.config, model.model.layers
        heads, groups = c.num_attention_heads, c.num_key_value_heads
        d_head = c.hidden_size // heads
        self.unembed = model.lm_head.weight.clone()
        self.final = model.model.norm.weight.clone()
        self.gain = torch.stack([layer.input_layernorm.weight for layer in layers])[:, None]
        out = torch.stack([layer.self_attn.o_proj.weight.T for layer in layers])
        self.out = out.reshape(len(layers), heads, d_head, -1).contiguous()
        value = torch.stack([layer.self_attn.v_proj.weight for layer in layers])
        self.value = value.reshape(len(layers), groups, d_head, -1).contiguous()
        self.copied = self.value.repeat_interleave(heads // groups, dim=1).contiguous()
        return {"layers": len(layers), "heads": heads, "torch": torch.__version__}

    def observable(self, tokens: list[int], weights: list[float]) -> dict:
        self.tokens, self.weights = torch.tensor(tokens), torch.tensor(weights)
        return {"tokens": len(tokens)}

    @torch.inference_mode()
    def features(self, way: str, repeats: int) -> dict:
        make = {"einsum": self.einsum, "products": self.products}[way]
        start = time.perf_counter()
        for _ in range(repeats):
            found = make() * self.gain
            norms = found.norm(dim=-1)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "norms": norms.tolist()}

    def direction(self) -> torch.Tensor:
        return self.final * (self.weights @ self.unembed[self.tokens])

    def einsum(self) -> torch.Tensor:
        return torch.einsum("lhef,f,lhed->lhd", self.out, self.direction(), self.copied)

    def products(self) -> torch.Tensor:
        layers, heads, d_head, _ = self.out.shape
        slopes = self.out.reshape(layers * heads * d_head, -1) @ self.direction()
        groups = self.value.shape[1]
        slopes = slopes.reshape(layers, groups, heads // groups, d_head)
        return (slopes @ self.value).reshape(layers, heads, -1)


if __name__ == "__main__":
    serve(Worker())
