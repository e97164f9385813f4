"""tracr: programs in RASP compiled to weights, as an `LM` (Lindner et al. 2023, arXiv 2301.05062).

Neither tracr nor haiku is needed to import this file. May import `nn` and `lm`.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..nn import MLP, Attention, Block
from .lm import LM, Config


def from_tracr(compiled: Any, name: str = "tracr") -> LM:
    """A compiled program as an `LM` that computes the same residual stream.

    No norms, ReLU, every position sees every other. The unembedding selects the output's
    directions: logit i is the i-th value of a categorical output, and logit 0 the value of a
    numerical one. The vocabulary is as large as the larger of inputs and outputs; what is left over
    embeds as zero, or has the logit 0.

    - `compiled`: what `tracr.compiler.compiling.compile_rasp_to_model` returns. `name`: for
      `Config`.

    Returns an `LM`, bos "always": the program counts on BOS in front. Raises `ValueError` for a
    program with layer norms or another activation than ReLU.

    >>> model = from_tracr(compiling.compile_rasp_to_model(make_hist(), {"a", "b"}, 5))
    """
    sizes, params = compiled.model_config, compiled.params
    if sizes.layer_norm or sizes.activation_function.__name__ != "relu":
        raise ValueError(
            f"{name} is no compiled program (layer norm, or no ReLU): from_tracr takes what"
            " compile_rasp_to_model returns"
        )
    unembed = _unembedding(compiled)
    embed = np.asarray(params["token_embed"]["embeddings"])
    ctx, d_model = params["pos_embed"]["embeddings"].shape
    vocab = max(embed.shape[0], unembed.shape[1])
    shape = (sizes.num_layers, d_model, sizes.num_heads, sizes.num_heads, sizes.key_size)
    return LM(
        embed=jnp.asarray(np.pad(embed, ((0, vocab - embed.shape[0]), (0, 0)))),
        blocks=_blocks(params, sizes),
        final_norm=None,
        config=Config(name, "tracr", *shape, sizes.mlp_hidden_size, vocab, ctx, bos="always"),
        pos_embed=jnp.asarray(params["pos_embed"]["embeddings"]),
        unembed=jnp.asarray(np.pad(unembed, ((0, 0), (0, vocab - unembed.shape[1])))),
    )


def _blocks(params: dict, sizes: Any) -> Block:
    def stack(module: str, leaf: str, *shape: int) -> Array:
        layers = (f"transformer/layer_{i}/{module}" for i in range(sizes.num_layers))
        return jnp.stack([jnp.asarray(params[layer][leaf]).reshape(shape) for layer in layers])

    head = (sizes.num_heads, sizes.key_size)
    attn = Attention(
        w_q=stack("attn/query", "w", -1, *head),
        w_k=stack("attn/key", "w", -1, *head),
        w_v=stack("attn/value", "w", -1, *head),
        w_o=stack("attn/linear", "w", *head, -1),
        b_q=stack("attn/query", "b", *head),
        b_k=stack("attn/key", "b", *head),
        b_v=stack("attn/value", "b", *head),
        b_o=stack("attn/linear", "b", -1),
        scale=sizes.key_size**-0.5,
        causal=sizes.causal,
    )
    hidden = sizes.mlp_hidden_size
    mlp = MLP(
        w_in=stack("mlp/linear_1", "w", -1, hidden),
        w_out=stack("mlp/linear_2", "w", hidden, -1),
        b_in=stack("mlp/linear_1", "b", -1),
        b_out=stack("mlp/linear_2", "b", -1),
        activation="relu",
    )
    return Block(attn, mlp)


def _unembedding(compiled: Any) -> Float[np.ndarray, "d_model output"]:
    """The matrix that reads the output: it is in the program's closure, so the identity is put
    through it."""
    import haiku as hk

    everything = jnp.eye(len(compiled.residual_labels))[None]
    read = hk.transform(lambda x: compiled.get_compiled_model().unembed(x, False))
    out = np.asarray(read.apply({}, None, everything))[0]
    return out[:, None] if out.ndim == 1 else out
