"""The picture of an edge circuit says what the result says; its page needs nothing but itself."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from made_edges import SIZES, edges_found
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
from matplotlib.text import Text

from jaxcirc import viz
from jaxcirc.taps import Wiring
from jaxcirc.viz import style
from jaxcirc.viz._layered import layered
from jaxcirc.viz._places import places

SMALL = Wiring(3, 4, 2)
WIRINGS = {
    "plain": Wiring(4, 3, 3),
    "grouped": SMALL,
    "parallel": Wiring(3, 2, 2, parallel=True),
    "attention only": Wiring(2, 4, 4, mlp=False),
    "split": Wiring(2, 3, 3, split=True),
}


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def text_of(result, folder) -> str:
    return viz.write_circuit(result, folder / "circuit.html").read_text(encoding="utf-8")


def data_of(result, folder) -> dict:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', text_of(result, folder), re.S
    )
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def result():
    """A result with more edges than a page shows."""
    return edges_found()


def test_page_asks_for_nothing(result, tmp_path):
    text = text_of(result, tmp_path)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|import\(", text)
    for tag, attributes in Page(text).tags:
        assert tag in ("link", "meta") or not {"src", "href"} & set(attributes)
    assert [a["href"] for tag, a in Page(text).tags if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in text


def test_page_holds_the_result(result, tmp_path):
    data, wiring = data_of(result, tmp_path), Wiring(12, 12, 12)
    order = result.arrays["order"][:1000]
    assert data["edge"] == order.tolist()
    held = np.asarray(data["importance"], np.float32)
    assert (held == result.arrays["importance"][order]).all()
    assert data["curve"]["sizes"] == list(SIZES)
    for part in ("value", "low", "high"):
        held = np.asarray(data["curve"][part], np.float32)
        assert (held == result.arrays[f"faithfulness_{part}"]).all()
    names = {"embed": "input", "final_resid": "logits", "mlp_out": "mlp", "mlp_in": "mlp"}
    slots = {"q_in": "query", "k_in": "key", "v_in": "value"}
    for line in range(0, 1000, 37):
        source, reader = wiring.edge(data["edge"][line])
        found = [data["parts"][data[end][line]][0] for end in ("source", "reader")]
        for name, node in zip(found, (source, reader), strict=True):
            place = f"{node.layer}.{node.index}" if node.index is not None else f"mlp {node.layer}"
            assert name == (place if names.get(node.site, "mlp") == "mlp" else names[node.site])
        assert data["slot"][line] == slots.get(reader.site, "")


def test_stages_place_every_line_they_show(result, tmp_path):
    stages = data_of(result, tmp_path)["stages"]
    assert [stage["edges"] for stage in stages] == [30, 100, 300, 1000]
    for stage in stages:
        assert len(stage["paths"]) == stage["edges"]
        assert len(stage["part"]) == len(stage["xy"]) == len(set(map(tuple, stage["xy"])))


def test_colours_are_those_of_every_figure():
    sheet = style.asset("page.css") + style.asset("circuit.css")
    assert f"--helps: {style.HELPS}" in sheet and f"--opposes: {style.OPPOSES}" in sheet
    assert ".line { stroke: var(--helps)" in sheet
    assert ".line.opposes { stroke: var(--opposes)" in sheet


def test_blue_lines_help(result):
    drawn = layered(result, 60)
    lines = viz.edge_circuit(result).findobj(PathPatch)
    assert len(lines) == 60
    for line, value in zip(lines, drawn.importance[::-1].tolist(), strict=True):
        assert to_hex(line.get_edgecolor()) == (style.HELPS if value > 0 else style.OPPOSES)
    widths = [line.get_linewidth() for line in lines[::-1]]
    assert (np.argsort(widths) == np.argsort(np.abs(drawn.importance))).all()


def test_figure_names_its_nodes(result):
    words = {text.get_text() for text in viz.edge_circuit(result, edges=20).findobj(Text)}
    assert {part.name for part in layered(result, 20).parts} <= words
    assert "the best 20 of 32,491 edges by eap-ig" in words


def test_names_stay_in_their_boxes(result):
    figure = viz.edge_circuit(result)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_zorder() == 4]
    assert len(boxes) == len(layered(result, 60).parts)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("name", WIRINGS)
@pytest.mark.parametrize("edges", [0, 1, 2, 25, 10_000])
def test_every_line_runs_upwards(name, edges):
    wiring = WIRINGS[name]
    drawn = layered(edges_found(wiring), edges)
    found = places(drawn)
    assert len(found.curves) == min(edges, wiring.n_edges)
    assert drawn.parts[0].kind == "input" and drawn.parts[-1].kind == "logits"
    for i, curve in enumerate(found.curves):
        assert (np.diff(curve[:, 1]) >= -1e-9).all()
        assert found.y[drawn.source[i]] < curve[0, 1] < curve[-1, 1] < found.y[drawn.reader[i]]
    for y in set(found.y.tolist()):
        assert (np.diff(np.sort(found.x[found.y == y])) > 1 - 1e-9).all()


def test_shared_keys_are_parts_of_their_own():
    drawn = layered(edges_found(SMALL), SMALL.n_edges)
    names = [part.name for part in drawn.parts]
    assert {"kv 1.0", "kv 1.1", "1.0", "1.3", "mlp 2"} <= set(names)
    linked = {(names[shared], names[head]) for shared, head in drawn.links}
    assert {("kv 1.0", "1.1"), ("kv 1.1", "1.2")} <= linked and len(linked) == 3 * 4
    for line, slot in enumerate(drawn.slot):
        assert (drawn.parts[drawn.reader[line]].kind == "kv") == (slot in ("key", "value"))


@pytest.mark.parametrize(("edges", "sizes"), [(0, ()), (1, (1,)), (7, (5, 500))])
def test_small_results(tmp_path, edges, sizes):
    result = edges_found(SMALL, sizes=sizes, edges=edges)
    data = data_of(result, tmp_path)
    assert len(data["edge"]) == edges == data["start"] == data["stages"][-1]["edges"]
    assert data["curve"]["sizes"] == list(sizes)
    assert {path.name for path in viz.write(result, tmp_path)} >= {"edges.png", "circuit.html"}


def test_values_that_are_not_finite(tmp_path):
    result = edges_found(SMALL)
    result.arrays["faithfulness_low"][0] = np.nan
    assert data_of(result, tmp_path)["curve"]["low"][0] is None


def test_names_are_escaped(tmp_path):
    evil = '</script><script>alert("x")</script>'
    result = edges_found(SMALL, model=evil, method=evil)
    object.__setattr__(result, "task", evil)
    text = text_of(result, tmp_path)
    assert "alert(" in text and "<script>alert" not in text
    assert [tag for tag, _ in Page(text).tags].count("script") == 2


def test_write_returns_every_file(result, tmp_path):
    names = {path.name for path in viz.write(result, tmp_path)}
    files = {"result.json", "arrays.safetensors", "table.csv", "edges.png", "index.html"}
    assert names == files | {"circuit.html"} == {path.name for path in tmp_path.iterdir()}
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="circuit.html"' in text and "faithfulness of 500 edges" in text


def test_pages_of_the_same_result_are_equal(tmp_path):
    first, second = (text_of(edges_found(), tmp_path / name) for name in "ab")
    assert first == second


def test_other_wirings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the facts make"):
        viz.write_circuit(edges_found(SMALL, n_layers=5), tmp_path / "circuit.html")
    result = edges_found(SMALL)
    object.__setattr__(result, "kind", "discover")
    with pytest.raises(ValueError, match="discover_picture"):
        viz.edge_circuit(result)


@pytest.fixture
def browse(result, tmp_path):
    """The page as it stands after a script, by a real browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    text = text_of(result, tmp_path)

    def after(script: str, at: str = "") -> str:
        page = tmp_path / "scripted.html"
        page.write_text(f"{script}</script>".join(text.rsplit("</script>", 1)), encoding="utf-8")
        done = subprocess.run(
            [*flags, page.as_uri() + at], capture_output=True, timeout=60, check=True
        )
        return done.stdout.decode()

    return after


KEYS = """
const seen = [];
const note = () => seen.push([document.querySelectorAll(".line:not(.off)").length,
  document.querySelectorAll(".part:not(.off)").length, $("said").textContent]);
const press = (key, shiftKey) =>
  window.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
note();
press("ArrowRight", false); note();
press("ArrowRight", true); note();
press("Home", false); note();
slider.value = 1000; slider.dispatchEvent(new Event("input")); note();
document.title = JSON.stringify(seen);
"""


def title_of(dom: str):
    found = re.search("<title>(.*?)</title>", dom)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.browser
def test_slider_and_keys_change_the_edges(browse, result):
    seen = title_of(browse(KEYS))
    assert [lines for lines, _, _ in seen] == [60, 61, 100, 1, 1000]
    value, low, high = (result.arrays[f"faithfulness_{end}"][3] for end in ("value", "low", "high"))
    words = f"faithfulness {value:.2f} [{low:.2f}, {high:.2f}] (measured at 50)"
    drawn = layered(result, 60)
    assert seen[0][1] == len({*drawn.source, *drawn.reader})
    assert seen[0][2] == f"60 edges, {len(drawn.parts) - 2} nodes, {words}"
    assert seen[3][2].startswith("1 edge, ") and seen[4][2].startswith("1000 edges, ")


HOVER = """
const seen = [], part = data.source[0], at = { clientX: 400, clientY: 400, bubbles: true };
const list = () => [$("list").textContent, document.querySelectorAll("#list tr").length,
  document.querySelectorAll(".line.lit").length];
hits[0].dispatchEvent(new PointerEvent("pointermove", at)); seen.push(tip.textContent);
parts[part].dispatchEvent(new PointerEvent("pointerenter")); seen.push(list());
parts[part].dispatchEvent(new PointerEvent("pointerleave")); seen.push(list());
parts[part].dispatchEvent(new MouseEvent("click", at));
parts[part].dispatchEvent(new PointerEvent("pointerleave")); seen.push(list());
document.title = JSON.stringify(seen);
"""


@pytest.mark.browser
def test_hovering_tells_and_a_click_keeps(browse, result):
    tip, over, left, kept = title_of(browse(HOVER))
    drawn = layered(result, 60)
    head = drawn.source[0]
    assert tip.endswith(f"importance +{drawn.importance[0]:.3g} · rank 1")
    touching = int(((drawn.source == head) | (drawn.reader == head)).sum())
    assert over[0].startswith(f"{drawn.parts[head].name}: ") and over[1:] == [touching, touching]
    assert left == ["", 0, 0] and kept == over


@pytest.mark.browser
def test_the_address_names_a_size_or_a_node(browse, result):
    assert 'role="status">120 edges, ' in browse("", "#120")
    late = layered(result, 400)
    part = next(part for part in late.parts if part not in layered(result, 300).parts)
    dom = browse("", f"#{part.name}")
    assert f"<caption>{part.name}: " in dom and "60 edges, " not in dom


MOVE = """
const seen = [], turn = { deltaY: -400, clientX: 400, clientY: 400, cancelable: true };
graph.dispatchEvent(new WheelEvent("wheel", turn)); seen.push(state.zoom);
press_("down", 300); press_("move", 350); seen.push(state.x);
$("fit").click(); seen.push([state.zoom, state.x, state.y]);
function press_(kind, clientX) {
  const where = { clientX, clientY: 300, buttons: 1, bubbles: true };
  graph.dispatchEvent(new PointerEvent(`pointer${kind}`, where));
  if (kind === "down") { seen.push(state.x); }
}
document.title = JSON.stringify(seen);
"""


@pytest.mark.browser
def test_wheel_and_drag_move_the_picture(browse):
    zoom, before, after, whole = title_of(browse(MOVE))
    assert zoom == pytest.approx(np.exp(0.6)) and after > before + 10
    assert whole == [1, 0, 0]


@pytest.mark.browser
def test_no_request_leaves_the_page(browse):
    count = 'document.title = `${performance.getEntriesByType("resource").length} requests`;'
    watch = 'addEventListener("securitypolicyviolation", () => { document.title = "blocked"; });'
    use = "show(500); parts[9].dispatchEvent(new PointerEvent('pointerenter')); go(3);"
    assert "<title>0 requests</title>" in browse(
        watch + use + f"setTimeout(() => {{ {count} }}, 200);" + count
    )
