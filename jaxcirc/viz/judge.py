"""The page on which somebody judges features: a switch each, and a button that saves decisions.

The data lie in the page, which asks the network for nothing. May import `experiments` for
`JudgePage`.
"""

import os
from html import escape
from pathlib import Path
from typing import Any

from ..experiments.shift import JudgePage, Shown
from ._document import write_document

VERSION = 1


def write_judge(page: JudgePage, path: str | os.PathLike) -> Path:
    """Write the page; its folder is made. What it saves is read by `read_decisions`.

    Returns the path. Raises `ValueError` for a page without features.

    >>> write_judge(study_shift(model, tokenizer, basis, "runs/shift").pages[0], "judge.html")
    """
    if not page.features:
        raise ValueError("a page without features: Scoring(features=64) chooses some")
    title = f"{page.task}: {len(page.features)} features of {page.model}, to keep or to ablate"
    scripts = ["rows.js", "judge.js"]
    return write_document(path, title, "judge", _body(title, page), _data(page), scripts)


def _body(title: str, page: JudgePage) -> str:
    labels, attributes = " or ".join(page.labels), " or ".join(page.attributes)
    asked = (
        f"The classifier is to tell {labels}. Ablate what is about {attributes} instead, keep the"
        " rest. Switches stand as the word list, or the last judge, has them."
    )
    return f"""<main>
<h1>{escape(title)}</h1>
<p class="sub">{escape(asked)}</p>
{_BODY}
</main>"""


_BODY = """<form class="tools">
<input id="find" type="search" placeholder="a place, a word" aria-label="find features">
<label>show <select id="which" aria-label="show"><option value="">all</option>
<option value="ablate">ablated</option><option value="keep">kept</option>
<option value="changed">changed by me</option></select></label>
<button id="save" type="button">save decisions</button>
<span id="count" class="note" role="status"></span>
</form>
<div id="list"></div>"""


def _data(page: JudgePage) -> dict[str, Any]:
    """All that the page knows: tokens by their place in a list of words."""
    words = sorted({w for each in page.features for c in each.contexts for w in c.words})
    lookup = {word: i for i, word in enumerate(words)}
    return {
        "version": VERSION,
        "task": page.task,
        "model": page.model,
        "words": words,
        "features": [_feature(each, lookup) for each in page.features],
    }


def _feature(each: Shown, lookup: dict[str, int]) -> dict[str, Any]:
    """Short keys: name, importance, seeds, ablate, why, peaks, contexts."""
    return {
        "n": str(each.node),
        "i": float(f"{each.importance:.3g}"),
        "s": each.seeds,
        "a": each.verdict.ablate,
        "w": each.verdict.why,
        "p": each.peaks,
        "x": [
            [[lookup[w] for w in c.words], [float(f"{v:.3g}") for v in c.values.tolist()]]
            for c in each.contexts
        ],
    }
