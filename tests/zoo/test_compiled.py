"""Compiled programs: the port is tracr's own forward pass, and the edges are the known ones."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxcirc import zoo
from jaxcirc.models.tracr import from_tracr
from jaxcirc.taps import Read, Sites, run
from jaxcirc.zoo._compiled import encode
from jaxcirc.zoo._structure import shown

STORED = load_file(Path(__file__).parents[1] / "fixtures" / "tracr.safetensors")
"""Tokens, residual streams and outputs as tracr computed them (checkpoints/make_zoo.py fixture)."""

EDGES = {
    "xproportion": "tok>m0 m0>a1.v a1>out tok>a1.q pos>a1.q tok>a1.k pos>a1.k",
    "reverse": "tok>a0.v a0>m0 tok>m0 m0>m1 tok>m1 pos>m1 m1>m2 m2>a3.q pos>a3.k tok>a3.v a3>out"
    " tok>a0.q tok>a0.k tok>a3.q tok>a3.k",
    "hist": "tok>a0.q tok>a0.k tok>a0.v tok>m0 a0>m0 m0>out",
}
"""All true edges. Conmy et al. 2023 (arXiv 2304.14997) list the 7 and the first 11 of reverse;
`APART` are the others. The output of hist is the MLP's alone: a0 writes a direction that nothing
but the MLP reads."""

APART = "tok>a0.q tok>a0.k tok>a3.q tok>a3.k"
"""Edges of reverse through the constant direction and BOS, which carry nothing of the input."""

EXCHANGE = {
    "xproportion": "tok>m0 m0>a1.v a1>out",
    "reverse": "tok>a3.v a3>out",
    "hist": "tok>a0.q tok>a0.k a0>m0 m0>out",
}
"""True edges that an exchange between inputs shows: 3 and 2, as Miller et al. 2024 (arXiv
2407.08734) find."""


def brief(case, edges) -> set[str]:
    """Edges in the notation of the tables, for models with one head."""
    names = {"embed": "tok", "pos_embed": "pos", "z": "a", "mlp_out": "m", "mlp_in": "m"}
    names |= {"q_in": "a", "k_in": "a", "v_in": "a", "final_resid": "out"}
    found = set()
    for edge in np.flatnonzero(edges):
        ends = []
        for node in case.wiring.edge(int(edge)):
            layer = "" if node.site in ("embed", "pos_embed", "final_resid") else node.layer
            slot = f".{node.site[0]}" if node.site[1:] == "_in" else ""
            ends.append(f"{names[node.site]}{layer}{slot}")
        found.add(">".join(ends))
    return found


@pytest.fixture(scope="module", params=zoo.PROGRAMS)
def case(request):
    return zoo.load(request.param)


def residuals(model, tokens):
    """The stream after attention and after the MLP, layer by layer: [2 * layer, batch pos d_model],
    and the logits."""
    logits, found = run(model, tokens, Sites(resid_mid=Read(), resid_post=Read()))
    both = jnp.stack([found.resid_mid, found.resid_post], axis=1)
    return both.reshape(-1, *both.shape[2:]), logits


def test_every_residual_equals_tracrs(case):
    stored = {key: STORED[f"{case.name}.{key}"] for key in ("tokens", "residuals", "output")}
    found, logits = residuals(case.model, jnp.asarray(stored["tokens"]))
    np.testing.assert_allclose(found, stored["residuals"], atol=1e-4)
    numerical = zoo.PROGRAMS[case.name].numerical
    out = logits[:, :, 0] if numerical else logits.argmax(axis=2)
    np.testing.assert_allclose(out[:, 1:], stored["output"][:, 1:], atol=1e-4)


@pytest.mark.slow
def test_tracr_itself_gives_the_same_weights():
    compiling = pytest.importorskip("tracr.compiler.compiling")
    lib = pytest.importorskip("tracr.compiler.lib")
    compiled = compiling.compile_rasp_to_model(
        lib.make_hist(), {"a", "b", "c"}, max_seq_len=5, compiler_bos="BOS"
    )
    model, shipped = from_tracr(compiled), zoo.load("hist").model
    for ours, theirs in zip(jax.tree.leaves(model), jax.tree.leaves(shipped), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    said = compiled.apply(["BOS", *"abcaa"])
    found, _ = residuals(model, jnp.asarray([[0, 1, 2, 3, 1, 1]]))
    np.testing.assert_allclose(found, np.stack(said.residuals), atol=1e-4)


def test_only_compiled_programs_are_taken():
    sizes = SimpleNamespace(layer_norm=True, activation_function=jax.nn.gelu)
    with pytest.raises(ValueError, match="compile_rasp_to_model"):
        from_tracr(SimpleNamespace(model_config=sizes, params={}))


def test_every_input_is_answered_as_in_plain_python(case):
    program = zoo.PROGRAMS[case.name]
    symbols, outputs = case.symbols
    inputs = program.inputs()
    logits = np.asarray(run(case.model, jnp.asarray(encode(inputs, symbols)), logits_at=-1)[0])
    want = [program.answer(row) for row in inputs]
    if program.numerical:
        np.testing.assert_allclose(logits[:, 0], want, atol=1e-5)
        assert not logits[:, 1].any()
    else:
        assert [outputs[i] for i in logits.argmax(axis=1)] == want


@pytest.mark.parametrize("name", EDGES)
def test_the_true_edges_are_the_known_ones(name):
    case = zoo.load(name)
    assert brief(case, case.true) == set(EDGES[name].split())
    assert brief(case, case.true & ~case.constant) == set(EXCHANGE[name].split())


def test_edges_through_the_constant_direction_are_not_scored():
    case = zoo.load("reverse")
    assert set(APART.split()) <= brief(case, ~case.scored)


def test_constant_and_unscored_edges_are_as_measured():
    case = zoo.load("sort_unique")
    tokens = jnp.asarray(encode(zoo.PROGRAMS["sort_unique"].inputs()[::3], case.symbols[0]))
    exchange, zero = shown(case.model, case.wiring, tokens, case.true)
    np.testing.assert_array_equal(case.true & ~exchange, case.constant)
    np.testing.assert_array_equal(case.true & ~exchange & ~zero, ~case.scored)
    false = np.zeros_like(case.true)
    false[np.flatnonzero(~case.true)[::4]] = True
    assert not np.any(shown(case.model, case.wiring, tokens, false))


def test_masks_are_of_the_wiring(case):
    for mask in (case.true, case.scored, case.constant):
        assert mask.shape == (case.wiring.n_edges,) and mask.dtype == bool
    assert not np.any(case.constant & ~case.true) and not np.any(~case.scored & ~case.true)
    assert (case.true & case.scored & ~case.constant).any()
