"""`Tokenizer`: text to token ids and back, from a tokenizer.json or the vocabulary in a GGUF file.

By the `tokenizers` package. No special token is ever added: whether a text begins
with one is said by whoever makes the prompt. Imports nothing of jaxcirc.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _pattern(numbers: str) -> list[pre_tokenizers.PreTokenizer]:
    regex = tokenizers.Regex(f"{_LETTERS}|{numbers}|{_REST}")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [pre_tokenizers.Split(regex, "isolated"), bytes_only]


_SPLITS = {
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "llama-bpe": _pattern(r"\p{N}{1,3}"),
    "qwen2": _pattern(r"\p{N}"),
}
"""How text is cut before merging, by the name that GGUF gives it."""

_PLAIN, _CONTROL, _USER_DEFINED = 1, 3, 4  # GGUF's token types


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back.

    `bos_id`: the token a text may begin with, or None. `pad_id`: what fills short rows. `adds_bos`:
    whether the model was meant to see `bos_id` first; `encode` adds nothing either way. `backend`
    None: the model came without a tokenizer, and every use is a `ValueError`.

    >>> model, tokenizer = jaxcirc.load_model("smollm2-135m")
    >>> [tokenizer.token(i) for i in tokenizer.encode("John gave a drink to")]
    ['John', ' gave', ' a', ' drink', ' to']
    """

    backend: tokenizers.Tokenizer | None = dataclasses.field(repr=False)
    bos_id: int | None
    pad_id: int
    adds_bos: bool

    @property
    def _ready(self) -> tokenizers.Tokenizer:
        if self.backend is None:
            raise ValueError(
                "this model came without a tokenizer: put its tokenizer.json beside config.json"
            )
        return self.backend

    @property
    def vocab_size(self) -> int:
        """The number of tokens; ids run from 0 to one below it."""
        return self._ready.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, no special token added; those written out in it are recognised.

        >>> tokenizer.encode(" Mary")
        [7627]
        """
        return self._ready.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens too. Raises `ValueError` for an id out of range."""
        ids = [int(i) for i in ids]
        for i in ids:
            self._check(i)
        return self._ready.decode(ids, skip_special_tokens=False)

    def token(self, id: int) -> str:
        """One token as text: " Mary", with its space. A token that is part of a character comes as
        the vocabulary writes it. Raises `ValueError` for an id out of range."""
        text = self.decode([id])
        return text if "\ufffd" not in text else str(self._ready.id_to_token(int(id)))

    def _check(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise ValueError(f"token id {id}: this tokenizer has ids 0 to {self.vocab_size - 1}")

    def to_json(self) -> bytes:
        """The `tokenizers` package's own form, which lacks `bos_id`, `pad_id` and `adds_bos`."""
        return self._ready.to_str().encode()

    @classmethod
    def from_json(cls, data: bytes, ids: Mapping[str, Any]) -> "Tokenizer":
        """The inverse of `to_json`; `ids` holds the other three fields."""
        return cls(tokenizers.Tokenizer.from_buffer(data), **ids)

    @classmethod
    def from_folder(cls, path: Path, config: Mapping[str, Any]) -> "Tokenizer":
        """Read tokenizer.json, or vocab.json and merges.txt, of a folder in Hugging Face's layout.

        - `config`: of the model, which may name the special ids. Without any of the files the
          tokenizer is empty.
        """
        backend, stated = _folder_backend(path), path / "tokenizer_config.json"
        settings = json.loads(stated.read_bytes()) if stated.is_file() else {}
        bos = _special(backend, settings.get("bos_token"), config.get("bos_token_id"))
        eos = _special(backend, settings.get("eos_token"), config.get("eos_token_id"))
        pad = _special(backend, settings.get("pad_token"), config.get("pad_token_id"))
        begins = [] if backend is None else backend.encode("").ids[:1]  # as the file itself adds
        adds = settings.get("add_bos_token")
        adds = bos is not None and begins == [bos] if adds is None else bool(adds)
        return cls(backend, bos, next(i for i in (pad, eos, 0) if i is not None), adds)

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


def _folder_backend(path: Path) -> tokenizers.Tokenizer | None:
    """From tokenizer.json, or the two files of byte-level BPE that came before it."""
    whole, vocab, merges = path / "tokenizer.json", path / "vocab.json", path / "merges.txt"
    if whole.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(whole))
        except Exception as error:  # the package raises no class of its own
            raise ValueError(f"{whole} is damaged ({error}): download it again") from None
    if not (vocab.is_file() and merges.is_file()):
        return None
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _special(backend: tokenizers.Tokenizer | None, token: Any, stated: Any) -> int | None:
    """The id of a special token: by its text, or else as the config states it."""
    text = token.get("content") if isinstance(token, Mapping) else token
    found = None if backend is None or text is None else backend.token_to_id(text)
    return found if found is not None else next(iter(_listed(stated)), None)


def _listed(ids: Any) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _check_kind(field: Mapping[str, Any]) -> None:
    kind, split = field.get("model"), field.get("pre")
    needed = {"gpt2": "merges", "llama": "scores"}
    for key in ("model", "tokens", "token_type", needed.get(str(kind), "merges")):
        if key not in field:
            raise ValueError(f"no metadata key 'tokenizer.ggml.{key}': convert the model again")
    if kind not in needed:
        raise ValueError(
            f"tokenizer kind {kind!r} is not supported: use a model with 'gpt2' (BPE) or 'llama'"
            " (SentencePiece)"
        )
    if kind == "gpt2" and split not in _SPLITS:
        known = " or ".join(map(repr, _SPLITS))
        raise ValueError(f"tokenizer splitting {split!r} is not supported: use one with {known}")
    if kind == "llama" and field.get("add_space_prefix", True):
        raise ValueError(
            "a tokenizer that puts a space before every text is not supported: use the folder in"
            " Hugging Face's layout, with its tokenizer.json"
        )


def _backend(field: Mapping[str, Any]) -> tokenizers.Tokenizer:
    pieces = field["model"] == "llama"
    backend = _sentencepiece(field) if pieces else _byte_level(field)
    pairs = list(zip(field["tokens"], field["token_type"], strict=True))
    backend.add_special_tokens([_whole(token, True) for token, kind in pairs if kind == _CONTROL])
    whole = [token for token, kind in pairs if kind == _USER_DEFINED]
    backend.add_tokens([_whole(token, False, normalized=pieces) for token in whole])
    return backend


def _byte_level(field: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocab = {token: i for i, token in enumerate(field["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in field["merges"]]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if field["pre"] == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(_SPLITS[field["pre"]])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(field: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: the pair whose union scores highest merges first; spaces are written
    "\u2581", and characters outside the vocabulary as bytes."""
    vocab = {token: i for i, token in enumerate(field["tokens"])}
    merges = _merges(vocab, field["scores"], field["token_type"])
    unknown = field["tokens"][field.get("unknown_token_id", 0)]
    model = models.BPE(
        vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _merges(vocab: Mapping[str, int], scores: list[float], kinds: list[int]) -> list:
    """Every way to make a piece of two others, the highest score first."""
    plain = {token: i for token, i in vocab.items() if kinds[i] == _PLAIN}
    found = []
    for token, i in plain.items():
        cuts = [(token[:c], token[c:]) for c in range(1, len(token))]
        found += [(-scores[i], *cut) for cut in cuts if cut[0] in plain and cut[1] in plain]
    found.sort(key=lambda merge: (merge[0], -len(merge[1]), -len(merge[2])))
    return [merge[1:] for merge in found]


def _whole(token: str, special: bool, normalized: bool = False) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token, special=special, normalized=normalized)
