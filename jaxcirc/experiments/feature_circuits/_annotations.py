"""The annotations that Marks et al. 2024 published with their code, as ours.

    {"Name": "resid_5/3036", "Annotation": "promotes singular verb forms", "Notes": ""}

Theirs name block outputs "resid", and what enters the first block "embed". May import
`dictionaries`.
"""

import json
import os
import re
from pathlib import Path

from ..dictionaries import Annotation

SITES = {"resid": "resid_post", "attn": "attn_out", "mlp": "mlp_out"}

_NAME = re.compile(r"(?P<site>resid|attn|mlp|embed)(?:_(?P<layer>\d+))?/(?P<feature>\d+)")


def read_published(path: str | os.PathLike, model: str = "") -> list[Annotation]:
    """The features of a published file that are described; records without a description, and the
    header that stands among them, are passed over.

    - `model`: what they are for, "pythia-70m-deduped" or "gemma-2-2b".

    Raises `ValueError`, naming the line, for what is no such record.

    >>> read_published("annotations/pythia-70m-deduped.jsonl")[0].text
    """
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, text = str(record["Name"]), str(record.get("Annotation") or "")
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(
                f'{Path(path).name}, line {number}: no {{"Name": "resid_5/17", "Annotation": ..}}'
            ) from None
        parts = _NAME.fullmatch(name)
        if parts is None or not text:
            continue
        note = str(record.get("Notes") or record.get("notes") or "")
        words = f"{text} ({note})" if note else text
        by = "Marks et al. 2024"
        found.append(Annotation(int(parts["feature"]), words, model, _place(parts), by))
    return found


def _place(parts: re.Match[str]) -> str:
    site = parts["site"]
    return "resid_pre.0" if site == "embed" else f"{SITES[site]}.{parts['layer']}"
