"""A page of its own: data, style and script in one file that asks the network for nothing.

May import `style`.
"""

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import style


def write_document(
    path: str | os.PathLike,
    title: str,
    kind: str,
    body: str,
    data: Any,
    scripts: Sequence[str],
) -> Path:
    """Write a page; its folder is made. Returns the path.

    - `kind`: the class of its body and the name of its style sheet. `body`: HTML. `data`: what its
      `scripts` find as JSON in the element "data".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_document(title, kind, body, data, scripts), encoding="utf-8")
    return path


def _document(title: str, kind: str, body: str, data: Any, scripts: Sequence[str]) -> str:
    said = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style.asset("page.css")}{style.asset(f"{kind}.css")}</style>
</head>
<body class="{kind}">
{body}
<script type="application/json" id="data">{said.replace("<", chr(92) + "u003c")}</script>
<script>
{"".join(map(style.asset, scripts))}</script>
</body>
</html>
"""
