"""The page of clusters shows samples, nodes and measures, finds what is typed, asks for nothing."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxcirc import viz
from jaxcirc.experiments.clusters import Cluster, ClusterPage

WORDS = {0: "", 3: " Monday", 4: " and", 5: " Tuesday", 6: " one", 7: " two"}
EVIL = '</script><script>alert("x")</script>'


def made() -> ClusterPage:
    """Two clusters: days, and numbers, the second one of a single next token."""
    tokens = np.asarray([[0, 3, 4], [3, 4, 3], [0, 6, 4], [6, 4, 6]])
    nodes = (("resid_post.12/17", 0.5), ("mlp_out.12/error", -0.25))
    common = {"faithfulness, 20 nodes": 0.25, "faithfulness, 100 nodes": float("nan")}
    first = Cluster(0, 9, (0, 1), 1, nodes, common | {"trivial": 0.0})
    second = Cluster(1, 4, (2, 3), 1, nodes[1:], common | {"trivial": 1.0})
    return ClusterPage(
        WORDS,
        tokens,
        tokens > 0,
        np.asarray([5, 5, 7, 7]),
        (first, second),
        {"resid_post.12/17": f"days {EVIL}"},
        {"resid_post.12/17": ((0, 1, 2.5),), "mlp_out.12/error": ()},
        {"model": "toy"},
        ("a note",),
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clusters")
    return viz.write_clusters(made(), folder / "new" / "clusters.html").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_escapes_texts(text):
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", text)
    assert "default-src 'none'" in text and "<script>alert" not in text


def test_the_page_holds_what_was_found(text):
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    said = ["".join(data["words"][token] for token in row) for row in data["rows"]]
    assert said == [" Monday and", " Monday and Monday", " one and", " one and one"]
    assert [data["words"][token] for token in data["answers"]] == [" Tuesday"] * 2 + [" two"] * 2
    first, second = data["clusters"]
    assert first["m"] == [0.25, None, 0] and first["n"][0] == ["resid_post.12/17", 0.5]
    assert (second["s"], second["r"], second["h"]) == (4, [2, 3], 1)
    row, at, value = data["peaks"]["resid_post.12/17"][0]  # padding is gone
    assert data["words"][data["rows"][row][at]] == " Monday" and value == 2.5
    assert list(data["peaks"]) == ["resid_post.12/17"]


USE = """
const told = [], all = (name) => [...document.querySelectorAll(name)];
const rows = () => all(".cluster").map((row) => +row.dataset.cluster);
const type = (words) => { find.value = words; find.dispatchEvent(new Event("input")); };
const pick = (box, value) => { box.value = value; box.dispatchEvent(new Event("change")); };
told.push(rows(), $("count").textContent);
type("days monday"); told.push(rows());
document.querySelector(".head").click();
told.push(all(".example").length, all(".token.at")[0].textContent);
told.push(all("mark").map((mark) => mark.textContent));
type(""); pick(order, "size"); told.push(rows());
rise.checked = true; pick(rise, "on"); told.push(rows());
hide.checked = true; pick(hide, "on"); told.push(rows());
document.title = JSON.stringify(told);
"""


@pytest.mark.browser
def test_the_page_is_searched_sorted_and_opened(text, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    page = tmp_path / "scripted.html"
    page.write_text(f"{USE}</script>".join(text.rsplit("</script>", 1)), encoding="utf-8")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*flags, page.as_uri()], capture_output=True, timeout=120, check=True)
    told = json.loads(re.search("<title>(.*?)</title>", done.stdout.decode(), re.S)[1])
    days = [" Tuesday"] * 3  # in the head, and where it is opened
    assert told == [[0, 1], "2 of 2 clusters", [0], 2, " Monday", days, [0, 1], [1, 0], [0]]
