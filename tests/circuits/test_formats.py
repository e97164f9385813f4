"""Circuits written and read back, in every shape of model; broken files name their fix."""

import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest

from jaxcirc.circuits._graph import Graph
from jaxcirc.circuits._truth import truth
from jaxcirc.circuits.formats import (
    edge_name,
    grouped,
    name_of,
    parse_edge,
    parse_name,
    read_graph,
    ungrouped,
    write_dot,
    write_graph,
    write_neuronpedia,
)
from jaxcirc.taps import Node, Wiring

WIRINGS = {
    "plain": Wiring(3, 4, 4),
    "grouped": Wiring(3, 6, 2),
    "one_kv": Wiring(2, 4, 1, parallel=True),
    "attention": Wiring(3, 4, 4, mlp=False),
}
each = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS.keys())


def made(wiring: Wiring, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    return Graph(wiring, rng.random(wiring.n_edges) < 0.3, rng.normal(size=wiring.n_edges))


def changed(path: Path, change) -> Path:
    """The file with its document changed."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def written(tmp_path) -> Path:
    return write_graph(made(WIRINGS["plain"]), tmp_path / "circuit.json", d_model=16)


@each
def test_names_are_read_back(wiring):
    group = wiring.n_heads // wiring.n_kv_heads
    for node in wiring.sources:
        assert parse_name(name_of(node), wiring) == node
    for node in wiring.readers:
        assert parse_name(name_of(node, group), wiring, reads=True) == node
    names = {edge_name(*wiring.edge(i), group): i for i in range(wiring.n_edges)}
    assert len(names) == wiring.n_edges
    for name, i in names.items():
        assert parse_edge(name, wiring) == wiring.edge(i)


def test_every_query_head_of_a_group_names_its_reader():
    wiring = WIRINGS["grouped"]
    for head in range(6):
        assert parse_name(f"a1.h{head}<k>", wiring) == Node("k_in", 1, head // 3)
        assert parse_name(f"a1.h{head}<q>", wiring) == Node("q_in", 1, head)


def test_split_inputs_have_names():
    wiring = Wiring(2, 2, 2, split=True)
    assert [name_of(node) for node in wiring.sources[:2]] == ["input", "pos"]
    assert parse_name("pos", wiring) == Node("pos_embed", 0)


@pytest.mark.parametrize(
    "name", ["a3.h0", "a0.h4", "m3", "pos", "a0.h00", "a0.h0<o>", "m", "A0.h0", "m1 ", ""]
)
def test_unknown_names_list_the_names(name):
    message = (
        f"no node {name!r} in a model of 3 layers with 4 heads each: its names are input, a0.h0 to"
        " a2.h3 (a0.h0<q>, <k>, <v> as readers), m0 to m2, logits"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_name(name, WIRINGS["plain"])


def test_names_that_are_no_edge():
    wiring = WIRINGS["plain"]
    with pytest.raises(ValueError, match="'a0.h0' names no edge: 'a9.h6->a10.h0<q>'"):
        parse_edge("a0.h0", wiring)
    for name in ("m1->m1", "a0.h0->a1.h0", "logits->m1", "m0->a0.h0<q>"):
        with pytest.raises(ValueError, match="the source must write before the reader"):
            parse_edge(name, wiring)
    with pytest.raises(ValueError, match="no node 'm0' in a model of 3 layers"):
        parse_name("m0", WIRINGS["attention"])
    with pytest.raises(ValueError, match="is no end of an edge: the sites are z, q_in"):
        name_of(Node("resid_post", 1))


@each
def test_groups_come_apart_and_together(wiring):
    graph = made(wiring)
    full = ungrouped(graph)
    assert full.wiring.n_kv_heads == full.wiring.n_heads
    assert full.importance.sum() == pytest.approx(graph.importance.sum())
    back = grouped(full, wiring.n_kv_heads)
    assert back.wiring == wiring
    np.testing.assert_array_equal(back.kept, graph.kept)
    np.testing.assert_allclose(back.importance, graph.importance, rtol=1e-14)
    for number in range(full.wiring.n_edges):
        source, reader = full.wiring.edge(number)
        shared = reader.site in ("k_in", "v_in")
        group = wiring.n_heads // wiring.n_kv_heads if shared else 1
        index = None if reader.index is None else reader.index // group
        own = wiring.find(source, Node(reader.site, reader.layer, index))
        assert full.importance[number] == graph.importance[own] / group
        assert full.kept[number] == graph.kept[own]


@each
def test_graphs_are_read_back(wiring, tmp_path):
    graph = made(wiring)
    graph.importance[np.flatnonzero(~graph.kept)[:5]] = np.nan
    path = write_graph(graph, tmp_path / "new" / "circuit.json", d_model=16)
    found = read_graph(path, helpful="positive")
    assert found.wiring == wiring
    np.testing.assert_array_equal(found.kept, graph.kept)
    np.testing.assert_allclose(found.importance, graph.importance, rtol=1e-14)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["circuit.json"]


@each
def test_files_hold_what_eap_ig_reads(wiring, tmp_path):
    graph = made(wiring)
    document = json.loads(write_graph(graph, tmp_path / "c.json", d_model=16).read_text())
    full = Wiring(wiring.n_layers, wiring.n_heads, wiring.n_heads, wiring.mlp, wiring.parallel)
    assert len(document["edges"]) == full.n_edges
    assert set(document["nodes"]) == {"logits", *map(name_of, full.sources)}
    assert document["cfg"] == {
        "n_layers": wiring.n_layers,
        "n_heads": wiring.n_heads,
        "parallel_attn_mlp": wiring.parallel,
        "d_model": 16,
        "n_kv_heads": wiring.n_kv_heads,
        "helpful": "positive",
        "unscored": 0,
    }
    kept = [edge for edge, entry in document["edges"].items() if entry["in_graph"]]
    ends = {re.sub("<.>", "", end) for edge in kept for end in edge.split("->")}
    assert {name for name, entry in document["nodes"].items() if entry["in_graph"]} == ends


def test_unscored_edges_are_not_written(tmp_path):
    graph = made(WIRINGS["grouped"])
    lost = graph.wiring.find(Node("z", 0, 1), Node("k_in", 1, 1))
    graph.kept[lost], graph.importance[lost] = False, np.nan
    path = write_graph(graph, tmp_path / "c.json", d_model=16)
    document = json.loads(path.read_text())
    assert "NaN" not in path.read_text() and document["cfg"]["unscored"] == 3
    assert "a0.h1->a1.h4<k>" not in document["edges"] and "a0.h1->a1.h0<k>" in document["edges"]
    assert np.flatnonzero(np.isnan(read_graph(path, helpful="positive").importance)) == [lost]


def test_a_circuit_without_importance_is_written_as_ones(tmp_path):
    graph = truth("docstring/acdc").edges
    found = read_graph(write_graph(graph, tmp_path / "c.json", d_model=512), helpful="positive")
    np.testing.assert_array_equal(found.kept, graph.kept)
    np.testing.assert_array_equal(found.importance, graph.kept)


def test_the_sign_is_what_the_caller_says(written):
    graph = made(WIRINGS["plain"])
    with pytest.raises(ValueError, match=r"says helpful .* positive: .*helpful='positive'\)"):
        read_graph(written, helpful="negative")
    changed(written, lambda d: d["cfg"].pop("helpful"))
    np.testing.assert_array_equal(
        read_graph(written, helpful="negative").importance, -graph.importance
    )


def test_a_file_without_groups_is_summed(tmp_path):
    graph = made(Wiring(3, 6, 6))
    path = write_graph(graph, tmp_path / "c.json", d_model=16)
    found = read_graph(path, helpful="positive", n_kv_heads=2)
    assert found.wiring == Wiring(3, 6, 2)
    number = found.wiring.find(Node("embed", 0), Node("v_in", 2, 1))
    three = [graph.wiring.find(Node("embed", 0), Node("v_in", 2, head)) for head in (3, 4, 5)]
    assert found.importance[number] == pytest.approx(graph.importance[three].sum())
    assert found.kept[number] == graph.kept[three].any()
    with pytest.raises(ValueError, match="n_kv_heads=4 does not divide 6 heads"):
        read_graph(path, helpful="positive", n_kv_heads=4)


def rename(document):
    document["edges"]["a9.h9->logits"] = document["edges"].pop("a2.h3->logits")


BROKEN = {
    "unknown edge 'a9.h9->logits' (1 such); a name here is like": rename,
    "unknown node 'm9' (1 such)": lambda d: d["nodes"].update(m9={"in_graph": True}),
    "edges where its cfg asks for": lambda d: d["edges"].pop("m0->logits"),
    "nodes where its cfg asks for": lambda d: d["nodes"].pop("a0.h0"),
    'edge \'m0->logits\' needs {"score": 0.1, "in_graph": true}': lambda d: d["edges"].update(
        {"m0->logits": {"score": 0.1}}
    ),
    "edge 'm0->m1' needs": lambda d: d["edges"].update({"m0->m1": {"score": None}}),
    "is no graph: it needs": lambda d: d.pop("nodes"),
    'its cfg needs {"n_layers": 12': lambda d: d["cfg"].pop("n_heads"),
    'its cfg needs {"n_layers"': lambda d: d["cfg"].update(n_layers=-1),
    "its cfg needs": lambda d: d["cfg"].update(unscored="no"),
    "unknown node 'a2.h0' (5 such)": lambda d: d["cfg"].update(n_layers=2),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_files_name_their_fix(message, written):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_graph(changed(written, BROKEN[message]), helpful="positive")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_cut_off(share, written):
    text = written.read_text()
    written.write_text(text[: int(share * len(text))])
    with pytest.raises(ValueError, match="is not whole JSON .*: write or download it again"):
        read_graph(written, helpful="positive")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "none.json", helpful="positive")


def test_what_cannot_be_written_leaves_the_old_file(written):
    before, graph = written.read_text(), made(WIRINGS["plain"])
    graph.importance[0] = np.inf
    with pytest.raises(ValueError, match="JSON has no infinite scores: write ranks"):
        write_graph(graph, written, d_model=16)
    graph.kept[0], graph.importance[0] = True, np.nan
    message = re.escape("1 kept edges have no finite score, the first 'input->a0.h0<q>'")
    for write in (
        lambda: write_graph(graph, written, d_model=16),
        lambda: write_dot(graph, written),
        lambda: write_neuronpedia(graph, written, ["a"], scan="toy"),
    ):
        with pytest.raises(ValueError, match=message):
            write()
    with pytest.raises(ValueError, match="the format has one input"):
        write_graph(made(Wiring(2, 2, 2, split=True)), written, d_model=16)
    assert written.read_text() == before and len(list(written.parent.iterdir())) == 1


@each
def test_dot_has_an_arrow_for_every_edge(wiring, tmp_path):
    graph = made(wiring)
    full, text = ungrouped(graph), write_dot(graph, tmp_path / "c.dot").read_text()
    arrows = re.findall(r'"(.*?)" -> "(.*?)" \[label="(.?)", color="(.*?)", penwidth=(.*?)\]', text)
    assert len(arrows) == full.n_edges
    for arrow, number in zip(arrows, np.flatnonzero(full.kept), strict=True):
        source, reader, slot, colour, width = arrow
        assert edge_name(*full.wiring.edge(int(number))) == (
            f"{source}->{reader}" + (f"<{slot}>" if slot else "")
        )
        assert (colour == "#3b6fb6") == (full.importance[number] >= 0)
        assert 0.5 <= float(width) <= 4
    assert text.startswith("digraph circuit {") and text.endswith("}\n")
    assert write_dot(Graph(wiring, np.zeros(wiring.n_edges, bool)), tmp_path / "empty").exists()


TOKENS = ["<s>", " John", " gave", " it", " to"]
FIELDS = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")


@each
def test_neuronpedia_graphs_keep_nodes_apart(wiring, tmp_path):
    graph = Graph(wiring, np.ones(wiring.n_edges, bool), made(wiring).importance)
    at = {Node("embed", 0): 0, Node("z", 1, 1): 2}
    path = write_neuronpedia(graph, tmp_path / "c.json", TOKENS, scan="toy", positions=at)
    document = json.loads(path.read_text())
    nodes, links = document["nodes"], document["links"]
    ids = [node["node_id"] for node in nodes]
    assert len(set(ids)) == len(ids) == wiring.n_sources + 1
    assert all(set(node) == set(FIELDS) for node in nodes)
    assert all(len(name.split("_")) == 4 for name in ids)
    assert {"E_embed_0_0", "1_head_1_2", "1_head_0_4", f"{wiring.n_layers + 1}_logits_0_4"} < {*ids}
    assert all(node["node_id"].endswith(f"_{node['ctx_idx']}") for node in nodes)
    assert {end for link in links for end in (link["source"], link["target"])} == set(ids)
    assert len({(link["source"], link["target"]) for link in links}) == len(links)
    assert sum(link["weight"] for link in links) == pytest.approx(graph.importance.sum())
    metadata = document["metadata"]
    assert metadata["prompt"] == "<s> John gave it to" and metadata["prompt_tokens"] == TOKENS
    assert (metadata["scan"], metadata["slug"]) == ("toy", "circuit")


def test_positions_lie_in_the_prompt(tmp_path):
    graph = made(WIRINGS["plain"])
    with pytest.raises(ValueError, match="a1.h1 at position 5 of 5 tokens: positions are 0 to 4"):
        write_neuronpedia(
            graph, tmp_path / "c.json", TOKENS, scan="toy", positions={Node("z", 1, 1): 5}
        )


@pytest.mark.skipif(
    "JAXCIRC_GROUND_TRUTH" not in os.environ,
    reason="JAXCIRC_GROUND_TRUTH names no folder with ioi-eap-ig.json",
)
def test_the_file_of_mib():
    graph = read_graph(
        Path(os.environ["JAXCIRC_GROUND_TRUTH"]) / "ioi-eap-ig.json", helpful="negative"
    )
    assert graph.wiring == Wiring(12, 12, 12) and graph.n_edges == 756
    best = graph.wiring.edge(int(graph.importance.argmax()))
    assert edge_name(*best) == "a9.h9->logits" and graph.importance.max() == pytest.approx(
        0.2815, abs=1e-4
    )


@pytest.fixture
def untyped(request):
    """For arguments of a wrong type, which `--beartype` stops before our own message can."""
    if request.config.getoption("--beartype"):
        pytest.skip("the type checker refuses this first")


def test_other_words(untyped, written):
    with pytest.raises(ValueError, match='helpful=\'yes\': use "negative" or "positive"'):
        read_graph(written, helpful="yes")
