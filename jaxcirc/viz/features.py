"""The page of a dictionary's features: search, sort, examples and notes, in one file.

The data lie in the page; `list.js` draws a row when it comes into sight and its examples when
it is opened. May import `experiments` for `FeaturePage`.
"""

import os
from html import escape
from pathlib import Path
from typing import Any

from ..experiments.dictionaries import Example, Feature, FeaturePage
from ._document import write_document


def write_features(page: FeaturePage, path: str | os.PathLike) -> Path:
    """Write the page; its folder is made.

    Returns the path. Raises `ValueError` for a page without features.

    >>> write_features(feature_page(model, tokenizer, dictionary, contexts, place), "features.html")
    """
    if not page.features:
        raise ValueError("a page without features: feature_page(..., features=range(100))")
    title = f"{len(page.features):,} features of {page.facts.get('model', 'a model')}, {page.place}"
    scripts = ["rows.js", "list.js", "features.js"]
    return write_document(path, title, "features", _body(title, page), _data(page), scripts)


def _body(title: str, page: FeaturePage) -> str:
    return f"""<main>
<h1>{escape(title)}</h1>
<p class="sub">{escape(_about(page))}</p>
{_BODY}
</main>"""


_BODY = """<form class="tools">
<input id="find" type="search" placeholder="a number, a token, a note"
 aria-label="find features: every word must occur in number, tokens or note">
<label>sort by <select id="sort" aria-label="sort by"><option value="i">number</option>
<option value="d">density</option><option value="m">largest activation</option></select></label>
<label><input id="dead" type="checkbox"> dead features too</label>
<button id="save" type="button">save notes</button>
<span id="count" class="note" role="status"></span>
</form>
<div id="list"></div>
<p id="more" class="note"></p>
<svg id="bars" hidden></svg>"""


def _about(page: FeaturePage) -> str:
    dead = sum(feature.largest <= 0 for feature in page.features)
    tokens = page.facts.get("tokens")
    seen = [f"seen on {tokens:,} tokens"] if isinstance(tokens, int) else []
    return " · ".join([*seen, f"{dead:,} dead", *map(str, page.notes)])


def _data(page: FeaturePage) -> dict[str, Any]:
    """All that the page knows: tokens by their place in a list of words."""
    ids = sorted(page.words)
    lookup = {token: i for i, token in enumerate(ids)}
    return {
        "place": page.place,
        "model": str(page.facts.get("model", "")),
        "words": [page.words[token] for token in ids],
        "rows": [[lookup[token] for token in row] for row in page.tokens.tolist()],
        "features": [_feature(feature) for feature in page.features],
    }


def _feature(feature: Feature) -> dict[str, Any]:
    """Short keys: number, density, maximum, top, bottom, histogram, quantiles, note, and who says
    so with what score."""
    return {
        "i": feature.index,
        "d": _short(feature.density),
        "m": _short(feature.largest),
        "t": [[word, _short(value)] for word, value in feature.top],
        "b": [[word, _short(value)] for word, value in feature.bottom],
        "h": list(feature.histogram),
        "q": [[name, [_example(each) for each in group]] for name, group in feature.quantiles],
        "n": feature.note,
        "w": {"by": feature.by, "score": feature.score} if feature.by else {},
    }


def _example(example: Example) -> list:
    values = [_short(value) for value in example.values.tolist()]
    return [example.context, example.start, example.peak, values]


def _short(value: float) -> float | int:
    """As few digits as one can see."""
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short
