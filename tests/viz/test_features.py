"""The page of features shows what was found, finds what is typed, and asks for nothing."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from made_features import WORDS, features_found

from jaxcirc import viz
from jaxcirc.experiments.dictionaries import Annotation, read_annotations


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page():
    return features_found()


@pytest.fixture(scope="module")
def text(page, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("features")
    return viz.write_features(page, folder / "new" / "features.html").read_text(encoding="utf-8")


def test_page_asks_for_nothing(text):
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", text)
    for tag, attributes in Page(text).tags:
        assert tag in ("link", "meta") or not {"src", "href"} & set(attributes)
    assert "default-src 'none'" in text


def test_page_holds_the_features(page, text):
    found = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert data["place"] == "resid_post.12" and data["words"] == list(WORDS)
    assert data["rows"] == page.tokens.tolist()
    for feature, held in zip(page.features, data["features"], strict=True):
        assert held["i"] == feature.index and held["n"] == feature.note
        assert held["m"] == pytest.approx(feature.largest, rel=5e-3)
        for (name, group), (own, examples) in zip(feature.quantiles, held["q"], strict=True):
            assert name == own
            for example, (row, start, peak, values) in zip(group, examples, strict=True):
                assert (row, start, peak) == (example.context, example.start, example.peak)
                np.testing.assert_allclose(values, example.values, rtol=6e-3)


def test_texts_are_escaped(tmp_path):
    evil = '</script><script>alert("x")</script>'
    page = features_found(3, note=evil, model=evil)
    text = viz.write_features(page, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "alert(" in text and "<script>alert" not in text
    assert [tag for tag, _ in Page(text).tags].count("script") == 2


def test_no_features_make_no_page(tmp_path):
    with pytest.raises(ValueError, match="a page without features"):
        viz.write_features(features_found(0), tmp_path / "a.html")


BROWSER = """"use strict";
const element = (text = "") => new Proxy(function () {}, {
  get: (own, key) => key === "textContent" || key === "value" ? text : own[key] ?? element(),
  set: () => true, apply: () => element() });
const document = { querySelector: () => element(process.argv[2]), getElementById: () => element(),
  createElement: () => element(), createElementNS: () => element() };
const window = element(), location = { hash: "" };
"""
"""What the page asks of a browser; nothing is drawn."""

NOTED = """
console.log(lines());
notes.set(17, 'a "new" note'); notes.set(2, "edited"); console.log(lines());
"""


def test_notes_are_saved_with_who_said_them(text, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: apt-get install nodejs")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    program = tmp_path / "page.js"
    program.write_text(BROWSER + script.replace('"use strict";', "") + NOTED, encoding="utf-8")
    done = subprocess.run([node, program, data], capture_output=True, timeout=60, check=True)
    found = [json.loads(line) for line in done.stdout.decode().splitlines() if line]
    (tmp_path / "notes.jsonl").write_text(json.dumps(found[0]), encoding="utf-8")
    (kept,) = read_annotations(tmp_path / "notes.jsonl")
    about = "smollm2-135m", "resid_post.12"
    assert kept == Annotation(2, "days of the week", *about, "n-gram rules", 0.9)
    assert [note["text"] for note in found[1:]] == ["edited", 'a "new" note']
    assert not any("by" in note for note in found[1:])


@pytest.fixture
def browse(text, tmp_path):
    """What a script at the end of the page puts into its title, by a real browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]

    def after(script: str, at: str = ""):
        page = tmp_path / "scripted.html"
        page.write_text(f"{script}</script>".join(text.rsplit("</script>", 1)), encoding="utf-8")
        done = subprocess.run(
            [*flags, page.as_uri() + at], capture_output=True, timeout=60, check=True
        )
        found = re.search("<title>(.*?)</title>", done.stdout.decode(), re.S)
        assert found is not None
        return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">"))

    return after


USE = """
const told = [], rows = () => [...document.querySelectorAll(".feature")];
const numbers = () => rows().map((row) => +row.dataset.feature);
const type = (words) => { find.value = words; find.dispatchEvent(new Event("input")); };
addEventListener("securitypolicyviolation", () => told.push("blocked"));
told.push([numbers().length, numbers()[0], numbers()[1], $("count").textContent, more.textContent]);
extend(); told.push(numbers().length);
type("days week"); told.push([numbers(), document.querySelector(".said").textContent]);
type("17"); told.push(numbers()[0]);
document.querySelector(".head").click();
told.push([...document.querySelectorAll(".body h3")].map((head) => head.textContent));
told.push(document.querySelectorAll(".body .example").length);
const note = document.querySelector("textarea");
note.value = 'a "new" note'; note.dispatchEvent(new Event("input"));
told.push(lines());
type(""); order.value = "m"; order.dispatchEvent(new Event("change"));
told.push(numbers().slice(0, 3));
dead.checked = true; dead.dispatchEvent(new Event("change")); told.push(state.found.length);
told.push(performance.getEntriesByType("resource").length);
document.title = JSON.stringify(told);
"""


@pytest.mark.browser
def test_the_page_is_searched_sorted_opened_and_noted(browse, page):
    first, longer, words, exact, heads, examples, notes, strongest, every, asked = browse(USE)
    assert first == [40, 0, 2, "119 of 120 features", "79 more below"]
    assert longer == 80
    assert 2 in words[0] and exact == 17
    assert heads == [
        "Raises the logits of",
        "Lowers the logits of",
        "Top activations",
        "Quantile 50–100 %",
    ]
    assert examples == 5
    records = [json.loads(line) for line in notes.splitlines()]
    assert [record["feature"] for record in records] == [2, 17]
    assert records[0]["by"] == "n-gram rules" and "by" not in records[1]
    assert records[1]["text"] == 'a "new" note' and records[0]["place"] == "resid_post.12"
    order = np.argsort([-feature.largest for feature in page.features])[:3]
    assert strongest == order.tolist()
    assert every == 120 and asked == 0


@pytest.mark.browser
def test_the_address_opens_a_feature(browse):
    script = """
document.title = JSON.stringify([document.querySelectorAll(".body").length,
  document.querySelector(".feature").dataset.feature,
  document.querySelector(".body .token").textContent.length > 0]);
"""
    assert browse(script, "#30") == [1, "30", True]
