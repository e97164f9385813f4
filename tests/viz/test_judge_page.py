"""The page for judging features: what it holds, and, in a real browser, its switches."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxcirc import viz
from jaxcirc.circuits.features import FeatureNode
from jaxcirc.experiments.shift import JudgePage, Shown, Verdict, read_decisions
from jaxcirc.experiments.shift._contexts import Context


def page_of(n: int = 3, word: str = " she") -> JudgePage:
    """Features of which the first is ablated."""
    context = Context((" The", word), np.asarray([0.0, 2.5]), 1)
    features = tuple(
        Shown(FeatureNode("resid_post", 12, i), 1.0 - i, 2, Verdict(i == 0, "why"), (context,))
        for i in range(n)
    )
    pairs = ("professor", "nurse"), ("male", "female")
    return JudgePage("gender", "toy", *pairs, "word list", features)


def test_texts_are_escaped(tmp_path):
    evil = '</script><script>alert("x")</script>'
    text = viz.write_judge(page_of(word=evil), tmp_path / "a.html").read_text(encoding="utf-8")
    assert "alert(" in text and "<script>alert" not in text
    with pytest.raises(ValueError, match="a page without features"):
        viz.write_judge(page_of(0), tmp_path / "b.html")


USE = """
const told = [], rows = () => [...document.querySelectorAll(".feature")];
const names = () => rows().map((row) => row.dataset.feature);
told.push([names(), $("count").textContent, document.querySelectorAll(".example").length]);
const flip = rows()[1].querySelector('input[value="ablate"]');
flip.checked = true; flip.dispatchEvent(new Event("change"));
told.push([rows()[1].dataset.said, $("count").textContent]);
which.value = "changed"; which.dispatchEvent(new Event("change")); told.push(names());
which.value = "keep"; which.dispatchEvent(new Event("change")); told.push(names());
which.value = ""; find.value = "12/2"; find.dispatchEvent(new Event("input")); told.push(names());
told.push(decisions());
document.title = JSON.stringify(told);
"""


@pytest.mark.browser
def test_switches_are_turned_and_decisions_read_back(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    page = viz.write_judge(page_of(), tmp_path / "judge.html")
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{USE}</script>".join(text.rsplit("</script>", 1)), encoding="utf-8")
    flags = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*flags, page.as_uri()], capture_output=True, timeout=60, check=True)
    found = re.search("<title>(.*?)</title>", done.stdout.decode(), re.S)
    assert found is not None
    first, turned, changed, kept, searched, said = json.loads(found[1])
    every = [f"resid_post.12/{i}" for i in range(3)]
    assert first == [every, "3 shown, 1 of 3 ablated", 3]
    assert turned == ["ablate", "3 shown, 2 of 3 ablated"]
    assert changed == [every[1]] and kept == [every[2]] and searched == [every[2]]
    (tmp_path / "d.json").write_text(said)
    decisions = read_decisions(tmp_path / "d.json")
    assert decisions.ablate == dict(zip(every, (True, True, False), strict=True))
    assert (decisions.task, decisions.model) == ("gender", "toy")
