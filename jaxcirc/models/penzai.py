"""Penzai: its `TransformerLM` converted to `LM` and back, so that work moves either way.

Display and surgery need no conversion. treescope prints every model, table of edits and table of
records of this library, and `pz.select` edits them (`at`, `at_instances_of`, `set`, `apply`), since
all are plain pytrees of named fields:

    model = pz.select(model).at(lambda m: m.blocks.mlp.w_out).apply(jnp.zeros_like)

Conversion reads every variant of penzai 0.2.5 (Llama, Mistral, Gemma 1 and 2, GPT-NeoX), in a
`LayerStack` or not, and writes penzai's layers one by one in the order of its own variants, so that
models that none of them covers (Qwen's biases, q/k-norms, rotary bases by layer) pass too.

Penzai 0.2.5 runs on jax 0.10.2 without warnings. What it lacks: learned positions, interleaved and
scaled rotary, one norm shared by both halves of a parallel block (written twice), windows by layer
in a `LayerStack`; its GPT-NeoX builder gives the final norm eps 1e-6 whatever its configuration
says, and refuses the "selu" that it documents. May import `lm`; penzai (2 s) loads with a call.
"""

from typing import Any

from .._types import Bos
from .lm import LM

CTX = 8192
"""The context length noted for a model whose source does not say, as penzai's do not."""


def from_penzai(pz_model: Any, *, name: str = "penzai", ctx: int = CTX, bos: Bos = "never") -> LM:
    """The `LM` that computes what a penzai `TransformerLM` computes; its arrays are copied.

    - `name`, `ctx`, `bos`: for `Config`, since penzai does not record them, nor the processing,
      which is taken to be "raw".

    Tied embeddings stay tied. Weights take the model's activation dtype. Raises `ValueError` naming
    the layer for a model edited so that it is no decoder of known parts.

    >>> from penzai.models.transformer.variants import llamalike_common
    >>> model = from_penzai(llamalike_common.build_llamalike_transformer(config, key))
    """
    from ._penzai_read import read

    return read(pz_model, name, ctx, bos)


def to_penzai(model: LM, *, name: str = "transformer") -> Any:
    """The penzai `TransformerLM` that computes what a model computes; its arrays are shared.

    - `name`: the prefix of the parameters' labels, which are penzai's own.

    Blocks are listed one by one, not in a `LayerStack`. Raises `ValueError` for a part that penzai
    lacks: learned positions, interleaved or scaled rotary.

    >>> logits = to_penzai(model)(pz.nx.wrap(tokens).tag("batch", "seq"))
    >>> logits.untag("batch", "seq", "vocabulary").unwrap()
    """
    from ._penzai_write import write

    return write(model, name)
