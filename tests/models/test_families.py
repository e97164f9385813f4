"""Every family: parity with transformers, invariants of its sites, batching, and refusals."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import load_file, save_file

from jaxcirc import cli, load_model, models
from jaxcirc.models import _locate, _parity, _stream, parity_of_families
from jaxcirc.models._parity import families, family_reference
from jaxcirc.models._spec import Rope
from jaxcirc.taps import Read, Sites, run

FAMILIES = families()
CAUSAL = [family for family in FAMILIES if family != "bidirectional"]
SUMS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "head_out")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Notes of hashes go to a folder of the test."""
    monkeypatch.setenv("JAXCIRC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Its name, model, tokens and reference logits."""
    folder, tokens, logits = family_reference(request.param)
    return request.param, load_model(folder)[0], jnp.asarray(tokens), logits


@pytest.fixture
def copied(tmp_path):
    """A function that copies a family's folder, changes keys of its config, and its tensors."""

    def copy(name, keys=None, tensors=None):
        folder = tmp_path / name
        shutil.copytree(family_reference(name)[0], folder)
        config = json.loads((folder / "config.json").read_text()) | (keys or {})
        config = {key: value for key, value in config.items() if value != "absent"}
        (folder / "config.json").write_text(json.dumps(config))
        if tensors is not None:
            stored = load_file(folder / "model.safetensors") | tensors
            kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
            save_file(kept, folder / "model.safetensors")
        return folder

    return copy


def close(a, b, tolerance=1e-5):
    """Equal to rounding, relative to the largest entry."""
    scale = max(float(jnp.abs(b).max()), 1e-6)
    assert float(jnp.abs(a - b).max()) <= tolerance * scale


def test_logits_equal_those_of_transformers(family):
    _, model, tokens, theirs = family
    close(run(model, tokens)[0], theirs)


def test_every_architecture_is_there():
    kinds = {load_model(family_reference(name)[0])[0].config.family for name in FAMILIES}
    assert kinds == {
        *("gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"),
        *("gemma1", "gemma2", "gemma3", "transformer_lens"),
    }


def test_texts_are_longer_than_every_window(family):
    _, model, tokens, _ = family
    window = model.blocks.attn.window
    assert window is None or (np.asarray(window) < tokens.shape[1]).any()


def test_sums_of_sites(family):
    _, model, tokens, _ = family
    sites = [site for site in SUMS if site in model.sites()]
    _, r = run(model, tokens, Sites(**{site: Read() for site in sites}))
    if model.blocks.parallel:
        close(r.resid_pre + r.attn_out + r.mlp_out, r.resid_post)
    else:
        close(r.resid_pre + r.attn_out, r.resid_mid)
        close(r.resid_mid + (0 if model.blocks.mlp is None else r.mlp_out), r.resid_post)
    bias = model.blocks.attn.b_o
    bias = 0 if bias is None else bias[:, None, None]
    if model.blocks.attn_post_norm is None:
        close(r.head_out.sum(axis=3) + bias, r.attn_out)
    else:
        close(r.head_out.sum(axis=3), r.attn_out)


def alone(name, model, tokens, length):
    """Logits of the first tokens of each text on its own; a causal model's are the same in a
    longer text, which needs no program of another shape."""
    short = tokens if name in CAUSAL else tokens[:, :length]
    return run(model, short)[0][:, :length]


def test_padding_and_the_order_of_a_batch_change_nothing(family):
    name, model, tokens, _ = family
    lengths, width = (17, 9), tokens.shape[1]
    expected = [alone(name, model, tokens, n)[i] for i, n in enumerate(lengths)]
    spare = [width - n for n in lengths]
    for order in ([0, 1], [1, 0]):
        for left in (True, False):
            before = [spare[i] if left else 0 for i in order]
            after = [0 if left else spare[i] for i in order]
            pads = list(zip(before, after, strict=True))
            rows = [tokens[i, : lengths[i]] for i in order]
            batch = jnp.stack([jnp.pad(row, pad) for row, pad in zip(rows, pads, strict=True)])
            real = [jnp.pad(jnp.ones_like(row, bool), p) for row, p in zip(rows, pads, strict=True)]
            logits, _ = run(model, batch, mask=jnp.stack(real))
            for row, start, i in zip(logits, before, order, strict=True):
                close(row[start : start + lengths[i]], expected[i])


@pytest.mark.parametrize("name", CAUSAL)
def test_later_tokens_change_nothing(name):
    folder, tokens, _ = family_reference(name)
    model, tokens = load_model(folder)[0], jnp.asarray(tokens)
    changed = tokens.at[:, 12:].set(3)
    np.testing.assert_array_equal(run(model, tokens)[0][:, :12], run(model, changed)[0][:, :12])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2", "gemma3", "qwen3"])
def test_half_precision(name, dtype):
    folder, tokens, theirs = family_reference(name)
    model, _ = load_model(folder, dtype)
    assert model.dtype == dtype and model.blocks.attn.w_q.dtype == dtype
    logits, _ = run(model, jnp.asarray(tokens))
    assert logits.dtype == dtype
    close(logits.astype(jnp.float32), theirs, 0.1 if dtype == jnp.bfloat16 else 0.01)


def test_weights_stored_in_half_precision(copied):
    folder = copied("llama", tensors={})
    stored = load_file(folder / "model.safetensors")
    half = {name: tensor.astype(jnp.bfloat16) for name, tensor in stored.items()}
    save_file(half, folder / "model.safetensors")
    model, _ = load_model(folder)
    expected = half["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(model.embed, expected)


def test_report(monkeypatch):
    monkeypatch.setattr(_parity, "families", lambda: ["gpt2", "gemma3"])
    rows = parity_of_families()
    assert [row.family for row in rows] == ["gpt2", "gemma3"]
    assert all(row.passed and max(row.highest, row.default) <= 1e-5 for row in rows)


def test_command(monkeypatch, capsys):
    monkeypatch.setattr(_parity, "families", lambda: ["gpt2", "gemma3"])
    cli.main(["parity", "--all"])
    assert "2 families, each within 0.0001" in capsys.readouterr().out
    monkeypatch.setattr(_parity, "FAMILY_GOAL", 0.0)
    row = _parity.FamilyRow("gpt2", 1.0, 1.0, False)
    monkeypatch.setattr(models, "parity_of_families", lambda: [row])
    with pytest.raises(SystemExit, match=r"no parity .* for gpt2"):
        cli.main(["parity", "--all"])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_flax_checkpoints(copied, name):
    """Kernels are transposed, and norms have a scale."""
    folder = copied(name)
    whole, stored = load_model(folder)[0], load_file(folder / "model.safetensors")
    tree = {}
    for name, tensor in stored.items():
        *parents, last = name.split(".")
        if last == "weight":
            embeds = parents[-1] in ("wte", "wpe", "embed_tokens")
            last = (
                "kernel" if tensor.ndim == 2 and not embeds else "embedding" if embeds else "scale"
            )
            tensor = tensor.T if last == "kernel" else tensor
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = np.ascontiguousarray(tensor)
    (folder / "model.safetensors").unlink()
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(load_model(folder)[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    (folder / "flax_model.msgpack").write_bytes(b"no")
    with pytest.raises(ValueError, match="flax_model.msgpack is truncated or damaged"):
        load_model(folder)


def test_sharded(copied):
    folder = copied("qwen2")
    whole, stored = load_model(folder)[0], load_file(folder / "model.safetensors")
    names = sorted(stored)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: stored[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    sharded = load_model(folder)[0]
    assert sharded.config.sha256 != whole.config.sha256
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(sharded), strict=True):
        np.testing.assert_array_equal(a, b)
    (folder / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks b.safetensors: download"):
        load_model(folder)


def test_small_chunks_change_nothing(monkeypatch):
    for name in ("gpt2", "gpt_neox", "attn_only", "gemma2"):
        folder, _, _ = family_reference(name)
        whole = load_model(folder)[0]
        with monkeypatch.context() as patch:
            patch.setattr(_stream, "CHUNK", 50)
            chunked = load_model(folder)[0]
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True):
            np.testing.assert_array_equal(a, b)


OLDER = {
    "gpt_neox": {"rotary_pct": 0.5, "rotary_emb_base": 100.0},
    "llama3": {
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen3": {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "gemma3": {
        "rope_theta": 500.0,
        "rope_local_base_freq": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}
"""How configs said it before `rope_parameters`."""


@pytest.mark.parametrize("name", OLDER)
def test_older_configs(copied, name):
    model, _ = load_model(copied(name, {"rope_parameters": "absent"} | OLDER[name]))
    _, tokens, theirs = family_reference(name)
    close(run(model, jnp.asarray(tokens))[0], theirs)


def test_windows_where_layer_types_are_not_named(copied):
    keys = {"layer_types": "absent", "sliding_window_pattern": 3}
    model, _ = load_model(copied("gemma3", keys))
    assert (np.asarray(model.blocks.attn.window) == 5).tolist() == [True, True, False, True]
    model, _ = load_model(copied("qwen2", {"layer_types": "absent"}))
    assert (np.asarray(model.blocks.attn.window) == 5).tolist() == [False, True, True]


def test_names_with_other_prefixes(copied):
    """As a base model saves them, and as Gemma 3's multimodal checkpoints do."""
    folder = copied("gpt2", tensors={"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4))})
    stored = load_file(folder / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    save_file(short, folder / "model.safetensors")
    assert load_model(folder)[0].config.n_layers == 3
    folder = copied("gemma3")
    stored = load_file(folder / "model.safetensors")
    long = {f"language_model.{name}": tensor for name, tensor in stored.items()}
    save_file(long | {"vision_tower.x": np.ones(3)}, folder / "model.safetensors")
    inner = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {"depth": 2}}
    (folder / "config.json").write_text(json.dumps(outer))
    _, tokens, theirs = family_reference("gemma3")
    close(run(load_model(folder)[0], jnp.asarray(tokens))[0], theirs)


def test_gpt2_without_mlp(copied):
    """A config that says so needs no tensors of an MLP."""
    names = load_file(family_reference("gpt2")[0] / "model.safetensors")
    gone = {name: None for name in names if ".mlp." in name or ".ln_2." in name}
    model, _ = load_model(copied("gpt2", {"attn_only": True}, gone))
    assert model.blocks.mlp is None and "mlp_out" not in model.sites()
    assert np.isfinite(run(model, jnp.zeros((1, 4), int))[0]).all()


def test_smoothed_rotary_frequencies():
    """Llama 3.1's published settings: short wavelengths kept, long ones divided by eight."""
    plain = Rope(500000.0, 128).inv_freq()
    scaled = Rope(500000.0, 128, 8.0, (1.0, 4.0, 8192.0)).inv_freq()
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(scaled[wavelength < 2048], plain[wavelength < 2048])
    np.testing.assert_allclose(scaled[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-6)
    between = (wavelength > 2048) & (wavelength < 8192)
    assert (scaled[between] < plain[between]).all() and between.any()


UP = "model.layers.1.mlp.up_proj.weight"
REFUSED = [
    ("llama", {"model_type": "mamba"}, None, "a 'mamba' model: known families are 'gpt2'"),
    ("llama", {"mystery": 3}, None, r"'mystery' = 3, .* pass ignore=\('mystery',\) to load_model"),
    ("llama", {"quantization_config": {"bits": 4}}, None, "'quantization_config' = {'bits': 4}"),
    ("llama", {"hidden_act": "mish"}, None, "'hidden_act' = 'mish', which is not supported"),
    ("llama", {"hidden_size": "absent"}, None, "no metadata key 'hidden_size'"),
    ("llama3", {"rope_parameters": {"rope_type": "yarn"}}, None, "'rope_type' = 'yarn', which"),
    ("llama3", {"rope_parameters": {"rope_type": "linear", "beta": 2}}, None, "has 'beta' = 2"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, None, "layer_idx' = True, which is not"),
    ("gemma3", {"layer_types": ["full_attention"]}, None, "'layer_types' = .* each of the 4"),
    ("gpt_neo", {"attention_layers": ["global"]}, None, "for 1 layers: name"),
    ("llama", None, {UP: None}, "no tensor 'layers.1.mlp.up_proj.weight'"),
    (
        "llama",
        None,
        {UP: np.ones((3, 24))},
        r"up_proj.weight' of llama is \[3, 24\], .* \[40, 24\]",
    ),
    ("llama", None, {UP: np.full((40, 24), np.nan)}, "up_proj.weight' of llama holds NaN"),
    ("llama", None, {UP: np.ones((40, 24), np.int8)}, "has type I8, which is not supported"),
    ("llama", None, {"extra.weight": np.ones(3)}, "does not use, such as 'extra.weight' .1 in all"),
    ("llama", {"attention_bias": False}, None, "such as 'layers.0.self_attn.k_proj.bias'"),
]


@pytest.mark.parametrize(("name", "keys", "tensors", "message"), REFUSED)
def test_refusals(copied, name, keys, tensors, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_model(copied(name, keys, tensors))
    assert "\n" not in str(raised.value)


def test_overrides(copied):
    folder = copied("llama", {"mystery": 3}, {"extra.weight": np.ones(3)})
    model, _ = load_model(folder, ignore=("mystery", "extra.*"))
    assert model.config.name == "llama"


def test_damaged_folders(copied, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no config.json in"):
        load_model(tmp_path)
    folder = copied("gpt2")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is truncated or damaged"):
        load_model(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="save it with safe_serialization=True"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a JSON object"):
        load_model(folder)


def test_hub(monkeypatch):
    folder = family_reference("gpt2")[0]
    hub = type(sys)("huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(_locate.importlib.util, "find_spec", lambda name: name)
    hub.snapshot_download = lambda repo, allow_patterns: str(folder)
    model, _ = load_model("org/tiny-gpt2")
    assert (model.config.name, model.config.family) == ("org/tiny-gpt2", "gpt2")
    assert model.config.source == "https://huggingface.co/org/tiny-gpt2"

    def offline(repo, allow_patterns):
        raise ConnectionError("Name or service not known\nmore")

    hub.snapshot_download = offline
    with pytest.raises(FileNotFoundError, match="cannot download 'org/x' .*not known.: check"):
        load_model("org/x")
    monkeypatch.setattr(_locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"run `pip install 'jaxcirc\[hub\]'`"):
        load_model("org/x")


def test_without_a_tokenizer():
    _, tokenizer = load_model(family_reference("gpt2")[0])
    with pytest.raises(ValueError, match="put its tokenizer.json beside config.json"):
        tokenizer.encode("a")


def test_tokenizer_of_a_folder(copied, smollm2):
    folder = copied("llama")
    (folder / "tokenizer.json").write_bytes(smollm2[1].to_json())
    settings = {"bos_token": "<|im_start|>", "pad_token": {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model, tokenizer = load_model(folder)
    assert tokenizer.encode(" Mary left") == smollm2[1].encode(" Mary left")
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.adds_bos) == (1, 2, False)
    settings |= {"add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model, tokenizer = load_model(folder)
    assert tokenizer.adds_bos and model.config.bos == "always"
