"""A live peer in PyTorch: the exact `z` noising sweep over every head of a Llama-shaped GGUF model.

Question answered together with `benchmarks/sweep.py`: how long does the same sweep take in PyTorch,
(a) as most people write it, and (b) written as well as it can be without reuse of the prefix?

The worker runs in its own environment (`make_torch.sh`) and is spoken to line by line: one JSON
object in, one JSON object out (`benchmarks/README.md` lists the commands). For head h of layer l,

    raw[b, l, h] = metric(clean run of b, z[l, :, h] taken from the corrupt run) - metric(clean run)

at all positions, where z [batch pos head d_head] is the input of `o_proj` and the metric is the
logit difference answer - wrong at the last position. Imports torch, transformers and nothing of
jaxcirc.
"""

import json
import os
import sys
import time
import traceback

import torch
import torch.nn.functional as F
from torch import Tensor

MATMULS = ((600, 576, 1536), (1620, 576, 1536), (1536, 1536, 1536))  # as in _protocol.py


def load(gguf: str) -> torch.nn.Module:
    """The transformers model of a GGUF file, in float32."""
    from transformers import AutoModelForCausalLM

    folder, name = os.path.split(os.path.abspath(gguf))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return model.eval()


def spread(n_layers: int, n_heads: int, heads: int | None) -> list[int]:
    """All layers; for a partial sweep, evenly spaced layers that hold at least `heads` heads."""
    if heads is None:
        return list(range(n_layers))
    n = min(n_layers, max(1, -(-heads // n_heads)))
    return sorted({round(i) for i in torch.linspace(0, n_layers - 1, n).tolist()})


class Prompts:
    """Token ids of equal length: clean and corrupt [batch pos], answer and wrong [batch]."""

    def __init__(self, clean, corrupt, answer, wrong):
        self.clean, self.corrupt = torch.tensor(clean), torch.tensor(corrupt)
        self.answer, self.wrong = torch.tensor(answer), torch.tensor(wrong)
        if self.clean.shape != self.corrupt.shape or self.clean.dim() != 2:
            raise ValueError(
                f"clean {self.clean.shape} and corrupt {self.corrupt.shape} must be "
                "one [batch pos] table each, of equal shape, without padding"
            )

    def metric(self, logits: Tensor) -> Tensor:
        """Logit difference [... batch] of last-position logits [... batch vocab]."""
        rows = torch.arange(len(self.answer))
        return logits[..., rows, self.answer] - logits[..., rows, self.wrong]


class Naive:
    """One hooked forward of the transformers model per head, as the tutorials write it.

    As there, the model computes every layer and the logits of every position, in inference mode.
    """

    def __init__(self, model: torch.nn.Module):
        self.model, self.d_head = model, model.config.head_dim
        self.n_heads = model.config.num_attention_heads
        self.projections = [layer.self_attn.o_proj for layer in model.model.layers]

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, use_cache=False).logits[:, -1]

    def last_logits(self, tokens: Tensor) -> Tensor:
        """The same, the logits of other positions left out."""
        return self.model(tokens, use_cache=False, logits_to_keep=1).logits[:, -1]

    def zs(self, tokens: Tensor) -> list[Tensor]:
        """z of every layer, each [batch pos head*d_head]."""
        seen = []
        hooks = [
            p.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for p in self.projections
        ]
        self.logits(tokens)
        for hook in hooks:
            hook.remove()
        return seen

    def patched(self, tokens: Tensor, layer: int, head: int, value: Tensor) -> Tensor:
        """Last-position logits with one head's z replaced by its slice of `value`."""
        at = slice(head * self.d_head, (head + 1) * self.d_head)

        def replace(_, x):
            z = x[0].clone()
            z[..., at] = value[..., at]
            return (z,)

        hook = self.projections[layer].register_forward_pre_hook(replace)
        logits = self.logits(tokens)
        hook.remove()
        return logits

    def sweep(self, prompts: Prompts, layers: list[int]) -> Tensor:
        """Effects [batch layer head]."""
        corrupt = self.zs(prompts.corrupt)
        base = prompts.metric(self.logits(prompts.clean))
        rows = [
            prompts.metric(self.patched(prompts.clean, i, h, corrupt[i])) - base
            for i in layers
            for h in range(self.n_heads)
        ]
        return torch.stack(rows, 1).unflatten(1, (len(layers), self.n_heads))


def normed(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without its gain, which the weights carry."""
    return F.rms_norm(x, x.shape[-1:], eps=eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves convention; x [row pos head d_head], cos and sin [pos 1 d_head]."""
    (a, b), half = x.chunk(2, dim=-1), x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(b, sin[..., :half], value=-1)
    out[..., half:].addcmul_(a, sin[..., half:])
    return out


def plus_linear(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """x + y W^T in one product; x [row pos d_model], y [row pos d]."""
    return torch.addmm(x.flatten(0, 1), y.flatten(0, 1), weight.t()).view_as(x)


class Block:
    """One layer's weights, q/k/v fused and norm gains folded in: same function, fewer passes.

    With the in-place products this runs as fast as `torch.compile` of the plain form does.
    """

    def __init__(self, layer: torch.nn.Module, config):
        attn, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight])
        self.qkv = qkv * layer.input_layernorm.weight
        self.gate = mlp.gate_proj.weight * layer.post_attention_layernorm.weight
        self.up = mlp.up_proj.weight * layer.post_attention_layernorm.weight
        self.out, self.down = attn.o_proj.weight, mlp.down_proj.weight
        self.d_head, self.n_heads = config.head_dim, config.num_attention_heads
        self.n_kv, self.eps = config.num_key_value_heads, config.rms_norm_eps

    def z(self, x: Tensor, rotary: tuple[Tensor, Tensor], last: bool) -> Tensor:
        """z [row pos head*d_head] of resid_pre x [row pos d_model]; if `last`, one position's."""
        heads = F.linear(normed(x, self.eps), self.qkv).unflatten(-1, (-1, self.d_head))
        qk, v = heads.split([self.n_heads + self.n_kv, self.n_kv], dim=2)
        q, k = rotate(qk, *rotary).split([self.n_heads, self.n_kv], dim=2)
        q = q[:, -1:] if last else q
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=not last, enable_gqa=True)
        return z.transpose(1, 2).flatten(2)

    def mid(self, x: Tensor, z: Tensor) -> Tensor:
        """resid_mid of resid_pre and z, at the positions that z has."""
        return plus_linear(x[:, -z.shape[1] :], z, self.out)

    def mlp(self, x: Tensor) -> Tensor:
        """resid_post of resid_mid."""
        h = normed(x, self.eps)
        gate = F.silu(F.linear(h, self.gate), inplace=True)
        return plus_linear(x, gate.mul_(F.linear(h, self.up)), self.down)


class Strong:
    """The same sweep, batched by layer, restarted there, scored at the last position only.

    A patch of z leaves resid_mid of its layer known but for one product, so all heads of a layer
    resume there as head*batch rows: resid_mid + (z_corrupt - z_clean) W_O. The last block computes
    only the last position. Not done, by design: reuse of the prefix's keys and values.
    """

    def __init__(self, model: torch.nn.Module):
        config = model.config
        self.blocks = [Block(layer, config) for layer in model.model.layers]
        self.embedding = model.model.embed_tokens.weight
        self.unembed = model.lm_head.weight
        self.gain, self.eps = model.model.norm.weight, config.rms_norm_eps
        self.n_heads, self.rotary_of = config.num_attention_heads, model.model.rotary_emb

    def rotary(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(tokens.shape[1])[None]
        cos, sin = self.rotary_of(self.embedding[:1, None], positions)
        return cos[0, :, None], sin[0, :, None]

    def record(self, tokens: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Every layer's z and resid_mid at all positions, and the last-position logits."""
        rotary, x = self.rotary(tokens), F.embedding(tokens, self.embedding)
        zs, mids = [], []
        for block in self.blocks:
            zs.append(block.z(x, rotary, last=False))
            mids.append(block.mid(x, zs[-1]))
            x = block.mlp(mids[-1])
        return zs, mids, self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(normed(x[:, -1], self.eps) * self.gain, self.unembed)

    def forward(self, tokens: Tensor) -> Tensor:
        """Last-position logits of a plain run."""
        return self.logits(self.blocks_from(0, F.embedding(tokens, self.embedding), tokens))

    def blocks_from(self, start: int, x: Tensor, tokens: Tensor) -> Tensor:
        rotary = self.rotary(tokens)
        for i in range(start, len(self.blocks)):
            last = i == len(self.blocks) - 1
            x = self.blocks[i].mlp(self.blocks[i].mid(x, self.blocks[i].z(x, rotary, last)))
        return x

    def resume(self, layer: int, mid: Tensor, tokens: Tensor) -> Tensor:
        """Last-position logits [row vocab] from resid_mid [row pos d_model] of `layer`."""
        if layer == len(self.blocks) - 1:
            mid = mid[:, -1:]
        return self.logits(self.blocks_from(layer + 1, self.blocks[layer].mlp(mid), tokens))

    def sweep(self, prompts: Prompts, layers: list[int]) -> Tensor:
        """Effects [batch layer head]."""
        corrupt = self.record(prompts.corrupt)[0]
        clean, mids, logits = self.record(prompts.clean)
        base = prompts.metric(logits)
        effects = [self.layer(i, corrupt[i] - clean[i], mids[i], prompts) - base for i in layers]
        return torch.stack(effects).permute(2, 0, 1)

    def layer(self, layer: int, delta: Tensor, mid: Tensor, prompts: Prompts) -> Tensor:
        """Metric [head batch] with each head of one layer patched in turn."""
        delta = delta.unflatten(-1, (self.n_heads, -1))
        out = self.blocks[layer].out.unflatten(1, (self.n_heads, -1))
        rows = (mid + torch.einsum("bphd,mhd->hbpm", delta, out)).flatten(0, 1)
        logits = self.resume(layer, rows, prompts.clean)
        return prompts.metric(logits.unflatten(0, (self.n_heads, -1)))


def matmul_rate(m: int, k: int, n: int, repeats: int = 30) -> float:
    """GFLOP/s of a float32 [m k] x [k n] product: the best of three bursts."""
    a, b = torch.randn(m, k), torch.randn(k, n)

    def burst():
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        return (time.perf_counter() - start) / repeats

    burst()
    return 2 * m * k * n / min(burst() for _ in range(3)) / 1e9


def timed(f, *args):
    start = time.perf_counter()
    out = f(*args)
    return out, time.perf_counter() - start


class Worker:
    """The commands; each method takes the request's fields and returns the reply's."""

    def load(self, gguf: str) -> dict:
        model = load(gguf)
        self.naive_way, self.strong_way = Naive(model), Strong(model)
        self.shape = (model.config.num_hidden_layers, model.config.num_attention_heads)
        return {
            "layers": self.shape[0],
            "heads": self.shape[1],
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }

    def prompts(self, clean, corrupt, answer, wrong) -> dict:
        self.batch = Prompts(clean, corrupt, answer, wrong)
        return {"shape": list(self.batch.clean.shape)}

    def _sweep(self, way, heads: int | None) -> dict:
        layers = spread(*self.shape, heads)
        effects, seconds = timed(way.sweep, self.batch, layers)
        return {"effects": effects.tolist(), "layers": layers, "seconds": seconds}

    def naive(self, heads: int | None = None) -> dict:
        return self._sweep(self.naive_way, heads)

    def strong(self, heads: int | None = None) -> dict:
        return self._sweep(self.strong_way, heads)

    def forward(self, way: str = "strong") -> dict:
        """`way`: "naive" (transformers), "last" (its last position's logits only), "strong"."""
        naive, strong = self.naive_way, self.strong_way
        ways = {"naive": naive.logits, "last": naive.last_logits, "strong": strong.forward}
        logits, seconds = timed(ways[way], self.batch.clean)
        return {"metric": self.batch.metric(logits).tolist(), "seconds": seconds}

    def matmul(self) -> dict:
        return {"gflops": {f"{m}x{k}x{n}": matmul_rate(m, k, n) for m, k, n in MATMULS}}


def answer(worker: Worker, line: str) -> dict:
    request = json.loads(line)
    try:
        with torch.inference_mode():
            return getattr(worker, request.pop("command"))(**request)
    except Exception:
        return {"error": traceback.format_exc()}


def main():
    replies, sys.stdout = sys.stdout, sys.stderr  # libraries may print; replies stay clean
    worker = Worker()
    for line in sys.stdin:
        if json.loads(line)["command"] == "quit":
            return
        print(json.dumps(answer(worker, line)), file=replies, flush=True)


if __name__ == "__main__":
    main()
