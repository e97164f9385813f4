"""Features as JSON, in the form that circuit viewers and Neuronpedia read. May import `_page`."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...dictionaries.formats import write_file
from ._page import Example, FeaturePage


def feature_json(page: FeaturePage) -> Iterator[dict[str, Any]]:
    """Each feature as one JSON object.

    >>> next(feature_json(page))["examples_quantiles"][0]["quantile_name"]
    'Top activations'
    """
    for feature in page.features:
        every = [v for _, group in feature.quantiles for e in group for v in e.values.tolist()]
        yield {
            "index": feature.index,
            "examples_quantiles": [
                {"quantile_name": name, "examples": [_example(page, each) for each in group]}
                for name, group in feature.quantiles
            ],
            "top_logits": [word for word, _ in feature.top],
            "bottom_logits": [word for word, _ in feature.bottom],
            "act_min": _short(min(every, default=0.0)),
            "act_max": _short(feature.largest),
            "quantile_values": [],
            "histogram": list(feature.histogram),
            "activation_frequency": feature.density,
            **({"explanation": feature.note} if feature.note else {}),
        }


def _example(page: FeaturePage, example: Example) -> dict[str, Any]:
    stop = example.start + len(example.values)
    ids = page.tokens[example.context, example.start : stop].tolist()
    return {
        "is_repeated_datapoint": False,
        "train_token_ind": example.peak,
        "tokens": [page.words[i] for i in ids],
        "tokens_acts_list": [_short(value) for value in example.values.tolist()],
    }


def _short(value: float) -> float:
    """Four digits are enough to look at."""
    return float(f"{value:.4g}")


def write_feature_json(page: FeaturePage, path: str | os.PathLike) -> Path:
    """One JSON object a line, gzipped if the name ends in .gz.

    >>> write_feature_json(page, "features.jsonl.gz")
    """
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in feature_json(page))
    data = text.encode()
    return write_file(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)
