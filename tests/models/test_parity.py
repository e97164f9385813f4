"""Logits and weights against transformers, from the same file."""

import dataclasses
import hashlib

import numpy as np
import pytest

from jaxcirc.models import _parity as module
from jaxcirc.models._parity import PRECISIONS, compare, load_reference, parity


def test_logits_equal_those_of_transformers(smollm2):
    model, tokenizer = smollm2
    rows = compare(model, tokenizer, load_reference("smollm2-135m"), "highest")
    assert [row.text for row in rows][:2] == ["ioi", "prose"]
    assert max(row.n_tokens for row in rows) >= 60
    for row in rows:
        assert row.same_ids
        assert row.absolute < 2e-4  # measured 8e-5
        assert row.relative < 1e-5


def test_dequantised_weights_equal_those_of_transformers(smollm2):
    """Bit for bit, in Hugging Face's layout: [out in], rotary halves."""
    model, _ = smollm2
    attn, mlp, d_model = model.blocks.attn, model.blocks.mlp, model.config.d_model
    ours = {
        "model.embed_tokens.weight": model.embed,
        "model.layers.0.self_attn.q_proj.weight": attn.w_q[0].reshape(d_model, -1).T,
        "model.layers.29.self_attn.k_proj.weight": attn.w_k[29].reshape(d_model, -1).T,
        "model.layers.17.self_attn.v_proj.weight": attn.w_v[17].reshape(d_model, -1).T,
        "model.layers.8.self_attn.o_proj.weight": attn.w_o[8].reshape(-1, d_model).T,
        "model.layers.3.mlp.gate_proj.weight": mlp.w_gate[3].T,
        "model.layers.4.mlp.up_proj.weight": mlp.w_in[4].T,
        "model.layers.5.mlp.down_proj.weight": mlp.w_out[5].T,
        "model.norm.weight": model.final_norm.weight,
    }
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(weight).tobytes()).hexdigest()
        for name, weight in ours.items()
    }
    assert digests == load_reference("smollm2-135m").tensors


@pytest.mark.slow
def test_report(monkeypatch, smollm2):
    monkeypatch.setattr(module, "load_model", lambda name: smollm2)
    report = parity("smollm2-135m")
    assert {row.precision for row in report.rows} == set(PRECISIONS)
    assert report.passed and report.goal == 1e-3
    assert report.worst("highest") == max(
        r.absolute for r in report.rows if r.precision == "highest"
    )
    assert not dataclasses.replace(report, goal=0.0).passed


def test_refusals(monkeypatch, tmp_path, smollm2):
    model, tokenizer = smollm2
    reference = load_reference("smollm2-135m")
    with pytest.raises(ValueError, match="no stored logits for 'gpt5': there are some for 'gemma3"):
        load_reference("gpt5")
    with pytest.raises(ValueError, match="are of a file with sha256 0000"):
        compare(model, tokenizer, dataclasses.replace(reference, sha256="0" * 64))
    (tmp_path / "x.safetensors").write_bytes(b"\x10" + b"\0" * 20)
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="x.safetensors is truncated or damaged"):
        load_reference("x")
