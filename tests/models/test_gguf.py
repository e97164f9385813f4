"""The GGUF reader against the `gguf` package's own, and its refusals."""

import gguf
import numpy as np
import pytest
import tiny_gguf

from jaxcirc import load_model
from jaxcirc.models import _stream
from jaxcirc.models.gguf import open_gguf

TYPES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"]


@pytest.mark.parametrize("kind", TYPES)
def test_values_are_those_of_the_gguf_package(tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    path = tiny_gguf.write(tmp_path / "tiny.gguf", quantised=kind)
    file = open_gguf(path)
    assert set(file.names()) == set(tiny_gguf.weights())
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        out = np.full(expected.shape, np.nan, np.float32)
        file.read(tensor.name, out)
        np.testing.assert_array_equal(out, expected)


def test_chunks_do_not_change_values(tmp_path, monkeypatch):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", quantised=gguf.GGMLQuantizationType.Q8_0)
    name, shape = "token_embd.weight", (len(tiny_gguf.VOCAB), tiny_gguf.D_MODEL)
    whole, chunked = np.empty(shape, np.float32), np.empty(shape, np.float32)
    open_gguf(path).read(name, whole)
    monkeypatch.setattr(_stream, "CHUNK", 7 * tiny_gguf.D_MODEL)
    open_gguf(path).read(name, chunked)
    np.testing.assert_array_equal(whole, chunked)


def test_destination_may_have_any_strides(tmp_path):
    file = open_gguf(tiny_gguf.write(tmp_path / "tiny.gguf"))
    out = np.empty((tiny_gguf.D_MLP, tiny_gguf.D_MODEL), np.float32)
    file.read("blk.1.ffn_down.weight", out.T)
    np.testing.assert_array_equal(out.T, tiny_gguf.weights()["blk.1.ffn_down.weight"])


def test_metadata(tmp_path):
    file = open_gguf(tiny_gguf.write(tmp_path / "tiny.gguf"))
    assert file.get("general.architecture") == "llama"
    assert file.get("llama.rope.freq_base") == 500.0
    assert file.get("tokenizer.ggml.merges") == tiny_gguf.MERGES
    assert file.get("absent", 3) == 3
    with pytest.raises(ValueError, match=r"tiny.gguf has no metadata key 'absent'"):
        file.get("absent")


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.gguf"):
        open_gguf(tmp_path / "none.gguf")


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_not_a_gguf(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match="is not a GGUF file"):
        open_gguf(tmp_path / "x.gguf")


@pytest.mark.parametrize("kept", [4, 10, 300, 5000, -1000])
def test_truncated(tmp_path, kept):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is truncated or damaged .*: download it again"):
        open_gguf(path)


def test_tensor_errors_name_the_tensor(tmp_path):
    tensors = tiny_gguf.weights()
    tensors["blk.1.ffn_up.weight"][3, 5] = np.nan
    tensors["blk.0.ffn_up.weight"][3, 5] = np.inf
    file = open_gguf(tiny_gguf.write(tmp_path / "tiny.gguf", tensors))
    out = np.empty((tiny_gguf.D_MLP, tiny_gguf.D_MODEL), np.float32)
    for name in ("blk.1.ffn_up.weight", "blk.0.ffn_up.weight"):
        with pytest.raises(ValueError, match=f"'{name}' of tiny.gguf holds NaN or infinity"):
            file.read(name, out)
    with pytest.raises(ValueError, match="no tensor 'blk.2.ffn_up.weight'"):
        file.read("blk.2.ffn_up.weight", out)
    with pytest.raises(
        ValueError, match=r"'output_norm.weight' .* is \[64\], .* asks for \[96, 64\]"
    ):
        file.read("output_norm.weight", out)


def test_type_that_cannot_be_dequantised(tmp_path):
    tensors = {"counts": np.zeros((4, 4), np.int32)}
    file = open_gguf(tiny_gguf.write(tmp_path / "tiny.gguf", tensors))
    with pytest.raises(ValueError, match="'counts' .* has type I32, which cannot be dequantised"):
        file.read("counts", np.empty((4, 4), np.float32))


def test_llama_3_scales_its_frequencies_by_a_tensor(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "cache"))
    factors = np.linspace(1, 8, tiny_gguf.D_HEAD // 2).astype(np.float32)
    plain, _ = load_model(tiny_gguf.write(tmp_path / "plain.gguf"))
    tensors = tiny_gguf.weights() | {"rope_freqs.weight": factors}
    path = tiny_gguf.write(tmp_path / "scaled.gguf", tensors)
    for _ in ("built", "cached"):
        scaled, _ = load_model(path)
        found = scaled.blocks.attn.rotary.inv_freq
        np.testing.assert_allclose(found, plain.blocks.attn.rotary.inv_freq / factors, rtol=1e-6)
