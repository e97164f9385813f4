"""Feature circuits drawn: the graph, the picture, the page, the study's figures."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxcirc import viz
from jaxcirc.experiments import Result
from jaxcirc.experiments.dictionaries import Example, Feature, FeaturePage, read_annotations
from jaxcirc.tasks import Interval
from jaxcirc.viz._feature_graph import MOST, feature_graph, short

NAMES = ("resid_post.0/7 at 2", "mlp_out.1/3 at 4", "mlp_out.1/error at 4", "resid_post.1/5 at 4")
EDGES = (
    ("resid_post.0/7 at 2", "mlp_out.1/3 at 4", 0.9),
    ("mlp_out.1/3 at 4", "resid_post.1/5 at 4", -0.4),
    ("resid_post.1/5 at 4", "metric", 0.2),
)


def node(name: str, importance: float, label: str = ""):
    place, _, rest = name.partition("/")
    row = {"section": "node", "node": name, "place": place, "pos": int(rest.split()[-1])}
    ends = {"importance": importance, "low": importance - 0.1, "high": importance + 0.1}
    return row | ends | {"token": " cats", "label": "error" if "error" in name else label}


def made(extra=()) -> Result:
    rows = [node(name, x, "plural") for name, x in zip(NAMES, (1, 0.5, -0.2, 0.1), strict=True)]
    rows += [
        {"section": "edge", "edge": f"{u} > {d}", "source": u, "reader": d, "importance": w}
        for u, d, w in EDGES
    ]
    kept = {"faithfulness": 0.4, "faithfulness low": 0.2, "faithfulness high": None}
    rows += [*extra, {"section": "edges kept", "kept": 2, **kept}]
    places = ["resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1"]
    facts = {"model": "toy", "prompts": 6, "places": places, "error_share": 0.25}
    numbers = {"faithfulness": Interval(0.7, 0.6, 0.8, 6, 3)}
    seconds = {"compile": 1.0, "run": 1.0, "total": 2.0}
    return Result("feature_circuit", "made", numbers, rows, {}, {}, facts, seconds, ["a note"])


def page() -> FeaturePage:
    example = Example(0, 1, 1, np.asarray([0.0, 2.0]))
    feature = Feature(3, 0.1, 2.0, (("Top activations", (example,)),), ((" are", 1.0),), (), (1, 2))
    words = {1: "the", 2: "<b>", 3: "cats"}
    return FeaturePage("mlp_out.1", np.asarray([[1, 2, 3]]), words, (feature,), {})


def data_of(path) -> dict:
    found = re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)
    assert found is not None
    return json.loads(found[1])


def test_places_are_rows_and_the_metric_is_on_top():
    graph = feature_graph(made())
    heights = {box.name: box.y for box in graph.boxes}
    order = [heights[name] for name in (*NAMES[:2], NAMES[3], "metric")]
    assert order == sorted(set(order)) and heights[NAMES[1]] == heights[NAMES[2]]
    assert list(graph.places) == ["resid_post.0", "mlp_out.1", "resid_post.1", "metric"]
    assert graph.strength.max() == 1 and len(feature_graph(made(), 2).source) == 2
    begin, end = graph.curve(0)[[0, -1]]
    assert begin[1] > heights[NAMES[0]] and end[1] < heights[NAMES[1]]
    assert [short(name) for name in NAMES] == ["7 · 2", "3 · 4", "ε · 4", "5 · 4"]
    assert graph.told == "a box is a feature · its position (2 “cats”, 4 “cats”)"
    alone = made()
    rows = [row for row in alone.table if row.get("pos") != 2 and row["section"] != "edge"]
    alone = feature_graph(dataclasses.replace(alone, table=rows))
    assert alone.told == "a box is a feature, all at position 4 “cats”"
    assert [box.words for box in alone.boxes] == ["3", "ε", "5", "metric"]


def test_a_place_with_many_nodes_takes_several_rows():
    many = [node(f"attn_out.1/{i} at 3", 0.1) for i in range(2 * MOST + 1)]
    own = [box for box in feature_graph(made(many)).boxes if box.place == "attn_out.1"]
    assert len({box.y for box in own}) == 3 and len({(box.x, box.y) for box in own}) == len(own)


def test_the_picture():
    figure = viz.feature_circuit_picture(made())
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"7 · 2", "ε · 4", "metric", "mlp_out.1", "plural"} <= words
    with pytest.raises(ValueError, match="feature_graph draws results of kind 'feature_circuit'"):
        viz.feature_circuit_picture(made().__class__("patch", "t", {}, [], {}, {}, {}, {}))


def test_the_page_holds_labels_and_contexts(tmp_path):
    path = viz.write_feature_circuit(made(), tmp_path / "circuit.html", {"mlp_out.1": page()})
    data = data_of(path)
    card = data["cards"][[name for name, *_ in data["parts"]].index("mlp_out.1/3 at 4")]
    assert card["note"] == "plural" and card["top"] == [" are"]
    assert card["groups"] == [["Top activations", [[["<b>", "cats"], [0.0, 2.0]]]]]
    assert data["curve"] == {
        "sizes": [2],
        "random": [],
        "value": [0.4],
        "low": [0.2],
        "high": [None],
    }
    assert [data["parts"][i][0] for i in data["source"]] == [u for u, _, _ in EDGES]
    assert "<b>" not in path.read_text().split('id="data"')[1].split("</script>")[0]


def test_figures_of_the_study(tmp_path):
    ends = {"faithfulness low": 0.1, "faithfulness high": 0.9}
    rows = [
        {"section": "curve", "model": "m", "task": "t", "kind": kind, "errors": errors}
        | {"nodes": n, "scalars": 2 * n, "faithfulness": n / 100, **ends}
        for kind, errors in (("features", "default"), ("features", "removed"), ("PCA", "default"))
        for n in (1, 10, 100)
    ]
    rows += [
        {"section": "layers", "model": "m", "task": "t", "place": place, "estimator": name}
        | {"r": 0.5, "gap, share": None}
        for place in ("resid_post.0", "mlp_out.1")
        for name in ("AtP", "IG")
    ]
    facts = {"model": "m"}
    result = Result("study_feature_circuits", "study", {}, rows, {}, {}, facts, {"total": 1.0})
    drawn = viz.write_figures(result, tmp_path)
    assert [path.name for path in drawn] == ["curves.png", "errors.png", "layers.png"]
    lines = viz.study_errors(result).axes[0].get_lines()
    assert {line.get_label() for line in lines} >= {"errors default", "errors removed"}


@pytest.mark.browser
def test_a_note_written_on_the_page_is_read_back(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    path = viz.write_feature_circuit(made(), tmp_path / "circuit.html", {"mlp_out.1": page()})
    script = """
keep(data.parts.findIndex(([name]) => name === "mlp_out.1/3 at 4"));
const box = document.querySelector("#card textarea");
const was = box.value;
box.value = "cats"; box.dispatchEvent(new Event("input"));
document.title = JSON.stringify([was, notes(), document.querySelectorAll("#card .example").length]);
"""
    path.write_text(f"{script}</script>".join(path.read_text().rsplit("</script>", 1)))
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*flags, path.as_uri()], capture_output=True, timeout=60, check=True)
    found = re.search("<title>(.*?)</title>", done.stdout.decode(), re.S)
    assert found is not None
    was, lines, examples = json.loads(found[1])
    assert was == "plural" and examples == 1
    (tmp_path / "annotations.jsonl").write_text(lines)
    read = {(n.place, n.feature): n.text for n in read_annotations(tmp_path / "annotations.jsonl")}
    assert read["mlp_out.1", 3] == "cats" and read["resid_post.0", 7] == "plural"
