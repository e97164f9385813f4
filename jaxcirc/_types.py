"""The axis glossary and the few types everything shares. Imports nothing of jaxcirc.

Axes, as jaxtyping names them throughout the library:

    batch     prompts of one call                      example   prompts of one task or result
    pos       token positions (dest, src: of a pattern) layer    blocks of the model
    head      query heads                              kv_head   key/value heads (true width)
    d_model   the residual stream                      d_head    one head
    d_mlp     the MLP's hidden layer                   vocab     tokens of the unembedding
    answer    right answers of a prompt, padded        wrong     wrong answers, padded
    slot      an edited layer of `At`                  feature   a dictionary's latents
    prefix    cached positions before the first token of a call
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Array as Array
from jaxtyping import Bool, Float, Int, PyTree

Tokens = Int[Array, "batch pos"]
Mask = Bool[Array, "batch pos"]
Resid = Float[Array, "batch pos d_model"]
Logits = Float[Array, "batch vocab"]
Weights = PyTree[Float[Array, "..."]]
Record = PyTree[Any]

Bos = Literal["model", "always", "never"]
Direction = Literal["noise", "denoise"]
Progress = Callable[[int, int], None]
"""Told (done, total) while long work goes on."""
Tell = Callable[[str, int, int], None]
"""Told (stage, done, total) while work of several stages goes on."""


@runtime_checkable
class TokenizerLike(Protocol):
    """What the tasks ask of a tokenizer; `jaxcirc.models.Tokenizer` satisfies it."""

    bos_id: int | None
    pad_id: int
    adds_bos: bool

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with no special token added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        ...
