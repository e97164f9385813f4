"""`Tokenizer`: text to token ids and back, built from the vocabulary inside a GGUF file.

Byte-level BPE by the `tokenizers` package. No special token is ever added: whether a text begins
with one is said by whoever makes the prompt. Imports nothing of jaxcirc.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

_SPLITS = {
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
}
"""How text is cut before merging, by the name that GGUF gives it."""

_CONTROL, _USER_DEFINED = 3, 4  # GGUF's token types


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back.

    `bos_id`: the token a text may begin with, or None. `pad_id`: what fills short rows. `adds_bos`:
    whether the model was meant to see `bos_id` first; `encode` adds nothing either way.

    >>> model, tokenizer = jaxcirc.load_model("smollm2-135m")
    >>> [tokenizer.token(i) for i in tokenizer.encode("John gave a drink to")]
    ['John', ' gave', ' a', ' drink', ' to']
    """

    backend: tokenizers.Tokenizer = dataclasses.field(repr=False)
    bos_id: int | None
    pad_id: int
    adds_bos: bool

    @property
    def vocab_size(self) -> int:
        """The number of tokens; ids run from 0 to one below it."""
        return self.backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, no special token added; those written out in it are recognised.

        >>> tokenizer.encode(" Mary")
        [7627]
        """
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens too. Raises `ValueError` for an id out of range."""
        ids = [int(i) for i in ids]
        for i in ids:
            self._check(i)
        return self.backend.decode(ids, skip_special_tokens=False)

    def token(self, id: int) -> str:
        """One token as text: " Mary", with its space. A token that is part of a character comes as
        the vocabulary writes it. Raises `ValueError` for an id out of range."""
        text = self.decode([id])
        return text if "\ufffd" not in text else str(self.backend.id_to_token(int(id)))

    def _check(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise ValueError(f"token id {id}: this tokenizer has ids 0 to {self.vocab_size - 1}")

    def to_json(self) -> bytes:
        """The `tokenizers` package's own form, which lacks `bos_id`, `pad_id` and `adds_bos`."""
        return self.backend.to_str().encode()

    @classmethod
    def from_json(cls, data: bytes, ids: Mapping[str, Any]) -> "Tokenizer":
        """The inverse of `to_json`; `ids` holds the other three fields."""
        return cls(tokenizers.Tokenizer.from_buffer(data), **ids)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "Tokenizer":
        """Build from the metadata of a GGUF file (`GGUF.metadata`).

        Raises `ValueError` for a kind of vocabulary or of splitting that is not known.

        >>> Tokenizer.from_gguf(open_gguf("model.gguf").metadata).vocab_size
        49152
        """
        field = {k.removeprefix("tokenizer.ggml."): v for k, v in metadata.items()}
        _check_kind(field)
        bos, eos = field.get("bos_token_id"), field.get("eos_token_id", 0)
        return cls(
            _backend(field),
            bos_id=bos,
            pad_id=field.get("padding_token_id", eos),
            adds_bos=bool(field.get("add_bos_token", False)),
        )


def _check_kind(field: Mapping[str, Any]) -> None:
    for key in ("model", "tokens", "token_type", "merges"):
        if key not in field:
            raise ValueError(f"no metadata key 'tokenizer.ggml.{key}': convert the model again")
    kind, split = field["model"], field.get("pre")
    if kind != "gpt2":
        raise ValueError(f"tokenizer kind {kind!r} is not supported: use a model with 'gpt2' (BPE)")
    if split not in _SPLITS:
        known = " or ".join(map(repr, _SPLITS))
        raise ValueError(f"tokenizer splitting {split!r} is not supported: use one with {known}")


def _backend(field: Mapping[str, Any]) -> tokenizers.Tokenizer:
    tokens, kinds = field["tokens"], field["token_type"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in field["merges"]]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(_SPLITS[field["pre"]])
    backend.decoder = decoders.ByteLevel()
    pairs = list(zip(tokens, kinds, strict=True))
    backend.add_special_tokens([_whole(token, True) for token, kind in pairs if kind == _CONTROL])
    backend.add_tokens([_whole(token, False) for token, kind in pairs if kind == _USER_DEFINED])
    return backend


def _whole(token: str, special: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token, special=special, normalized=False)
