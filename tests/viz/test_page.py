"""The page needs nothing but itself, shows every row, and escapes every text."""

import base64
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser

import pytest
from made import VERIFIED, discovered, patched

from jaxcirc import viz
from jaxcirc.experiments import load_result

DISCOVER = {"circuit", "heads", "faithfulness", "exact_against_estimate", "nodes"}


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything written of one `discover` result."""
    folder = tmp_path_factory.mktemp("run")
    viz.write(discovered(), folder)
    return folder


def text_of(result, folder) -> str:
    return viz.write_page(result, folder).read_text(encoding="utf-8")


def test_write_returns_every_file(tmp_path):
    paths = viz.write(patched("layer", "head"), tmp_path)
    names = {"result.json", "arrays.safetensors", "table.csv", "effects.png", "index.html"}
    assert {path.name for path in paths} == names == {path.name for path in tmp_path.iterdir()}


def test_figures_are_wide_pictures(folder):
    for name in DISCOVER:
        data = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG") and len(data) > 20_000
        assert width >= 900 and height >= 600
    assert struct.unpack(">I", (folder / "circuit.png").read_bytes()[16:20])[0] >= 1600


def test_page_asks_for_nothing(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    page = Page(text)
    assert not page.all("link") and not any("src" in script for script in page.all("script"))
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert len(page.all("img")) == len(DISCOVER) - 1


def test_figures_inside_are_svg(folder):
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    for image in page.all("img"):
        assert b"<svg" in base64.b64decode(image["src"].partition(",")[2])[:500]


def test_a_row_for_every_node(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.partition("<tbody>")[2].partition("</tbody>")[0].count("<tr>") == VERIFIED
    assert "3.41" in text and "[3.10, 3.72]" in text and "0f" * 32 in text


@pytest.mark.parametrize("place", ["lens", "facts", "notes", "task"])
def test_texts_are_escaped(tmp_path, place):
    evil = '</script><script>alert("x")</script>'
    if place == "lens":
        result = discovered(lens=evil)
    elif place == "facts":
        result = patched("layer", "pos", columns=[evil] * 15, model=evil)
    else:
        result = patched("layer")
        object.__setattr__(result, place, [evil] if place == "notes" else evil)
    text = text_of(result, tmp_path)
    assert "alert(" in text and "<script>alert" not in text
    assert len(Page(text).all("script")) == 1


@pytest.mark.slow
def test_pages_of_the_same_result_are_equal(tmp_path):
    first, second = (text_of(discovered(), tmp_path / name) for name in "ab")
    assert first == second


def test_page_of_a_loaded_result(folder, tmp_path):
    assert text_of(load_result(folder), tmp_path) == (folder / "index.html").read_text("utf-8")


def test_long_tables_are_cut_and_said(tmp_path):
    text = text_of(patched("layer", "pos", "head"), tmp_path)
    assert text.count("<tr>") == 1500 + 1
    assert f"{30 * 15 * 9 - 1500} rows of less importance are in table.csv" in text


def test_other_kinds_get_a_page_without_figures(tmp_path):
    result = patched("layer")
    object.__setattr__(result, "kind", "lens")
    names = {path.name for path in viz.write(result, tmp_path)}
    assert names == {"result.json", "arrays.safetensors", "table.csv", "index.html"}


@pytest.mark.browser
def test_table_sorts_and_filters(folder, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    page = folder / "index.html"
    clicks = 'document.querySelectorAll("th")[5].click();'
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text("utf-8").replace("</script>", clicks + "</script>"), "utf-8")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]

    def dom(address: str) -> str:
        done = subprocess.run([*flags, address], capture_output=True, timeout=60, check=True)
        return done.stdout.decode()

    count = sum(row["node"].startswith("mlp") for row in discovered().table)
    assert f">{count} of {VERIFIED} rows<" in dom(f"{page.as_uri()}#mlp")
    cells = re.findall(r'data-value="([^"]+)"', dom(clicked.as_uri()).partition("<tbody>")[2])
    values = [row["exact"] for row in discovered().table]
    shown = [float(cell) for cell in cells if float(cell) in values]
    assert shown == sorted(values)
