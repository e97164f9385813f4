"""glassllm: its own NumPy forward pass and tracer are the oracle."""

import jax.numpy as jnp
import numpy as np
import pytest
from glassllm.model import GlassLM
from glassllm.tokenizer import Tokenizer
from glassllm.trace import Tracer

from jaxcirc import load_model
from jaxcirc.models import MODELS
from jaxcirc.taps import Read, Sites, run

TEXTS = {
    "en": "Alice was beginning to get very tired of sitting  by her sister\non the bank: “oh!”",
    "pt": "Capitu olhou para o mar; não disse nada, e eu também não.",
}

STEPS = {
    "q": "attn.q",
    "k": "attn.k",
    "v": "attn.v",
    "rot_q": "attn.rope_q",
    "rot_k": "attn.rope_k",
    "pattern": "attn.softmax",
    "attn_out": "attn.out",
    "mlp_pre": "ffn.gate",
    "mlp_up": "ffn.up",
    "mlp_out": "ffn.down",
}
BY_HEAD = ("q", "k", "v", "rot_q", "rot_k")


@pytest.fixture(scope="module", params=TEXTS)
def both(request):
    path = MODELS[f"glassllm-{request.param}"].paths()[0]
    theirs = GlassLM.load(path), Tokenizer.load(path.with_suffix(".tokenizer.json"))
    return *load_model(f"glassllm-{request.param}"), *theirs, TEXTS[request.param]


def test_it_splits_texts_as_its_own_tokenizer_does(both):
    _, tokenizer, _, theirs, text = both
    assert tokenizer.encode(text) == theirs.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_site_equals_its_tracer(both):
    model, _, theirs, tokenizer, text = both
    ids, tracer = tokenizer.encode(text), Tracer()
    expected = theirs.forward(np.asarray(ids)[None], trace=tracer).data
    logits, found = run(model, jnp.asarray([ids]), Sites(**{site: Read() for site in STEPS}))
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    for site, step in STEPS.items():
        for layer in range(model.n_layers):
            ours, want = getattr(found, site)[layer, 0], tracer.get(step, layer).value
            ours = ours.swapaxes(0, 1) if site in BY_HEAD else ours
            np.testing.assert_allclose(ours, want, atol=2e-4, err_msg=f"{site} {layer}")


def test_a_damaged_file_is_one_error(tmp_path):
    path = tmp_path / "en.npz"
    path.write_bytes(MODELS["glassllm-en"].paths()[0].read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated or damaged .*: install it again"):
        load_model(path)
