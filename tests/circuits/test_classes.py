"""Head classes: every definition against what it says, on a random model."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcirc.circuits import head_classes
from jaxcirc.models import toy
from jaxcirc.patching import path
from jaxcirc.taps import Node
from jaxcirc.tasks import ioi


@pytest.fixture(scope="module")
def found(smollm2):
    _, tokenizer = smollm2
    model = toy(jax.random.key(2), vocab=49152, n_layers=4, n_heads=6, n_kv_heads=3)
    prompts = ioi(tokenizer, n=8)
    return model, prompts, head_classes(model, prompts, attends=0.1, deviations=0.7)


def heads(flags):
    return {(int(layer), int(head)) for layer, head in np.argwhere(flags)}


def test_each_class_holds_who_meets_its_definition(found):
    _, _, classes = found
    looks, direct = classes.attention, classes.direct
    least = 0.7 * direct.std()
    to_s = looks["end>S1"] + looks["end>S2"]
    expected = {
        "name mover": (looks["end>IO"] >= 0.1) & (direct >= least),
        "negative": ((looks["end>IO"] >= 0.1) | (to_s >= 0.1)) & (direct <= -least),
        "duplicate token": looks["S2>S1"] >= 0.1,
        "induction": looks["S2>S1+1"] >= 0.1,
        "previous token": looks["S1+1>S1"] >= 0.1,
    }
    assert all(flags.any() for flags in expected.values())
    for name, flags in expected.items():
        assert {(n.layer, n.index) for n in classes.heads[name]} == heads(flags), name
    mover = classes.heads["name mover"][0]
    assert "name mover" in classes.of(mover) and classes.of(Node("z", 0, 0)) is not None


def test_s_inhibition_reads_the_paths_to_the_name_movers(found):
    model, prompts, classes = found
    movers = [Node("q", node.layer, node.index) for node in classes.heads["name mover"]]
    last = max(node.layer for node in movers)
    assert not classes.to_queries[last:].any()
    sender = Node("z", 0, 1)
    effect = path(model, prompts, [sender], movers).importance.mean()
    assert classes.to_queries[0, 1] == pytest.approx(float(effect), abs=1e-5)
    least = 0.7 * classes.to_queries.std()
    flags = (classes.attention["end>S2"] >= 0.1) & (classes.to_queries >= least)
    named = {(n.layer, n.index) for n in classes.heads["S-inhibition"]}
    assert named == heads(flags & (classes.to_queries != 0))


def test_prompts_without_the_spans(found):
    model, prompts, _ = found
    with pytest.raises(ValueError, match="there is no span 'S1\\+1'"):
        head_classes(model, prompts_without(prompts, "S1+1"))


def prompts_without(prompts, name):
    spans = {k: v for k, v in prompts.spans.items() if k != name}
    return dataclasses.replace(prompts, spans=spans)
