"""Trains transformers whose circuits are true by construction; `make_zoo.py` runs it.

Strict interchange intervention training (Gupta et al. 2024, arXiv 2407.14494): cross-entropy of the
task, and of the causal model's answer after an exchange in which every variable's component takes
part with probability 0.4, and every component outside the circuit with probability 0.5. What is
exchanged comes from other rows of the batch, one row for the circuit and another for the rest.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcirc.models import LM, toy
from jaxcirc.taps import Sites
from jaxcirc.zoo._causal import CAUSAL, D_HEAD, D_MLP, D_MODEL, HEADS, Causal
from jaxcirc.zoo._file import read, write
from jaxcirc.zoo._interchange import agreement, circuit, components, exchanged, recorded, solved

STEPS, CHUNK, BATCH, RATE = 4000, 250, 128, 3e-3
WEIGHTS = 0.1, 1.0
"""Of the task and of the exchange; with more weight on the task other parts learn it first."""
QUIET = 0.1
"""Scale of what components outside the circuit write before training, for the same reason."""
SEED = 0


def make(name: str, root: Path) -> None:
    """Train one model, write its file and card, and print how well it follows its causal model."""
    causal = CAUSAL[name]
    model = train(causal, start(name, causal))
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model)
    card = {
        "source": f"trained from seed {SEED}: {causal.about}",
        "recipe": f"uv run python checkpoints/make_zoo.py {name}: {STEPS} steps of {BATCH} prompts,"
        f" AdamW at {RATE}, cosine to 0, losses weighted {WEIGHTS}, writes outside the"
        f" circuit scaled by {QUIET} at the start, float32, stored in float16",
        "licence": "Apache-2.0",
        "numbers": {},
    }
    write(name, halves, {}, card, root)
    found = agreement(causal, read(name, root)[0], jax.random.key(SEED + 1000), 4096)
    card["numbers"] = {key: round(value, 4) for key, value in found.items()}
    write(name, halves, {}, card, root)
    print(name, json.dumps(card["numbers"]))


def start(name: str, causal: Causal) -> LM:
    """The model before training."""
    sizes = {"d_model": D_MODEL, "n_heads": HEADS, "n_kv_heads": HEADS, "d_head": D_HEAD}
    parts = {"norm": "layer", "positions": "learned", "gated": False, "activation": "gelu_tanh"}
    key = jax.random.key(SEED)
    model = toy(key, d_mlp=D_MLP, tied=False, **sizes, **parts, **causal.shape)
    config = dataclasses.replace(model.config, name=name, family="zoo", ctx=causal.length)
    config = dataclasses.replace(config, bos="always", processing="raw")
    assert model.pos_embed is not None and model.blocks.mlp is not None
    model = dataclasses.replace(model, config=config, pos_embed=model.pos_embed[: causal.length])
    scale = jnp.where(circuit(causal, model), 1.0, QUIET).reshape(model.n_layers, -1, 1, 1)
    writes = model.blocks.attn.w_o * scale[:, :-1], model.blocks.mlp.w_out * scale[:, -1]
    return eqx.tree_at(lambda m: (m.blocks.attn.w_o, m.blocks.mlp.w_out), model, writes)


def train(causal: Causal, model: LM) -> LM:
    """The model after training."""
    optimiser = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), weight_decay=0.01)
    state = optimiser.init(model)
    for first in range(0, STEPS, CHUNK):
        key = jax.random.fold_in(jax.random.key(SEED), first)
        model, state, losses = several(causal, optimiser, model, state, key)
        print(f"  {first + CHUNK:5d}", *np.round(losses.mean(axis=0), 4), flush=True)
    return model


@partial(jax.jit, static_argnames=("causal", "optimiser"))
def several(causal: Causal, optimiser, model: LM, state, key):
    """A chunk of steps, and the losses of each: task, exchange."""

    def step(carry, key):
        model, state = carry
        (_, losses), gradient = jax.value_and_grad(loss, has_aux=True)(model, causal, key)
        updates, state = optimiser.update(gradient, state, model)
        return (eqx.apply_updates(model, updates), state), losses

    (model, state), losses = jax.lax.scan(step, (model, state), jax.random.split(key, CHUNK))
    return model, state, losses


def loss(model: LM, causal: Causal, key):
    """The weighted sum of both losses, and both."""
    draw, chosen = jax.random.split(key)
    nodes, inside = components(model), circuit(causal, model)
    tokens = causal.draw(draw, BATCH)
    logits, records = recorded(model, tokens)
    share = jnp.where(inside, 0.4, 0.5)
    swaps = jax.random.bernoulli(chosen, share, (BATCH, len(nodes)))
    changed = exchanged(model, tokens, _from_others(records, inside, model), swaps)
    none = jnp.zeros_like(swaps)
    plain = _surprise(logits, solved(causal, tokens, tokens, none, nodes))
    target = solved(causal, tokens, jnp.roll(tokens, 1, axis=0), swaps, nodes)
    losses = jnp.stack([plain, _surprise(changed, target)])
    return losses @ jnp.asarray(WEIGHTS), losses


def _from_others(records: Sites, inside: np.ndarray, model: LM) -> Sites:
    """Records of the row before for the circuit, of the row before that for the rest."""
    kind = inside.reshape(model.n_layers, -1)

    def pick(values, circuit):
        shape = (model.n_layers, 1, 1, *circuit.shape[1:], 1)
        one, two = (jnp.roll(values, shift, axis=1) for shift in (1, 2))
        return jnp.where(circuit.reshape(shape), one, two)

    return Sites(z=pick(records.z, kind[:, :-1]), mlp_out=pick(records.mlp_out, kind[:, -1]))


def _surprise(logits, answers):
    return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()
