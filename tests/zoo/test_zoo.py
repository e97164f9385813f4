"""The zoo's cases: prompts, files, and transformers that follow their causal models."""

import json
import shutil

import jax
import numpy as np
import pytest
from cases import slow_at

from jaxcirc import zoo
from jaxcirc.taps import Node, run
from jaxcirc.tasks import accuracy
from jaxcirc.zoo._file import folder
from jaxcirc.zoo._structure import messages, told

COSTLY = ("sort_unique", "sort_freq", "count_less_freq", "shuffle_dyck", "pair_balance")


@pytest.fixture(scope="module", params=slow_at(zoo.CAUSAL, "duplicate", "induction"))
def trained(request):
    return zoo.load(request.param)


def test_trained_models_follow_their_causal_models(trained):
    found = zoo.agreement(zoo.CAUSAL[trained.name], trained.model, jax.random.key(77))
    assert all(share > 0.99 for share in found.values()), found
    card = zoo.cards()[trained.name]["numbers"]
    assert set(card) == set(found) and min(card.values()) > 0.99


@pytest.mark.parametrize("name", slow_at(["greater_than", "induction"], "induction"))
def test_exchanging_what_an_edge_carries_tells_true_from_false(name):
    case = zoo.load(name)
    prompts, effects = case.prompts(64, seed=5), []
    written, logits = messages(case.model, case.wiring, prompts.clean)
    others, _ = messages(case.model, case.wiring, prompts.corrupt)
    for edge, source in enumerate(case.wiring.source):
        change = others[source] - written[source]
        found = told(case.model, case.wiring, prompts.clean, edge, change)
        effects.append(np.abs(case.metric(found, prompts) - case.metric(logits, prompts)).mean())
    effects = np.asarray(effects)
    assert effects[case.true].min() > 2 * effects[~case.true & case.scored].max()


def test_another_model_does_not_follow():
    causal, model = zoo.CAUSAL["induction"], zoo.load("induction").model
    shuffled = jax.tree.map(lambda leaf: leaf[..., ::-1], model)
    assert max(zoo.agreement(causal, shuffled, jax.random.key(0), 256).values()) < 0.5


def test_true_edges_join_the_circuit(trained):
    causal, wiring = zoo.CAUSAL[trained.name], trained.wiring
    ends = [wiring.edge(int(edge)) for edge in np.flatnonzero(trained.true)]
    assert len(ends) == len(causal.edges) and set(ends) == set(causal.edges)
    inside = {Node("embed", 0), *causal.nodes.values()}
    assert {source for source, _ in ends} == inside
    assert trained.scored[trained.true].all() and not trained.constant.any()
    for edge in np.flatnonzero(~trained.scored):
        assert wiring.edge(int(edge))[0] in inside


@pytest.mark.parametrize("name", slow_at(zoo.names(), *COSTLY))
def test_prompts_are_answered_and_their_pairs_differ(name):
    case = zoo.load(name)
    prompts = case.prompts(32, seed=3)
    assert len(prompts) == 32 and prompts.clean.shape == prompts.corrupt.shape
    logits = [run(case.model, x, logits_at=-1)[0] for x in (prompts.clean, prompts.corrupt)]
    clean, corrupt = (np.asarray(case.metric(x, prompts)) for x in logits)
    assert (clean > corrupt).mean() > 0.99
    if name not in ("xproportion", "pair_balance"):
        assert accuracy(logits[0], prompts).mean() > 0.99
        assert accuracy(logits[1], prompts).mean() < 0.01
    assert case.prompts(32, seed=3).hash() == prompts.hash() != case.prompts(32, seed=4).hash()


@pytest.mark.parametrize("name", ["shuffle_dyck", "induction"])
def test_pairs_are_different_and_as_many_as_asked_for(name):
    with pytest.raises(ValueError, match="n=64"):
        zoo.load(name).prompts(0)


def test_more_pairs_than_there_are():
    with pytest.raises(ValueError, match="pairs, not 100000"):
        zoo.load("shuffle_dyck").prompts(100_000)


def test_an_unknown_name():
    with pytest.raises(ValueError, match="xproportion"):
        zoo.load("elephant")


def test_a_file_that_is_not_the_one_on_its_card_is_refused(tmp_path):
    shutil.copytree(folder(), tmp_path / "zoo")
    file = tmp_path / "zoo" / "hist.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="make_zoo.py hist"):
        zoo.load("hist", tmp_path / "zoo")
    assert zoo.load("reverse", tmp_path / "zoo").model.config.sha256


def test_every_model_has_a_card():
    cards = json.loads((folder() / "cards.json").read_text())
    assert set(cards) == set(zoo.names())
    for card in cards.values():
        assert {"file", "sha256", "source", "recipe", "licence", "numbers"} <= set(card)
