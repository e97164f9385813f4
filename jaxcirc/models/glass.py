"""glassllm: tiny Llama-shaped models in `.npz` files, with a character BPE beside each (MIT).

Rotary pairs are neighbours. May import `_family`, `_layout`, `_spec`, `folder` and `tokenizer`.
"""

import json
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ._family import Family, sizes
from ._keys import Keys
from ._layout import Row
from ._spec import Norm, Rope, Spec
from .folder import Folder, Held, read_json
from .tokenizer import Tokenizer

BLOCK = "blocks.{layer}"

TABLE = (
    Row("embed", "E", "vocab d_model"),
    Row("blocks.attn_norm.weight", f"{BLOCK}.norm1.gamma", "d"),
    Row("blocks.attn.w_q", f"{BLOCK}.attn.W_Q", "d_model (head d_head)"),
    Row("blocks.attn.w_k", f"{BLOCK}.attn.W_K", "d_model (kv_head d_head)"),
    Row("blocks.attn.w_v", f"{BLOCK}.attn.W_V", "d_model (kv_head d_head)"),
    Row("blocks.attn.w_o", f"{BLOCK}.attn.W_O", "(head d_head) d_model"),
    Row("blocks.mlp_norm.weight", f"{BLOCK}.norm2.gamma", "d"),
    Row("blocks.mlp.w_gate", f"{BLOCK}.ffn.W1", "d_model d_mlp"),
    Row("blocks.mlp.w_in", f"{BLOCK}.ffn.W3", "d_model d_mlp"),
    Row("blocks.mlp.w_out", f"{BLOCK}.ffn.W2", "d_mlp d_model"),
    Row("final_norm.weight", "norm_f.gamma", "d"),
)

NAMES = {
    "n_layers": "n_layers",
    "d_model": "d_model",
    "n_heads": "n_heads",
    "n_kv_heads": "n_kv_heads",
    "d_mlp": "d_mlp",
    "vocab": "vocab_size",
    "ctx": "max_len",
}

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
SPACE = "\u2581"


def from_config(keys: Keys) -> Spec:
    """What the config inside an .npz file says."""
    config = sizes(keys, "glassllm", NAMES)
    rope = Rope(float(keys("rope_base")), config.d_head)
    return Spec(
        config,
        Norm("rms", keys("eps")),
        gated=True,
        ropes=(rope,) * config.n_layers,
        interleaved=True,
        scale=config.d_head**-0.5,
    )


FAMILIES = {"glassllm": Family(from_config, TABLE)}


def open_npz(path: Path) -> Folder:
    """The config and the arrays of one file. Raises `ValueError` when it is damaged."""
    try:
        with np.load(path) as file:
            config = json.loads(str(file["__config__"]))
            tensors = {name: Held(path, file[name]) for name in file.files if name != "__config__"}
            hidden = tensors["blocks.0.ffn.W1"].shape[1]
    except Exception as error:  # zipfile and numpy raise many kinds
        raise ValueError(f"{path} is truncated or damaged ({error}): install it again") from None
    return Folder(path, {"model_type": "glassllm", "d_mlp": hidden} | config, tensors)


def read_tokenizer(path: Path) -> Tokenizer:
    """From the alphabet and the merges beside a model: `en.tokenizer.json` for `en.npz`."""
    stated = read_json(path.with_suffix(".tokenizer.json"))
    merges = [(left, right) for left, right in stated["merges"]]
    tokens = [*SPECIALS, *stated["alphabet"], *(left + right for left, right in merges)]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", SPACE)])
    chunks = tokenizers.Regex(rf"\n|{SPACE}*[^{SPACE}\n]+|{SPACE}+")
    backend.pre_tokenizer = pre_tokenizers.Split(chunks, "isolated")
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    return Tokenizer(backend, vocab["<bos>"], vocab["<pad>"], adds_bos=False)
