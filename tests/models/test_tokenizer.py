"""The tokenizer against transformers' token ids, and round trips."""

import pytest
import tiny_gguf

from jaxcirc.models import Tokenizer
from jaxcirc.models._parity import load_reference

REFERENCE = load_reference("smollm2-135m")


@pytest.mark.parametrize("name", REFERENCE.texts)
def test_ids_are_those_of_transformers(smollm2, name):
    _, tokenizer = smollm2
    assert tokenizer.encode(REFERENCE.texts[name]) == REFERENCE.ids[name].tolist()


@pytest.mark.parametrize("name", REFERENCE.texts)
def test_decode_inverts_encode(smollm2, name):
    _, tokenizer = smollm2
    text = REFERENCE.texts[name]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_ids_and_size(smollm2):
    model, tokenizer = smollm2
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.adds_bos) == (1, 2, False)
    assert tokenizer.vocab_size == model.config.vocab == 49152
    assert tokenizer.encode("") == []
    assert tokenizer.encode("<|im_start|>") == [1]


def test_every_digit_is_a_token_and_spaces_stay_apart(smollm2):
    _, tokenizer = smollm2
    tokens = [tokenizer.token(i) for i in tokenizer.encode("in  1732")]
    assert tokens == ["in", "  ", "1", "7", "3", "2"]


def test_token(smollm2):
    _, tokenizer = smollm2
    assert [tokenizer.token(i) for i in tokenizer.encode(" Mary left")] == [" Mary", " left"]
    assert tokenizer.token(tokenizer.encode("🙂")[0]) == "ðŁ"  # part of a character


@pytest.mark.parametrize("id", [-1, 49152])
def test_id_out_of_range(smollm2, id):
    _, tokenizer = smollm2
    for call in (tokenizer.token, lambda i: tokenizer.decode([5, i])):
        with pytest.raises(ValueError, match=f"token id {id}: .* ids 0 to 49151"):
            call(id)


def test_built_and_reloaded_agree():
    built = Tokenizer.from_gguf(tiny_gguf.metadata())
    ids = {"bos_id": 1, "pad_id": 2, "adds_bos": False}
    again = Tokenizer.from_json(built.to_json() + b"   ", ids)
    text = " the thing in the <|im_end|> 12 é"
    assert again.encode(text) == built.encode(text)
    assert built.decode(built.encode(text)) == text
    assert built.token(built.encode(" the")[0]) == " the"


def test_user_defined_tokens_stay_whole():
    keys = tiny_gguf.metadata()
    kinds = list(keys["tokenizer.ggml.token_type"])
    tokens = [*keys["tokenizer.ggml.tokens"], "<tool>"]
    keys |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [*kinds, 4]}
    assert Tokenizer.from_gguf(keys).encode("<tool>") == [len(tokens) - 1]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "bert", "kind 'bert' is not supported"),
        (
            "tokenizer.ggml.pre",
            "falcon",
            "splitting 'falcon' is not supported: use one with 'smollm'",
        ),
    ],
)
def test_unknown_kinds(key, value, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf(tiny_gguf.metadata() | {key: value})


def test_missing_merges():
    keys = {k: v for k, v in tiny_gguf.metadata().items() if not k.endswith("merges")}
    with pytest.raises(ValueError, match="no metadata key 'tokenizer.ggml.merges'"):
        Tokenizer.from_gguf(keys)
