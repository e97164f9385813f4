"""Propagation against the model itself: by weights, by `jax.vjp`, and direct logit attribution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SHAPES, close, slow_at, tiny, tokens

from jaxcirc.observables import (
    Observable,
    Segment,
    feature_norms,
    features,
    path_of,
    point_of,
    propagate,
    read,
    search_paths,
    segment_of,
)
from jaxcirc.taps import Node, Read, Sites, run

ASKED = Observable((3, 7, 11), (1.0, 0.5, -1.5))
KEPT = (("gemma", "frozen"),)
"""The others hold as well, and compile for long."""


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def model_of(name: str):
    """A model of the table, with a soft cap on the logits where it caps scores."""
    model = tiny(name, jnp.float64)
    return dataclasses.replace(model, logit_soft_cap=2.0) if name == "capped" else model


def paths_of(model) -> list[list[Node]]:
    head = Node("z", 0, 1, pos=4)
    if "mlp_out" not in model.sites():
        return [[], [head, Node("z", 2, 3)]]
    return [[head, Node("mlp_out", 1, pos=4), Node("z", 2, 3)], [Node("mlp_out", 2)]]


def every_case():
    for name in SHAPES:
        for norms in ("direction", "frozen", "gradient"):
            marks = () if (name, norms) in KEPT else pytest.mark.slow
            yield pytest.param(name, norms, marks=marks)


@pytest.mark.parametrize("name, norms", list(every_case()))
def test_both_routes_give_the_same(name, norms):
    model, prompt = model_of(name), tokens(batch=1)[0]
    point = point_of(model, prompt)
    for path in paths_of(model):
        found = [
            propagate(model, ASKED, path, norms, point=point, source=2, route=route)
            for route in ("weights", "vjp")
        ]
        close(found[0].vector, found[1].vector, 1e-9)
        close(found[0].offset, found[1].offset, 1e-9)
        assert float(jnp.abs(found[0].vector).max()) > 1e-4


@pytest.mark.parametrize("name", slow_at(["learned", "gemma"], "learned"))
def test_pattern_times_reading_is_direct_logit_attribution(name):
    """Of every head of one layer, from every source, the biases of the values included."""
    model, prompt = tiny(name, jnp.float64), tokens(batch=1)[0]
    point = point_of(model, prompt)
    reads = Sites(pattern=Read(), head_out=Read(), final_resid=Read())
    _, seen = run(model, prompt[None], reads)
    slope = propagate(model, ASKED, [], "frozen", point=point).vector
    for head in (0, 3):
        parts = []
        for source in range(len(prompt)):
            feature = propagate(
                model, ASKED, [Node("z", 1, head)], "frozen", point=point, source=source
            )
            x = point.seen.attn_in[1, source]
            parts.append(
                seen.pattern[1, 0, head, -1, source] * (feature.vector @ x + feature.offset)
            )
        close(sum(parts), seen.head_out[1, 0, -1, head] @ slope, 1e-10)


@pytest.mark.parametrize("name", slow_at(["learned", "gemma", "capped"], "learned", "capped"))
def test_the_observable_itself_is_what_the_logits_say(name):
    """A path of no node is the final norm: exact where its scale is held, and at its own point."""
    model, prompt = model_of(name), tokens(batch=1)[0]
    point = point_of(model, prompt)
    for norms in ("frozen", "gradient"):
        feature = propagate(model, ASKED, [], norms, point=point)
        said = feature.vector @ point.seen.final_resid[-1] + feature.offset
        close(said, ASKED(point.logits[-1]), 1e-10)


@pytest.mark.parametrize("name", slow_at(["learned", "gemma"], "learned"))
def test_all_heads_at_once_are_each_head_alone(name):
    model = tiny(name, jnp.float64)
    every = features(model, ASKED)
    for layer, head in np.ndindex(every.shape[:2]):
        close(every[layer, head], propagate(model, ASKED, f"{layer}.{head}").vector, 1e-10)
    close(feature_norms(model, ASKED), jnp.linalg.norm(every, axis=-1), 1e-10)
    later = propagate(model, ASKED, "2.1")
    before = features(model, later)
    close(before[1, 2], propagate(model, ASKED, ["1.2", "2.1"]).vector, 1e-10)
    assert not before[2].any() and before[1].any()


def test_readings_are_those_of_a_run_taken_apart():
    model, rows = tiny("gemma", jnp.float64), tokens(batch=2)
    one = propagate(model, ASKED, "1.2")
    other = propagate(model, ASKED, [Node("mlp_out", 2)], "frozen", point=point_of(model, rows[0]))
    beside = propagate(model, ASKED, "1.3")
    found = read(model, rows, [ASKED, Observable((5,), (1.0,))], [one, other, beside])
    logits, seen = run(model, rows, Sites(attn_in=Read(), attn_norm_scale=Read(), mlp_in=Read()))
    close(found.outputs, jnp.stack([ASKED(logits), logits[..., 5]]), 1e-9)
    x = seen.attn_in[1] / seen.attn_norm_scale[1]
    close(found.inputs[0], x, 1e-12)
    close(found.features[0], x @ one.vector + one.offset, 1e-12)
    close(found.features[2], x @ beside.vector + beside.offset, 1e-12)
    close(found.features[1], seen.mlp_in[2] @ other.vector + other.offset, 1e-12)


def test_a_segment_without_a_zero_is_one_line():
    model = tiny("gemma", jnp.float64)
    ends = jnp.ones((model.n_layers, 16))
    with pytest.raises(
        ValueError, match="one sign on the segment at mlp 1 .* mlp_point=segment_of"
    ):
        propagate(model, ASKED, "mlp 1", mlp_point=Segment(ends, ends))


@pytest.mark.slow
def test_an_mlp_is_taken_where_the_observable_is_zero_between_two_examples():
    model = tiny("learned", jnp.float64)
    block = jax.tree.map(lambda leaf: leaf[1], model.blocks)
    y = propagate(model, ASKED, []).vector
    rows = tokens(3, batch=12)
    _, seen = run(model, rows, Sites(mlp_normed=Read(), mlp_out=Read()))
    values = np.asarray(seen.mlp_out[1, :, -1] @ y)
    high, low = rows[values.argmax()], rows[values.argmin()]
    segment = segment_of(model, high, low)
    feature = propagate(model, ASKED, "mlp 1", mlp_point=segment)
    ends = segment.low[1], segment.high[1]

    def at(t: float):
        return float(_mlp(block.mlp, (1 - t) * ends[0] + t * ends[1]) @ y)

    assert at(0) < 0 < at(1)
    t = 0.5
    for k in range(2, 54):
        t += (1 if at(t) < 0 else -1) * 0.5**k
    root = (1 - t) * ends[0] + t * ends[1]
    again = propagate(model, ASKED, "mlp 1", mlp_point=root)
    close(feature.vector, again.vector, 1e-8)
    assert abs(at(t)) < 1e-10


def _mlp(mlp, x):
    hidden = jax.nn.gelu(x @ mlp.w_in + mlp.b_in, approximate=True)
    return hidden @ mlp.w_out + mlp.b_out


def test_a_beam_keeps_the_strongest_and_norms_need_no_prompts():
    model = tiny("gemma", jnp.float64)
    wide = search_paths(model, ASKED, width=3, depth=2)
    norms = np.asarray(feature_norms(model, ASKED))
    ones = [branch for branch in wide if len(branch.path) == 1]
    best = np.argsort(-norms.ravel())[:3]
    assert [b.path[0].layer * 4 + b.path[0].index for b in ones] == best.tolist()
    assert all(b.path[0].layer < b.path[-1].layer for b in wide if len(b.path) == 2)
    with pytest.raises(ValueError, match="width=8, depth=2"):
        search_paths(model, ASKED, width=0)


BAD = {
    "backwards": (lambda m: path_of(m, ["2.1", "1.0"]), r'goes backwards.*\["1.0", "2.1"\]'),
    "sideways": (lambda m: path_of(m, ["0.1", "2.1", "2.3"]), r'sideways.*\["0.1", "2.1"\]'),
    "no column": (lambda m: path_of(m, Node("z", 1, 0, pos="S2")), r"by number, Node\("),
    "no head": (lambda m: path_of(m, "1.9"), "has heads 0 to 3"),
    "no layer": (lambda m: path_of(m, "mlp 7"), "has layers 0 to 2"),
    "no node": (lambda m: path_of(m, "head 3"), "no node is called 'head 3': propagate"),
    "no point": (
        lambda m: propagate(m, ASKED, "1.0", "frozen"),
        r"point=point_of\(model, tokens\)",
    ),
    "no mlp point": (lambda m: propagate(m, ASKED, "mlp 1"), r"mlp_point=segment_of\(model, pos"),
    "unknown token": (lambda m: propagate(m, Observable((99,), (1.0,))), "ids 0 to 49; name the"),
    "several prompts": (lambda m: point_of(m, tokens()), r"point_of\(model, rows\[0\]\)"),
}


@pytest.mark.parametrize("bad", BAD)
def test_errors_hold_the_corrected_call(bad):
    call, message = BAD[bad]
    with pytest.raises(ValueError, match=message) as error:
        call(tiny("gemma", jnp.float64))
    assert "\n" not in str(error.value)
