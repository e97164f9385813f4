"""Reference circuits: counts of every kind of edge, and the published lists where they are."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxcirc.circuits._truth import TRUTHS, truth
from jaxcirc.circuits.formats import edge_name
from jaxcirc.taps import Node

HEADS = {"ioi": 26, "greater_than": 9, "docstring": 6}
KINDS = {
    "ioi/acdc": {
        "m->m": 66,
        "m->q": 189,
        "m->k": 189,
        "m->v": 189,
        "m->logits": 12,
        "head->m": 123,
        "head->q": 52,
        "head->k": 36,
        "head->v": 36,
        "head->logits": 13,
        "input->m": 12,
        "input->q": 9,
        "input->k": 18,
        "input->v": 18,
        "input->logits": 1,
    },
    "greater_than/acdc": {
        "m->m": 42,
        "m->q": 41,
        "m->k": 24,
        "m->v": 24,
        "m->logits": 4,
        "head->m": 27,
        "head->q": 18,
        "head->k": 18,
        "head->v": 18,
        "head->logits": 6,
        "input->m": 4,
        "input->q": 3,
        "input->k": 3,
        "input->v": 3,
    },
    "docstring/acdc": {
        "input->q": 2,
        "input->k": 2,
        "input->v": 4,
        "head->q": 4,
        "head->k": 6,
        "head->v": 4,
        "head->logits": 2,
    },
}
"""Edges by kind of source and reader, counted in the lists of ACDC's repository."""

SITES = {
    "embed": "input",
    "z": "head",
    "mlp_out": "m",
    "mlp_in": "m",
    "q_in": "q",
    "k_in": "k",
    "v_in": "v",
    "final_resid": "logits",
}


@pytest.mark.parametrize("name", KINDS)
def test_edges_of_every_kind(name):
    edges = truth(name).edges
    found = Counter(f"{SITES[a.site]}->{SITES[b.site]}" for a, b in edges.edges)
    assert found == KINDS[name]
    assert edges.n_edges == {"ioi/acdc": 963, "greater_than/acdc": 235, "docstring/acdc": 24}[name]


@pytest.mark.parametrize("name", TRUTHS)
def test_heads_are_those_of_the_edges(name):
    found = truth(name)
    heads = {head for group in found.heads.values() for head in group}
    assert found.name == name and found.source
    assert sum(map(len, found.heads.values())) == len(heads) == HEADS[name.split("/")[0]]
    assert found.head_mask.shape == (found.wiring.n_layers, found.wiring.n_heads)
    assert {Node("z", *map(int, at)) for at in np.argwhere(found.head_mask)} == heads
    assert {node for node in found.nodes if node.site == "z"} == heads
    if found.edges is not None:
        mlps = [node for node in found.nodes if node.site == "mlp_out"]
        assert len(mlps) == (0 if name == "docstring/acdc" else 12)


@pytest.mark.parametrize(
    "task, here, there", [("ioi", (9, 0), (11, 3)), ("docstring", (1, 2), (1, 0))]
)
def test_versions_differ_by_one_head(task, here, there):
    one, other = (set(truth(f"{task}/{version}").nodes) for version in ("acdc", "discrete_sae"))
    heads = {node for node in one if node.site == "z"}
    assert (heads - other, other - heads) == ({Node("z", *here)}, {Node("z", *there)})
    assert truth(f"{task}/discrete_sae").edges is None


def test_greater_than_has_the_same_heads_in_both_versions():
    masks = [truth(f"greater_than/{version}").head_mask for version in ("acdc", "discrete_sae")]
    np.testing.assert_array_equal(*masks)


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="unknown reference circuit 'ioi': use one of ioi/acdc, "):
        truth("ioi")


@pytest.mark.skipif(
    "JAXCIRC_GROUND_TRUTH" not in os.environ,
    reason="JAXCIRC_GROUND_TRUTH names no folder with canonical_edges.json",
)
@pytest.mark.parametrize(
    "name, key",
    [
        ("ioi/acdc", "ioi_acdc"),
        ("greater_than/acdc", "greaterthan_acdc"),
        ("docstring/acdc", "docstring_acdc"),
    ],
)
def test_edges_are_the_published_ones(name, key):
    file = Path(os.environ["JAXCIRC_GROUND_TRUTH"]) / "canonical_edges.json"
    published = {f"{a}->{b}" for a, b in json.loads(file.read_text())[key]["edges"]}
    assert {edge_name(*edge) for edge in truth(name).edges.edges} == published
